-- jobs.lua: Queues a job once nothing holds it, calls off a job that never ran, and takes jobs from queues.


-- RQ's rule for depends_on: a deleted dependency is met, a failed one when failures are allowed.
local function unmet_dependencies(dependency_ids, allow_failures)
  local all, unmet = cjson.decode(dependency_ids), false
  for _, id in ipairs(all) do
    local status = redis.call('HGET', keys.job(id), 'status')
    if status and status ~= 'finished' and not (status == 'failed' and allow_failures == '1') then
      unmet = true
    end
  end
  return unmet and all
end

-- For how long a heartbeat keeps RQ's maintenance from failing an execution, or starting it again.
-- RQ counts time in which the server could not be written to, and we do not (find_lost in workers.lua): so
-- this is for the case that no worker of ours is left.
jobs.WIP_S = 3600

-- Jobs that this call has made QUEUED go to the ends of their queues together, in this order.
local queued_by_queue

-- Of the queues from which this call has taken jobs: where the last one stood, and how many gaps they
-- have left.
local place_by_queue, gaps_by_queue

function jobs.reset() queued_by_queue, place_by_queue, gaps_by_queue = {}, {}, {} end

local GAP = 'flowq-gap'
local NEAR = 8
local ENDS = 1000 -- how far from its ends a queue is looked through first

local function find_place(key, id, last)
  if last then
    local first = math.max(last - NEAR, 0)
    for i, other in ipairs(redis.call('LRANGE', key, first, last + NEAR)) do
      if other == id then return first + i - 1 end
    end
  end
  return redis.call('LPOS', key, id, 'MAXLEN', ENDS)
    or redis.call('LPOS', key, id, 'RANK', -1, 'MAXLEN', ENDS) or redis.call('LPOS', key, id)
end

-- Takes a job from its queue, one of many: Redis would look through the queue for each of them. They
-- are often in a row, in either direction, so each is looked for beside the one before. Returns whether
-- it was there. Until jobs.close_gaps something else is in its place.
function jobs.take_from_queue(id, queue)
  local key = PREFIX .. ':queue:' .. queue
  local place = find_place(key, id, place_by_queue[queue])
  if not place then return false end
  redis.call('LSET', key, place, GAP)
  place_by_queue[queue], gaps_by_queue[queue] = place, (gaps_by_queue[queue] or 0) + 1
  return true
end

-- To be called before the end of each call that takes jobs from queues.
function jobs.close_gaps()
  if next(gaps_by_queue) == nil then return end
  for queue, count in pairs(gaps_by_queue) do
    local key = PREFIX .. ':queue:' .. queue
    local is_near = place_by_queue[queue] < redis.call('LLEN', key) / 2
    redis.call('LREM', key, is_near and count or -count, GAP)
  end
  place_by_queue, gaps_by_queue = {}, {}
end

function jobs.push_queued()
  if next(queued_by_queue) == nil then return end
  for queue, ids in pairs(queued_by_queue) do
    redis.call('RPUSH', PREFIX .. ':queue:' .. queue, unpack(ids))
    redis.call('ZREM', PREFIX .. ':deferred:' .. queue, unpack(ids))
  end
  queued_by_queue = {}
end

