-- printed.lua: The memory budget of a run: what its jobs have printed, and large views of their ends.
-- docs/decisions/013 says what is dropped, and in which order.
--
-- The hash printed:RUN has a record for each attempt that has printed (flowq/runtime/printed.py), by
-- "<job>:<attempt>"; its field `used` has the bytes of these records and of the large views
-- (flowq/runtime/views.py) together. It falls only where a record is replaced by a shorter one.

local BUDGET = 8000000 -- bytes, where the run's record has no `budget_bytes`
local SHARE = 0.75 -- of it for attempts that run, or have not failed; the rest is for failures
local NOTE = '{"bytes":%s,"dropped":"budget","budget":%d}\n'
local SHORT = 64 -- a record of so many bytes takes no more memory than the note in place of it

local accounts -- of this call, by run; false for a run that is gone

function printed.reset() accounts = {} end

local function find_account(run)
  local account = accounts[run]
  if account ~= nil then return account end
  local key = keys.run(run)
  local f = redis.call('HMGET', key, 'state', 'budget_bytes')
  accounts[run] = false
  if not f[1] or f[1] == 'purging' then return false end
  local budget = f[2] and tonumber(f[2]) or BUDGET
  local source = redis.call('HSTRLEN', key, 'picture') + redis.call('HSTRLEN', key, 'spec')
  account = { budget = budget, left = budget - source,
    used = int(redis.call('HGET', keys.printed(run), 'used')) }
  accounts[run] = account
  return account
end

-- Keeps the record of an attempt, or else a note of how much it was. `text`: the number of the attempt, a
-- line feed, and the record. `may_replace`: there may be an earlier record of the same attempt.
function printed.keep(run, id, text, has_failed, may_replace)
  local account = find_account(run)
  local attempt, at = string.match(text, '^(%d+)\n()')
  if not account or not attempt then return end
  local key, field, record = keys.printed(run), id .. ':' .. attempt, string.sub(text, at)
  local before = may_replace and redis.call('HSTRLEN', key, field) or 0
  local limit = account.left - (has_failed and 0 or (1 - SHARE) * account.budget)
  if #record > SHORT and account.used + #record - before > limit then
    local size = string.match(record, '^{"bytes":(%d+)') or '0'
    record = string.format(NOTE, string.sub(size, 1, 16), account.budget)
  end
  account.used = account.used + #record - before
  redis.call('HSET', key, field, record, 'used', account.used)
end

-- Returns the view of an end, or its short form where the run has no memory left for it.
function printed.choose_view(run, view, short_view)
  local account = find_account(run)
  if not account then return view end
  if account.used + #view > account.left then return short_view end
  account.used = account.used + #view
  redis.call('HSET', keys.printed(run), 'used', account.used)
  return view
end

-- Keeps what attempts have printed so far, or what those have printed whose end RQ's code writes.
-- ARGV   4 how many, then for each of them: run, job, "1" if it has failed, `text` as for printed.keep
-- Returns 1. Idempotent.
function printed.keep_all(argv)
  printed.reset()
  for i = 5, 4 + 4 * tonumber(argv[4]), 4 do
    printed.keep(argv[i], argv[i + 1], argv[i + 3], argv[i + 2] == '1', true)
  end
  return 1
end
