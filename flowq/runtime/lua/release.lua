-- release.lua: The steps that release a future job, and those that call off its blockers.

local function names(blocks, future)
  if blocks == future then return true end -- most name one
  for target in each_future(blocks) do
    if target == future then return true end
  end
  return false
end

-- Returns what jobs.read_for_enqueue does, with one gate less; nil when the job does not stand in front
-- of it: the id may have been used again.
local function find_gate(job, future)
  local f = jobs.read_for_enqueue(job)
  if not f[13] or not names(f[9], future) then return nil end
  f[13] = int(f[13]) - 1
  return f
end

-- Takes the gate away; the script that queues the job writes that it has none.
local function lower_gate(job, f)
  if f[13] == 0 and f[12] == 'deferred' and not f[10] and jobs.proceed(job, f) then return end
  redis.call('HSET', keys.job(job), 'flowq_gates', f[13])
  if f[10] then jobs.lift(job, f) end
end

-- Begins the release of an open future job among the blockers, and of those in front of it.
local function begin_cascade(blocker)
  if redis.call('HGET', keys.future(blocker), 'state') ~= 'open' then return end
  redis.call('HSET', keys.future(blocker), 'state', 'releasing', 'cascade', 1)
  redis.call('ZREM', OURS .. 'expiring', blocker)
  later('free:' .. blocker)
end

function release.free(future)
  local key = keys.future(future)
  local r = redis.call('HMGET', key, 'state', 'cascade', 'freed')
  if r[1] ~= 'releasing' then return true end
  local at, done = step.walk(keys.blockers(future), int(r[3]), function(blocker)
    if r[2] then begin_cascade(blocker) end
    local f = find_gate(blocker, future)
    if f then lower_gate(blocker, f) end
  end)
  if not done then
    redis.call('HSET', key, 'freed', at)
  else
    redis.call('HSET', key, 'freed', at, 'state', 'released')
    local f = redis.call('HMGET', keys.job(future), 'flowq_run', 'flowq_expires')
    futures.watch(future, f[1])
    if f[2] then redis.call('ZADD', OURS .. 'expiring', TS + tonumber(f[2]), future) end
    futures.decide(future, futures.read_for_decision(future))
  end
  return done
end

-- Begins the release of an open future job; another job starts that nothing holds any more.
function release.begin(job)
  if redis.call('HGET', keys.future(job), 'state') ~= 'open' then return jobs.lift(job) end
  redis.call('HSET', keys.future(job), 'state', 'releasing')
  redis.call('ZREM', OURS .. 'expiring', job)
  if not release.free(job) then later('free:' .. job) end
end

local function blocks_something(job)
  for future in each_future(redis.call('HGET', keys.job(job), 'flowq_blocks')) do
    local state = redis.call('HGET', keys.future(future), 'state')
    if state and not CALLED_OFF[state] then return true end
  end
  return false
end

-- Whether a job that a future job has held, which was called off, is still of use: it blocks something
-- else, and is not one that its adder did not come to release.
local function is_wanted(job)
  local by = redis.call('HGET', keys.job(job), 'flowq_by')
  return blocks_something(job) and not (by and nested.has_added_in_vain(by))
end

function release.abandon(future)
  local key = keys.future(future)
  if redis.call('EXISTS', key) == 0 then return true end
  local freed = int(redis.call('HGET', key, 'freed'))
  return step.each_item(keys.blockers(future), key, 'dropped', function(blocker, index)
    local f = index >= freed and find_gate(blocker, future)
    if not f then return end
    if is_wanted(blocker) then return lower_gate(blocker, f) end
    redis.call('HSET', keys.job(blocker), 'flowq_gates', f[13])
    if redis.call('HGET', keys.job(blocker), 'status') == 'deferred' then
      jobs.call_off(blocker, 'canceled', 'its future job was canceled')
    end
  end)
end

-- Its owner does not want the blockers either: what has not started, and blocks nothing else, ends.
function release.recall(future)
  local key = keys.future(future)
  if redis.call('EXISTS', key) == 0 then return true end
  return step.each_item(keys.blockers(future), key, 'recalled', function(blocker)
    if blocks_something(blocker) then return end
    if NOT_STARTED[redis.call('HGET', keys.job(blocker), 'status')] then
      jobs.call_off(blocker, 'canceled', 'its future job was canceled')
      if redis.call('EXISTS', keys.future(blocker)) == 1 then later('recall:' .. blocker) end
    end
  end)
end

-- It was not released or started in time: canceled, with its held blockers. Or it was not approved in
-- time, which is a failure like any other.
function release.lapse(future)
  redis.call('ZREM', OURS .. 'expiring', future)
  local state = redis.call('HGET', keys.future(future), 'state')
  local f = redis.call('HMGET', keys.job(future), 'flowq_expires', 'status', 'started_at',
    'flowq_judging')
  if f[1] and f[2] == 'started' and f[4] == 'due' then -- it may wait again in a moment
    redis.call('ZADD', OURS .. 'expiring', TS + 1, future)
    return true
  end
  local waits = (f[2] == 'deferred' or f[2] == 'queued') and (f[3] or '') == ''
  if state == 'open' then
    jobs.call_off(future, 'canceled', 'it expired before it was released')
  elseif f[1] then
    if waits then jobs.call_off(future, 'canceled', 'it expired before it started') end
  elseif state == 'met' then
    jobs.call_off(future, 'failed', 'it expired before it was approved')
  end
  return true
end