local function push(queue, id)
  local ids = queued_by_queue[queue]
  if ids and #ids == 1000 then -- `unpack` ends at some 8,000 values
    jobs.push_queued()
    ids = nil
  end
  if ids then ids[#ids + 1] = id else queued_by_queue[queue] = { id } end
end

local ENQUEUE_FIELDS = { 'origin', 'dependency_ids', 'allow_dependency_failures',
  'enqueue_at_front', 'flowq_at', 'ttl', 'flowq_run', 'flowq_name', 'flowq_blocks', 'flowq_future',
  'flowq_slots', 'status', 'flowq_gates', 'flowq_approval', 'flowq_judging', 'flowq_by', 'flowq_inside',
  'flowq_ends_as', 'flowq_first' }

function jobs.read_for_enqueue(id)
  return redis.call('HMGET', keys.job(id), unpack(ENQUEUE_FIELDS))
end

-- Makes a job QUEUED that has none of our other holds left; returns false when no slot is free, or
-- RQ's depends_on still holds it: it is entered in RQ's dependents sets now, and RQ queues it.
-- `f` is what jobs.read_for_enqueue has read.
local function enqueue(id, f)
  local key, goes = keys.job(id), f[19] == 'cancel' and f[15] ~= 'due'
  local queue, ttl = f[1], int(f[6])
  if ttl > 0 then
    -- Its hash may expire before it is started; what that means to others has to outlive it.
    redis.call('SET', keys.mortal(id), cjson.encode({ f[9], f[10], f[7], f[8] }), 'EX', ttl + WEEK_S)
  end
  local unmet = f[2] and unmet_dependencies(f[2], f[3])
  if unmet then
    for _, dependency in ipairs(unmet) do
      redis.call('SADD', keys.job(dependency) .. ':dependents', id)
      redis.call('SADD', PREFIX .. ':job::' .. id .. ':dependencies', dependency)
    end
    if goes then firsts.note_start(id) end -- RQ will not say when it queues it
    return false
  end
  if f[11] and f[15] ~= 'due' and not slots.take(id, f[11]) then return false end
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
  if goes then firsts.note_start(id) end
  if not f[7] then return true end
  local event = runs.log(f[7], id, f[8], state)
  -- One that had to wait for a slot may have paused before.
  if f[11] then runs.note_event(id, redis.call('HGET', key, 'flowq_pause_events'), event) end
  return true
end

-- A job of a workflow whose start has failed in the middle does not begin any more, whatever lets it go
-- before lifecycle.call_off_added comes to it. Returns whether it was called off.
local function call_off_in_vain(id, f)
  if not nested.is_start(f[16], f[17]) or not nested.has_added_in_vain(f[16]) then return false end
  jobs.call_off(id, 'canceled', nested.ADDER_FAILED)
  return true
end

-- Goes on with a job that has nothing more to wait for than an approval and a slot. Its `if` comes first:
-- where that is known to be false the job ends, and where a worker has to judge it, that is done before
-- anybody is asked and before it takes a slot. Returns whether it is queued; nil for one that has ended.
-- `f` as for enqueue.
function jobs.proceed(id, f)
  if call_off_in_vain(id, f) then return nil end
  if f[18] then
    jobs.call_off(id, firsts.read_end(f[18]))
    return nil
  end
  local judging = f[15]
  local why = judging and string.match(judging, '^skip (.*)$')
  if why then
    jobs.call_off(id, 'passed', why)
    return nil
  end
  local is_held = false
  if f[14] and judging ~= 'due' then is_held = approvals.must_ask(id) end
  if is_held == nil then return nil end
  return not is_held and enqueue(id, f)
end

-- Queues a job when the hold that was just lifted was its last one; `f` as for enqueue.
function jobs.lift(id, f)
  f = f or jobs.read_for_enqueue(id)
  if f[12] ~= 'deferred' or int(f[13]) > 0 then return end
  if f[10] then return futures.decide(id, futures.read_for_decision(id), f) end
  jobs.proceed(id, f)
end

-- Queues a job whose turn it is; its hash may say that it is held, or over, by now.
function jobs.queue_waiting(id)
  local f = jobs.read_for_enqueue(id)
  if f[12] ~= 'deferred' or int(f[13]) > 0 then return end
  if f[10] and redis.call('HGET', keys.future(id), 'state') ~= 'met' then return end
  if call_off_in_vain(id, f) then return end
  if enqueue(id, f) and f[10] then redis.call('HSET', keys.future(id), 'state', 'queued') end
end

-- A job is to run again, and is on its queue or its schedule: it ends instead where its run is being
-- canceled, or its group is closed, as all others there that have not started. Returns whether it did.
function jobs.begin_again(id)
  local f = redis.call('HMGET', keys.job(id), 'status', 'flowq_run', 'flowq_always', 'flowq_group',
    'flowq_ends_as')
  if not f[2] or not NOT_STARTED[f[1]] then return false end
  local g = f[4] and redis.call('HMGET', keys.group(f[4]), 'closed', 'reason')
  if runs.is_canceling(f[2], f[3]) then
    jobs.call_off(id, 'canceled', runs.why_canceled(f[2]))
  elseif f[5] then
    jobs.call_off(id, firsts.read_end(f[5]))
  elseif g and g[1] then
    jobs.call_off(id, g[1], g[2])
  else
    return false
  end
  return true
end

local REGISTRY_BY_STATUS = { deferred = ':deferred:', scheduled = ':scheduled:',
  ready_to_enqueue = ':ready:' }

-- Ends a job that never ran: RQ's status is canceled (it has no other word), ours says why. With
-- `jobs.leave_gaps` the caller closes them.
function jobs.call_off(id, outcome, reason)
  local key = keys.job(id)
  local f = redis.call('HMGET', key, 'origin', 'status', 'flowq_rounds')
  if not f[1] or f[2] == 'canceled' then return end
  if f[3] then redis.call('ZREM', OURS .. 'rounds', id) end -- or a retry of the run would meet that round
  local queue = f[1]
  if f[2] == 'queued' then
    jobs.push_queued()
    if jobs.leave_gaps then
      jobs.take_from_queue(id, queue)
    else
      redis.call('LREM', PREFIX .. ':queue:' .. queue, 1, id)
    end
  end
  local registry = REGISTRY_BY_STATUS[f[2]]
  if registry then redis.call('ZREM', PREFIX .. registry .. queue, id) end
  redis.call('HSET', key, 'status', 'canceled', 'ended_at', NOW, 'flowq_reason', reason or '')
  redis.call('ZADD', PREFIX .. ':canceled:' .. queue, TS, id)
  settling.add(id, outcome, reason)
end

-- Moves jobs of a run to the queue that it has for itself.
-- ARGV   4 that queue   then the ids of the jobs, in the order in which they are to be queued
-- One that is being executed stays where it is. Returns 1. Idempotent.
function jobs.set_apart(argv)
  local own = argv[4]

  local function move(id)
    local key = keys.job(id)
    local f = redis.call('HMGET', key, 'origin', 'status')
    local origin = f[1]
    if not origin or origin == own or f[2] == 'started' then return end
    redis.call('HSET', key, 'origin', own, 'flowq_queue', origin)
    for _, registry in ipairs({ ':deferred:', ':scheduled:', ':finished:', ':failed:', ':canceled:' }) do
      local score = redis.call('ZSCORE', PREFIX .. registry .. origin, id)
      if score then
        redis.call('ZREM', PREFIX .. registry .. origin, id)
        redis.call('ZADD', PREFIX .. registry .. own, score, id)
      end
    end
    if f[2] == 'queued' and jobs.take_from_queue(id, origin) then
      redis.call('RPUSH', PREFIX .. ':queue:' .. own, id)
    end
  end

  redis.call('SADD', PREFIX .. ':queues', PREFIX .. ':queue:' .. own)
  for i = 5, #argv do move(argv[i]) end
  jobs.close_gaps()
  return 1
end
