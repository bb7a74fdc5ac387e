-- common.lua: put in front of every other script of this folder.
--
-- ARGV   1 key prefix of RQ ("rq")   2 now, as RQ writes instants   3 now, in epoch seconds
-- Each script documents the rest of its ARGV, which starts at 4. KEYS[1] only names the slot: in a
-- cluster all keys share one hash tag (RQ_KEY_PREFIX).
--
-- Fields of ours in a job's hash; nothing but these scripts writes them:
--   flowq_blocks   the future jobs that it blocks, "a b! c"; "!" = a failure here is ignored
--   flowq_gates    how many of them have not been released yet
--   flowq_future   "1" for a future job
--   flowq_outcome  how its last attempt ended; absent while it has not ended
--   flowq_gen      its generation; a settling from an older one changes nothing
--   flowq_at       epoch seconds before which it must not be queued
--   flowq_reason   why it was called off
--   flowq_missing  since when it is queued, but on no queue
--   flowq_late     "1" for a future job that joined a run after its commit
--   flowq_loose    "1" for an item that blocks nothing, once a retry has to queue it
--   flowq_retries  how many retries it was declared with, for when its run is retried
--   flowq_run, flowq_name    the run that it belongs to, and its name there
--   and those of groups.lua and nested.lua
--
-- A future's hash: state, policy (wait|skip|run), if_empty (run|skip), total, pending, bad, lost
-- (edges, by class), culprit (the last edge of bad or lost, and its outcome); cascade ("1" when
-- its release goes on to its blockers); and how far the steps have come with its blockers: freed
-- (without this gate), dropped, recalled, retired, watched.
--   open → releasing → released → met → queued → <outcome of the job>
-- It is undecided up to `released`. `met`: only RQ's own depends_on, a slot or an approval holds it.

local PREFIX, NOW, TS, OURS, TODO -- of the call; settling.lua sets what one call must not leave behind
local WEEK_S = 604800
local CASCADE_LIMIT = 500
local UNDECIDED = { open = true, releasing = true, released = true }
local CALLED_OFF = { canceled = true, skipped = true, passed = true, deleted = true, expired = true }

local function job_key(id) return PREFIX .. ':job:' .. id end
local function blockers_key(id) return PREFIX .. ':deferred:' .. id end
local function future_key(id) return OURS .. 'future:' .. id end
local function edges_key(id) return OURS .. 'edges:' .. id end
local function mortal_key(id) return OURS .. 'mortal:' .. id end
local function run_key(id) return OURS .. 'run:' .. id end

local function int(value) return tonumber(value or 0) or 0 end

local function each_future(blocks) return string.gmatch(blocks or '', '([%w_-]+)(!?)') end

local function text_of(problem)
  return tostring(type(problem) == 'table' and problem.err or problem)
end

-- Of groups.lua, which stands behind this file.
local take_slots, hold_slots, give_slots, leave_turn, judge, count_in_group, end_in_group, reopen_group
local must_ask, keep_loose, drop_loose
local weigh, why_empty -- of nested.lua

local begun -- what this call has put on the todo

