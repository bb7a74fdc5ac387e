-- groups.lua: put behind common.lua in front of every other script: groups of jobs, the slots of
-- `max_parallel`, and what makes an end count for something else than it looks like. It takes no
-- ARGV.
--
-- Fields of ours in a job's hash:
--   flowq_group     the group that it is an item of; the job of that id expands it, if there is one
--   flowq_expands   "1" for a job that adds the items of the group of its own id: no blocker that
--                   `if_empty` would count
--   flowq_by        the job that has added it, and releases it; flowq_adds: it has added such
--   flowq_slots     the limits that it is counted in, "group:G=J future:F run:R"; behind a "=" the join
--                   that has the place for all jobs of its workflow, else the job itself has it
--   flowq_tolerate  "1" when its failure counts as a success
--   flowq_pass      set by the job while it runs: why it is skipped after all, neutrally
--   flowq_approval  "1" for a job that somebody has to approve, "1 seconds" when that expires
--   flowq_expires   seconds from its release until it is canceled if it has not started
--   flowq_message   what whoever approves it should read
--   flowq_asked, flowq_approved   how far that has come
--
-- A group's hash: size (items so far), max_items, max_parallel, tolerate ("all", "count:N",
-- "percent:P"), fail_fast, complete ("1" when its expansion has ended), left (items that have not
-- ended), over ("1" when more failed than are tolerated), closed (what unstarted items end as) and
-- reason, closing (how far that has come).
-- Beside it: keys:G (index by key), items:G (item by index), tolerated:G (ids), and for each limit
-- slots:L (ids of those that have one) and waiting:L (ids by turn). Beside a join J that has places
-- for others: behind:J (ids of those that wait with it).

-- Items that block nothing are looked after by their run: loose:R (ids of those that have not ended).

local function loose_key(run) return OURS .. 'loose:' .. run end
local function group_key(group) return OURS .. 'group:' .. group end
local function item_id(group, index) return group .. string.rep('-', 2) .. index end
local function split_item_id(id) return string.match(id, '^(.+)%-%-(%d+)$') end
local function tolerated_key(group) return OURS .. 'tolerated:' .. group end
local function slots_key(limit) return OURS .. 'slots:' .. limit end
local function waiting_key(limit) return OURS .. 'waiting:' .. limit end
local function behind_key(join) return OURS .. 'behind:' .. join end

-- Slots -----------------------------------------------------------------------------------------

-- Yields each limit, and the join that has the place in it or ''. `slots` nil or false: none.
local function each_limit(slots) return string.gmatch(slots or '', '([^%s=]+)=?(%S*)') end

local function holder_of(id, join) return join ~= '' and join or id end

local function is_full(limit, id)
  local max = redis.call('HGET', OURS .. limit, 'max_parallel')
  if not max or redis.call('SISMEMBER', slots_key(limit), id) == 1 then return false end
  return redis.call('SCARD', slots_key(limit)) >= tonumber(max)
end

-- A join that has ended has no place any more; a job of its workflow may run again nevertheless.
local function can_have_place(join)
  return join == '' or redis.call('HEXISTS', job_key(join), 'flowq_outcome') == 0
end

local function line_up(key, id)
  local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  redis.call('ZADD', key, 'NX', int(last[2]) + 1, id)
end

function take_slots(id, slots)
  for limit, join in each_limit(slots) do
    if can_have_place(join) and is_full(limit, holder_of(id, join)) then
      line_up(waiting_key(limit), holder_of(id, join))
      if join ~= '' then line_up(behind_key(join), id) end
      return false
    end
  end
  hold_slots(id, slots)
  return true
end

function leave_turn(id, slots)
  for limit, join in each_limit(slots) do
    redis.call('ZREM', join ~= '' and behind_key(join) or waiting_key(limit), id)
  end
end

function hold_slots(id, slots)
  for limit, join in each_limit(slots) do
    if can_have_place(join) then redis.call('SADD', slots_key(limit), holder_of(id, join)) end
    redis.call('ZREM', waiting_key(limit), holder_of(id, join))
  end
  leave_turn(id, slots)
end

-- Queues a job whose turn it is; its hash may say that it is held, or over, by now.
local function have_turn(id)
  local f = read_for_enqueue(id)
  if f[12] ~= 'deferred' or int(f[13]) > 0 then return end
  if f[10] and redis.call('HGET', future_key(id), 'state') ~= 'met' then return end
  if enqueue(id, f) and f[10] then redis.call('HSET', future_key(id), 'state', 'queued') end
end

-- Lets jobs that wait with a join have their turn; a workflow goes on by itself after so many, as
-- each end in it calls this again.
local function call_up(join)
  local ids = redis.call('ZPOPMIN', behind_key(join), 100)
  for at = 1, #ids, 2 do have_turn(ids[at]) end
end

local function fill_up(limit)
  while not is_full(limit, '') do
    local next = redis.call('ZPOPMIN', waiting_key(limit))
    if not next[1] then return end
    have_turn(next[1])
    call_up(next[1])
  end
end

function give_slots(id, slots)
  leave_turn(id, slots)
  for limit, join in each_limit(slots) do
    if join == '' then redis.call('SREM', slots_key(limit), id) end
  end
  for limit, join in each_limit(slots) do
    if join == '' then
      fill_up(limit)
    elseif not is_full(limit, join) then
      call_up(join)
    end
  end
end

-- What an end counts for ------------------------------------------------------------------------

