-- groups.lua: Groups of jobs: the items that `for_each` and `matrix` add.
--
-- Fields of ours in a job's hash:
--   flowq_group     the group that it is an item of; the job of that id expands it, if there is one
--   flowq_expands   "1" for a job that adds the items of the group of its own id: no blocker that
--                   `if_empty` would count
--   flowq_by        the job that has added it, and releases it; flowq_adds: "1" for such a job, from when
--                   it adds future jobs, or those of a workflow, until it releases them
--   flowq_slots     the limits that it is counted in, "group:G=J future:F run:R"; behind a "=" the join
--                   that has the place for all jobs of its workflow, else the job itself has it
--   flowq_tolerate  "1" when its failure counts as a success
--   flowq_pass      set by the job while it runs: why it is skipped after all, neutrally
--   flowq_approval  "1" for a job that somebody has to approve, "1 seconds" when that expires
--   flowq_expires   seconds from its release until it is canceled if it has not started
--   flowq_message   what whoever approves it should read, when it is known
--   flowq_asks      the inputs that an approval has to give, JSON
--   flowq_asked     "1" once somebody was asked; flowq_approved, flowq_rejected   the word that was given,
-- JSON:
--                   by, at, note, inputs
--   flowq_judging   what comes before it asks, or takes a slot: "skip REASON" where its `if` is known to be
--                   false; "due" where a worker has to judge that; "done" when it was judged, and waits
--
-- A group's hash: size (items so far), max_items, max_parallel, tolerate ("all", "count:N",
-- "percent:P"), fail_fast, complete ("1" when its expansion has ended), left (items that have not
-- ended), over ("1" when more failed than are tolerated), closed (what unstarted items end as) and
-- reason, closing (how far that has come), needless ("1" where it is closed because no job needs it any
-- more), asks ("1", or what flowq_asks would be: each item needs an
-- approval), approved or rejected (the word for all of them, also for those still to come).
-- Beside it: keys:G (index by key), items:G (item by index), tolerated:G (ids).

function groups.item_id(group, index) return group .. string.rep('-', 2) .. index end
function groups.split_item_id(id) return string.match(id, '^(.+)%-%-(%d+)$') end

-- Ends so many items of a closed group that have not started, and what is theirs; returns true at
-- the end of the group.
function groups.close_items(group, count)
  local key = keys.group(group)
  local f = redis.call('HMGET', key, 'closed', 'reason', 'closing', 'size')
  if not f[1] then return true end
  local last = math.min(int(f[3]) + count, int(f[4]))
  for index = int(f[3]), last - 1 do
    local item = groups.item_id(group, index)
    local is_waiting = NOT_STARTED[redis.call('HGET', keys.job(item), 'status')]
    if is_waiting and nested.has_begun(item) then
      nested.end_round(item, f[1], f[2])
    elseif is_waiting then
      jobs.call_off(item, f[1], f[2])
      jobs.call_off(nested.start_id(item), f[1], f[2]) -- where there is one
      if redis.call('EXISTS', keys.future(item)) == 1 then later('recall:' .. item) end
    end
  end
  redis.call('HSET', key, 'closing', last)
  return last >= int(f[4])
end

-- From here on the items that have not started, also those still to come, end like that.
function groups.close(group, outcome, reason)
  if redis.call('HSETNX', keys.group(group), 'closed', outcome) == 0 then return end
  redis.call('HSET', keys.group(group), 'reason', reason)
  if not groups.close_items(group, 100) then later('close:' .. group) end
end

-- Returns ids of tolerated failures that are too many, now that the group is at its end.
local function find_excess(group)
  local g = redis.call('HMGET', keys.group(group), 'complete', 'left', 'tolerate', 'size')
  local percent = g[1] and int(g[2]) <= 0 and string.match(g[3] or '', '^percent:(.+)$')
  if not percent then return {} end
  local allowed = math.floor(int(g[4]) * tonumber(percent) / 100 + 1e-9)
  local excess = redis.call('SCARD', keys.tolerated(group)) - allowed
  if excess <= 0 then return {} end
  redis.call('HSET', keys.group(group), 'over', 1)
  return redis.call('SPOP', keys.tolerated(group), math.min(excess, 100)) -- one would be enough
