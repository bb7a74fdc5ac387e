-- printed.lua: The memory budget of a run: what its jobs have printed, and large views of their ends.
-- docs/decisions/013 says what is dropped, and in which order.
--
-- The hash printed:RUN has a record for each attempt that has printed (flowq/runtime/printed.py), by
-- "<job>:<attempt>"; its field `used` has the bytes of these records and of the large views
-- (flowq/runtime/views.py) together. It falls only where a record is replaced by a shorter one.
--
-- A worker of an older version that removes a run knows nothing of the hash. So ZSET printing has the runs
-- that have one, by the time at which maintenance looks whether the run is still there (TO_SWEEP_S).

local BUDGET = 8000000 -- bytes, where the run's record has no `budget_bytes`
local SHARE = 0.75 -- of it for attempts that run, or have not failed; the rest is for failures
local NOTE = '{"bytes":%s,"dropped":"budget","budget":%d}\n'
local SHORT = 64 -- a record of so many bytes takes no more memory than the note in place of it

local TO_SWEEP_S = 3600

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

-- `...`: a record to be written with it, and its field before that.
local function note_used(run, account, change, ...)
  if account.used == 0 then redis.call('ZADD', OURS .. 'printing', TS + TO_SWEEP_S, run) end
  account.used = account.used + change
  redis.call('HSET', keys.printed(run), 'used', account.used, ...)
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
  note_used(run, account, #record - before, field, record)
end

-- Whether the run has memory left for a view; then it is counted. A run that is gone counts nothing.
local function charge(run, size)
  local account = find_account(run)
  if not account then return true end
  if account.used + size > account.left then return false end
  note_used(run, account, size)
  return true
end

-- Returns the view of an end, or its short form where the run has no memory left for it.
function printed.choose_view(run, view, short_view)
  return charge(run, #view) and view or short_view
end

-- Charges a view that other code writes.
-- ARGV   4 run   5 its size in bytes
-- Returns 1, or 0 where the run has no memory left for it.
function printed.charge_view(argv)
  printed.reset()
  return charge(argv[4], tonumber(argv[5])) and 1 or 0
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