local function is_tolerated(id, group)
  local g = redis.call('HMGET', group_key(group), 'tolerate', 'over')
  if not g[1] or g[2] then return false end
  local count = string.match(g[1], '^count:(%d+)$')
  if count and redis.call('SISMEMBER', tolerated_key(group), id) == 0
    and redis.call('SCARD', tolerated_key(group)) >= tonumber(count) then
    return false
  end
  redis.call('SADD', tolerated_key(group), id)
  return true
end

function judge(id, job, outcome, reason)
  if outcome == 'finished' and job.pass then return 'passed', job.pass end
  local why = 'tolerated'
  if outcome == 'skipped' and job.future and has_failed_inside(id) then
    outcome, reason = 'failed', reason or redis.call('HGET', job_key(id), 'flowq_reason')
    why = why .. ': ' .. (reason or '')
  end
  if outcome == 'failed' and (job.tolerate or job.group and is_tolerated(id, job.group)) then
    return 'tolerated', why
  end
  if job.group and outcome ~= 'tolerated' then
    redis.call('SREM', tolerated_key(job.group), id)
  end
  return outcome, reason
end

local NOT_STARTED = { deferred = true, queued = true, scheduled = true, ready_to_enqueue = true }

-- Whether a nested workflow has begun; what is in it goes on.
local function has_begun(join)
  if redis.call('HEXISTS', job_key(join), 'flowq_nested') == 0 then return false end
  local status = redis.call('HGET', job_key(start_id(join)), 'status')
  return status and not NOT_STARTED[status]
end

-- Ends so many items of a closed group that have not started, and what is theirs; returns true at
-- the end of the group.
local function close_items(group, count)
  local key = group_key(group)
  local f = redis.call('HMGET', key, 'closed', 'reason', 'closing', 'size')
  if not f[1] then return true end
  local last = math.min(int(f[3]) + count, int(f[4]))
  for index = int(f[3]), last - 1 do
    local item = item_id(group, index)
    if NOT_STARTED[redis.call('HGET', job_key(item), 'status')] and not has_begun(item) then
      call_off(item, f[1], f[2])
      call_off(start_id(item), f[1], f[2]) -- where there is one
      if redis.call('EXISTS', future_key(item)) == 1 then later('recall:' .. item) end
    end
  end
  redis.call('HSET', key, 'closing', last)
  return last >= int(f[4])
end

-- From here on the items that have not started, also those still to come, end like that.
local function close_group(group, outcome, reason)
  if redis.call('HSETNX', group_key(group), 'closed', outcome) == 0 then return end
  redis.call('HSET', group_key(group), 'reason', reason)
  if not close_items(group, 100) then later('close:' .. group) end
end

-- Returns ids of tolerated failures that are too many, now that the group is at its end.
local function find_excess(group)
  local g = redis.call('HMGET', group_key(group), 'complete', 'left', 'tolerate', 'size')
  local percent = g[1] and int(g[2]) <= 0 and string.match(g[3] or '', '^percent:(.+)$')
  if not percent then return {} end
  local allowed = math.floor(int(g[4]) * tonumber(percent) / 100 + 1e-9)
  local excess = redis.call('SCARD', tolerated_key(group)) - allowed
  if excess <= 0 then return {} end
  redis.call('HSET', group_key(group), 'over', 1)
  return redis.call('SPOP', tolerated_key(group), math.min(excess, 100)) -- one would be enough
end

function count_in_group(group, before, after)
  local change = (before and 1 or 0) - (after and 1 or 0)
  if change ~= 0 and redis.call('EXISTS', group_key(group)) == 1 then
    redis.call('HINCRBY', group_key(group), 'left', change)
  end
end

-- Notes the end of a job in its group; returns what find_excess does.
function end_in_group(id, job, before, outcome)
  local expands = job.expands and redis.call('EXISTS', group_key(id)) == 1 -- a start has no group
  if expands and (outcome == 'finished' or outcome == 'passed') then
    redis.call('HSET', group_key(id), 'complete', 1)
    return find_excess(id)
  end
  if not job.group then return {} end
  count_in_group(job.group, before, outcome)
  if (outcome == 'failed' or outcome == 'stopped')
    and redis.call('HGET', group_key(job.group), 'fail_fast') then
    close_group(job.group, 'canceled', job.name .. ' ' .. outcome)
  end
  return find_excess(job.group)
end

-- An item that is held again opens its group again.
function reopen_group(group)
  redis.call('HDEL', group_key(group), 'closed', 'closing', 'reason', 'over')
end

-- Nothing waits for such a job but its run, which looks now and then whether it ended unnoticed.
function keep_loose(run, id)
  redis.call('SADD', loose_key(run), id)
  redis.call('ZADD', OURS .. 'watched', 'NX', TS + 60, run)
end

function drop_loose(run, id) redis.call('SREM', loose_key(run), id) end

-- Approval --------------------------------------------------------------------------------------

-- Whether a job that is ready otherwise has to wait for somebody's approval, who is asked now.
function must_ask(id)
  local f = redis.call('HMGET', job_key(id), 'flowq_approval', 'flowq_approved', 'flowq_run',
    'flowq_name', 'flowq_asked')
  if not f[1] or f[2] then return false end
  if f[5] then return true end
  redis.call('HSET', job_key(id), 'flowq_asked', 1)
  local expires = string.match(f[1], '^1 (.+)$')
  if expires then redis.call('ZADD', OURS .. 'expiring', TS + tonumber(expires), id) end
  if f[3] then log(f[3], id, f[4], 'deferred', 'waits for approval') end
  return true
end