end

function groups.count(group, before, after)
  local change = (before and 1 or 0) - (after and 1 or 0)
  if change ~= 0 and redis.call('EXISTS', keys.group(group)) == 1 then
    redis.call('HINCRBY', keys.group(group), 'left', change)
  end
end

-- Notes the end of a job in its group; returns what find_excess does.
function groups.note_end(id, job, before, outcome)
  local expands = job.expands and redis.call('EXISTS', keys.group(id)) == 1 -- a start has no group
  if expands and (outcome == 'finished' or outcome == 'passed') then
    redis.call('HSET', keys.group(id), 'complete', 1)
    return find_excess(id)
  end
  if not job.group then return {} end
  groups.count(job.group, before, outcome)
  if (outcome == 'failed' or outcome == 'stopped')
    and redis.call('HGET', keys.group(job.group), 'fail_fast') then
    groups.close(job.group, 'canceled', job.name .. ' ' .. outcome)
    later('quell:' .. job.group)
  end
  return find_excess(job.group)
end

-- An item that is held again opens its group again.
function groups.reopen(group)
  redis.call('HDEL', keys.group(group), 'closed', 'closing', 'stopping', 'reason', 'needless', 'over',
    'approved', 'rejected')
end

local function forget(group)
  redis.call('ZREM', OURS .. 'deadlines', group)
  redis.call('DEL', keys.group(group), keys.tolerated(group), OURS .. 'keys:' .. group,
    OURS .. 'items:' .. group, keys.slots('group:' .. group), keys.waiting('group:' .. group))
end

function groups.drop(run, group)
  if redis.call('SREM', OURS .. 'groups:' .. run, group) == 1 then forget(group) end
end

-- The group is as it was declared.
function groups.empty(group)
  redis.call('HDEL', keys.group(group), 'size', 'complete', 'left', 'over', 'closed', 'closing',
    'stopping', 'reason', 'needless', 'approved', 'rejected')
  redis.call('DEL', keys.tolerated(group), OURS .. 'keys:' .. group, OURS .. 'items:' .. group)
end

function groups.forget_all_of(run, count)
  local ids = redis.call('SPOP', OURS .. 'groups:' .. run, count)
  for _, group in ipairs(ids) do forget(group) end
  if #ids > 0 then return false end
  redis.call('DEL', keys.slots('run:' .. run), keys.waiting('run:' .. run))
  return true
end

-- Gives new items of a group their indexes.
-- ARGV   4 id of the group   5 number of items, then for each of them its key and the item itself
-- Returns {index, "1" when there is a job of that index else "0", …} for each item, or {"full", max}
-- when the group would have more items than it may, and nothing is changed.
-- Idempotent: a key that was seen keeps its index, so that whoever adds the same items again, after
-- a crash or from another item, meets what is there.
function groups.grow(argv)
  local group, count = argv[4], tonumber(argv[5])
  local index_key = OURS .. 'keys:' .. group
  local index_by_key, fresh = {}, 0
  for i = 1, count do
    local key = argv[4 + 2 * i]
    if index_by_key[key] == nil then
      index_by_key[key] = tonumber(redis.call('HGET', index_key, key)) or false
      if not index_by_key[key] then fresh = fresh + 1 end
    end
  end
  local g = redis.call('HMGET', keys.group(group), 'size', 'max_items')
  local size = int(g[1])
  if g[2] and fresh > 0 and size + fresh > tonumber(g[2]) then return { 'full', g[2] } end
  local answer = {}
  for i = 1, count do
    local key = argv[4 + 2 * i]
    if not index_by_key[key] then
      index_by_key[key] = size
      redis.call('HSET', index_key, key, size)
      redis.call('HSET', OURS .. 'items:' .. group, size, argv[5 + 2 * i])
      size = size + 1
    end
    local index = index_by_key[key]
    answer[#answer + 1] = index
    answer[#answer + 1] = redis.call('EXISTS', keys.job(groups.item_id(group, index)))
  end
  redis.call('HSET', keys.group(group), 'size', size)
  return answer
end