local function later(operation)
  if redis.call('ZADD', TODO, 'NX', TS, operation) == 1 then begun[#begun + 1] = operation end
end

-- Runs ------------------------------------------------------------------------------------------

local function log(run, id, name, state, reason)
  redis.call('XADD', OURS .. 'events:' .. run, '*', 'job', id, 'name', name or '',
    'state', state, 'reason', reason or '')
end

local COUNTS_AGAINST = { failed = 1, stopped = 1, canceled = 1, expired = 1, deleted = 1 }

local function concurrency_key(run)
  local group = redis.call('HGET', run_key(run), 'concurrency')
  return group and OURS .. 'concurrency:' .. group
end

-- The run lines up in its group of runs; returns false when another one goes first.
local function join_concurrency(run)
  local list = concurrency_key(run)
  if not list then return true end
  redis.call('LREM', list, 0, run)
  redis.call('RPUSH', list, run)
  local first = redis.call('LINDEX', list, 0)
  if first == run then return true end
  redis.call('HSET', run_key(run), 'held', 'turn')
  log(run, '', '', 'waiting', 'run ' .. first .. ' of the same `concurrency` group goes first')
  return false
end

-- The run has ended, or is removed: the next one of its group of runs may go.
local function leave_concurrency(run)
  local list = concurrency_key(run)
  if not list then return end
  redis.call('LREM', list, 0, run)
  local first = redis.call('LINDEX', list, 0)
  if first and redis.call('HDEL', run_key(first), 'held') == 1 then
    log(first, '', '', 'running')
    later('run:' .. first)
  end
end

local function end_run_if_done(run)
  local key = run_key(run)
  local fields = redis.call('HMGET', key, 'left', 'bad', 'state', 'canceling', 'retention_s')
  if fields[3] ~= 'running' or int(fields[1]) > 0 then return end
  local state = int(fields[2]) > 0 and (fields[4] and 'canceled' or 'failed') or 'succeeded'
  redis.call('HSET', key, 'state', state, 'ended_at', NOW)
  log(run, '', '', state)
  redis.call('ZADD', OURS .. 'ended', TS + int(fields[5]), run)
  leave_concurrency(run)
end

-- Keeps the counts of a run over one transition of one of its jobs; nil means "has not ended".
local function count_in_run(run, before, after, id)
  local key = run_key(run)
  if redis.call('EXISTS', key) == 0 then return end
  local ended = (after and 1 or 0) - (before and 1 or 0)
  if ended ~= 0 then redis.call('HINCRBY', key, 'left', -ended) end
  weigh(run, id, before, after)
  if ended < 0 and redis.call('ZREM', OURS .. 'ended', run) == 1 then
    redis.call('HSET', key, 'state', 'running')
    redis.call('HDEL', key, 'ended_at')
    log(run, '', '', 'running')
    local list = concurrency_key(run) -- it goes on at once, and those that wait wait for it as well
    if list then redis.call('LPUSH', list, run) end
  end
  end_run_if_done(run)
end

-- Queueing --------------------------------------------------------------------------------------

-- RQ's rule for depends_on: a deleted dependency is met, a failed one when failures are allowed.
local function unmet_dependencies(dependency_ids, allow_failures)
  local all, unmet = cjson.decode(dependency_ids), false
  for _, id in ipairs(all) do
    local status = redis.call('HGET', job_key(id), 'status')
    if status and status ~= 'finished' and not (status == 'failed' and allow_failures == '1') then
      unmet = true
    end
  end
  return unmet and all
end

-- Jobs that this call has made QUEUED go to the ends of their queues together, in this order.
local queued_by_queue

local function push_queued()
  for queue, ids in pairs(queued_by_queue) do
    redis.call('RPUSH', PREFIX .. ':queue:' .. queue, unpack(ids))
    redis.call('ZREM', PREFIX .. ':deferred:' .. queue, unpack(ids))
  end
  queued_by_queue = {}
end

local function push(queue, id)
  local ids = queued_by_queue[queue]
  if ids and #ids == 1000 then -- `unpack` ends at some 8,000 values
    push_queued()
    ids = nil
  end
  if ids then ids[#ids + 1] = id else queued_by_queue[queue] = { id } end
end

local ENQUEUE_FIELDS = { 'origin', 'dependency_ids', 'allow_dependency_failures',
  'enqueue_at_front', 'flowq_at', 'ttl', 'flowq_run', 'flowq_name', 'flowq_blocks', 'flowq_future',
  'flowq_slots', 'status', 'flowq_gates', 'flowq_approval' }

local function read_for_enqueue(id) return redis.call('HMGET', job_key(id), unpack(ENQUEUE_FIELDS)) end

-- Makes a job QUEUED that has none of our other holds left; returns false when no slot is free, or
-- RQ's depends_on still holds it: it is entered in RQ's dependents sets now, and RQ queues it.
-- `f` is what read_for_enqueue has read.
local function enqueue(id, f)
  local key = job_key(id)
  local queue, ttl = f[1], int(f[6])
  if ttl > 0 then
    -- Its hash may expire before it is started; what that means to others has to outlive it.
    redis.call('SET', mortal_key(id), cjson.encode({ f[9], f[10], f[7], f[8] }), 'EX', ttl + WEEK_S)
  end
  local unmet = f[2] and unmet_dependencies(f[2], f[3])
  if unmet then
    for _, dependency in ipairs(unmet) do
      redis.call('SADD', job_key(dependency) .. ':dependents', id)
      redis.call('SADD', PREFIX .. ':job::' .. id .. ':dependencies', dependency)
    end
    return false
  end
  if f[11] and not take_slots(id, f[11]) then return false end
  local state = 'queued'
  if f[5] and tonumber(f[5]) > TS then
    state = 'scheduled'
    redis.call('ZREM', PREFIX .. ':deferred:' .. queue, id)
    redis.call('HSET', key, 'status', state, 'flowq_gates', 0)
    redis.call('ZADD', PREFIX .. ':scheduled:' .. queue, f[5], id)
  else
    redis.call('HSET', key, 'status', state, 'enqueued_at', NOW, 'flowq_gates', 0)
    if f[4] == '1' then
      redis.call('ZREM', PREFIX .. ':deferred:' .. queue, id)
      redis.call('LPUSH', PREFIX .. ':queue:' .. queue, id)
    else
      push(queue, id)
    end
  end
  if ttl > 0 then redis.call('EXPIRE', key, ttl) end
  if f[7] then log(f[7], id, f[8], state) end
  return true
end
