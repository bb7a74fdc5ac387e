-- watching.lua: The steps that look for jobs that ended unnoticed.
--
-- A tool or a worker that does not know us deletes a job, or ends it, and tells nobody; a job may also
-- expire, or be lost between a queue and a worker. So each run has its unended jobs looked at, and each
-- released future job without a run its blockers: one pass every so often, a part in each step.

local MISSING_S = 20 -- how long a job has to be on no queue; it may be on its way
local SMALL = 1000 -- the jobs of longer queues are not looked for in there

local queues -- of this step: the jobs of a queue, false for a long one

function watching.begin() queues = {} end

local function report(job, what, owner)
  for _, word in ipairs({ job, what, owner }) do step.found[#step.found + 1] = word end
end

local function jobs_of(queue)
  local key = PREFIX .. ':queue:' .. queue
  if queues[queue] == nil then
    local is_small = redis.call('LLEN', key) <= SMALL
      and redis.call('EXISTS', key .. ':intermediate') == 0 -- where RQ's worker has what it just took
    queues[queue] = is_small and {}
    for _, id in ipairs(is_small and redis.call('LRANGE', key, 0, -1) or {}) do
      queues[queue][id] = true
    end
  end
  return queues[queue]
end

-- Whether nothing would ever start the job, or end it.
local function is_nowhere(id, status, queue, worker)
  if status == 'queued' then return jobs_of(queue) and not jobs_of(queue)[id] end
  if status == 'scheduled' then
    return not redis.call('ZSCORE', PREFIX .. ':scheduled:' .. queue, id)
  end
  return status == 'started' and not executions.find(id, queue, worker)
end

local function fail(id, queue)
  redis.call('HSET', keys.job(id), 'status', 'failed', 'ended_at', NOW,
    'flowq_reason', 'its execution was lost, and it may not be repeated')
  redis.call('ZADD', PREFIX .. ':failed:' .. queue, '+inf', id)
  settling.add(id, 'failed')
end

local function queue_again(id, queue, run)
  redis.call('HSET', keys.job(id), 'status', 'queued', 'worker_name', '', 'started_at', '')
  redis.call('SADD', PREFIX .. ':queues', PREFIX .. ':queue:' .. queue)
  redis.call('RPUSH', PREFIX .. ':queue:' .. queue, id)
  if queues[queue] then queues[queue][id] = true end
  if run then
    runs.log(run, id, redis.call('HGET', keys.job(id), 'flowq_name'), 'queued', 'it had been lost')
  end
end

local LIVING = { queued = true, scheduled = true, started = true }

-- What nearly all need: more fields take more time.
local function read(id)
  return redis.call('HMGET', keys.job(id), 'status', 'origin', 'worker_name', 'flowq_missing', 'flowq_by',
    'flowq_first', 'flowq_slots')
end

local function look_for(id, f, owner)
  local status, queue, since = f[1], f[2], tonumber(f[4])
  if not is_nowhere(id, status, queue, f[3]) then
    if since then redis.call('HDEL', keys.job(id), 'flowq_missing') end
    return
  end
  if not since then return redis.call('HSET', keys.job(id), 'flowq_missing', TS) end
  if TS - since < MISSING_S then return end
  report(id, 'lost', owner)
  metrics.add('lost')
  redis.call('HDEL', keys.job(id), 'flowq_missing')
  local more = redis.call('HMGET', keys.job(id), 'flowq_run', 'flowq_always', 'flowq_on_crash',
    'flowq_ends_as')
  if more[1] and runs.is_canceling(more[1], more[2]) then
    return jobs.call_off(id, 'canceled', runs.why_canceled(more[1]))
  end
  if more[4] then return jobs.call_off(id, firsts.read_end(more[4])) end
  if status == 'started' and more[3] == 'fail' then return fail(id, queue) end
  queue_again(id, queue, more[1])
end

-- Whoever was to add the blockers of an open future job, and to release it, is gone.
local function look_at_adder(id, adder)
  if redis.call('EXISTS', keys.job(adder)) == 1 then return end
  if redis.call('HGET', keys.future(id), 'state') == 'open' then
    jobs.call_off(id, 'canceled', 'what adds its blockers was deleted')
  end
end

local ENDED_STATUS = { finished = true, failed = true, stopped = true, canceled = true }
local BY_OTHERS = 'by something that does not know flowq'

-- RQ's worker has given it a time to live; its result may be needed for as long as its run is there.
local function keep(id)
  redis.call('PERSIST', keys.job(id))
  redis.call('PERSIST', PREFIX .. ':results:' .. id)
end

local function account_gone(id, run, blocks)
  local outcome = redis.call('EXISTS', keys.mortal(id)) == 1 and 'expired' or 'deleted'
  report(id, outcome, run)
  local reason = outcome == 'deleted' and 'it was deleted ' .. BY_OTHERS or nil
  settling.add(id, outcome, reason, settling.facts_of_gone(id, run, blocks))
end

-- Looks at a job of a run that has not ended, as far as the run knows.
function watching.look_at(id, run, blocks)
  local f = read(id)
  local status = f[1]
  if not status then return account_gone(id, run, blocks) end
  if LIVING[status] then return look_for(id, f, run) end
  if f[6] and status == 'deferred' then firsts.look_again(id) end
  if f[7] and status == 'deferred' and slots.are_across_runs(f[7]) then holders.look_for(id, f[7]) end
  if f[5] and status == 'deferred' then return look_at_adder(id, f[5]) end
  if not ENDED_STATUS[status] then return end
  local more = redis.call('HMGET', keys.job(id), 'flowq_run', 'flowq_outcome')
  if more[2] then return redis.call('HDEL', keys.unended(run), id) end -- counted by an older version
  report(id, status, run)
  keep(id)
  if status == 'canceled' then
    redis.call('HSETNX', keys.job(id), 'flowq_reason', 'it was canceled ' .. BY_OTHERS)
  end
  local facts = more[1] ~= run and settling.facts_of_gone(id, run, blocks) -- RQ has made the hash anew
  settling.add(id, status, nil, facts or nil)
end

local function reschedule(id, hash, cursor)
  redis.call('HSET', hash, 'watched', cursor)
  if cursor ~= '0' then -- others have their turn meanwhile
    redis.call('ZADD', OURS .. 'watched', 'XX', TS, id)
    return false
  end
  local next_at = tonumber(redis.call('HGET', hash, 'watch_at') or TS + runs.WATCH_S)
  redis.call('ZADD', OURS .. 'watched', 'XX', math.max(TS + 1, next_at), id)
  return true
end

local function scan(items, hash)
  local cursor = redis.call('HGET', hash, 'watched') or '0'
  if cursor == '0' then redis.call('HSET', hash, 'watch_at', TS + runs.WATCH_S) end
  local answer = redis.call('HSCAN', items, cursor, 'COUNT', step.limit)
  step.budget = step.budget - 1 - #answer[2] / 2
  return answer[1], answer[2]
end

-- An older version has kept those alone that block nothing.
local function take_over(run)
  local loose = OURS .. 'loose:' .. run
  for _, id in ipairs(redis.call('SPOP', loose, step.limit)) do
    redis.call('HSET', keys.unended(run), id, '')
  end
end

local function watch_run(run)
  local state = redis.call('HGET', keys.run(run), 'state')
  if state == 'retrying' then return reschedule(run, keys.run(run), '0') end
  if state ~= 'running' then
    redis.call('ZREM', OURS .. 'watched', run)
    return true
  end
  runs.check_turn(run)
  take_over(run)
  local cursor, items = scan(keys.unended(run), keys.run(run))
  for at = 1, #items, 2 do watching.look_at(items[at], run, items[at + 1]) end
  return reschedule(run, keys.run(run), cursor)
end

local function look_at_blocker(future, blocker)
  local f = read(blocker)
  if LIVING[f[1]] then return look_for(blocker, f, future) end
  if not f[1] then
    local run = redis.call('HGET', keys.job(future), 'flowq_run')
    local blocks = run and redis.call('HGET', keys.unended(run), blocker)
    if blocks then return account_gone(blocker, run, blocks) end
    local is_expired = redis.call('EXISTS', keys.mortal(blocker)) == 1
    report(blocker, is_expired and 'expired' or 'deleted', future)
    if is_expired then return settling.add(blocker, 'expired') end
    return edges.add(future, blocker, 'deleted')
  end
  if ENDED_STATUS[f[1]] then
    report(blocker, f[1], future)
    settling.add(blocker, redis.call('HGET', keys.job(blocker), 'flowq_outcome') or f[1])
  end
end

-- A blocker that did not succeed can still be deleted, or requeued and executed, behind our back.
local function look_again(future, blocker, outcome)
  local status = redis.call('HGET', keys.job(blocker), 'status')
  if not status and outcome ~= 'deleted' then
    report(blocker, 'deleted', future)
    return edges.add(future, blocker, 'deleted')
  end
  if status == 'finished' then
    report(blocker, status, future)
    settling.add(blocker, status)
  end
end

local function watch_future(future)
  if redis.call('HGET', keys.future(future), 'state') ~= 'released' then
    redis.call('ZREM', OURS .. 'watched', future)
    return true
  end
  local cursor, items = scan(keys.edges(future), keys.future(future))
  for at = 1, #items, 2 do
    local blocker, outcome = items[at], items[at + 1]
    local class = outcomes.class(outcome)
    if class == 'pending' then look_at_blocker(future, blocker) end
    if class == 'bad' then look_again(future, blocker, outcome) end
  end
  firsts.look_again(future)
  return reschedule(future, keys.future(future), cursor)
end

function watching.watch(id)
  return (redis.call('EXISTS', keys.run(id)) == 1 and watch_run or watch_future)(id)
end

local MANY_ENDS = 100 -- what they lead to takes longer than looking
local PER_SECOND = 2500 -- looks of all processes together; the more jobs there are, the longer a pass

local function count_looks()
  local looks = OURS .. 'looks'
  local used = step.limit - step.budget
  if used == 0 then return end
  if redis.call('INCRBY', looks, used) == used then redis.call('EXPIRE', looks, 1) end
end

-- Looks at what is due, the longest due first; returns whether that was all, or enough for now.
function watching.look_around()
  if int(redis.call('GET', OURS .. 'looks')) >= PER_SECOND then return true end
  local watched, failure = OURS .. 'watched', nil
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', watched, '-inf', TS, 'LIMIT', 0, step.limit)) do
    if step.budget <= 0 or settling.count_ends() >= MANY_ENDS then break end
    local ok, problem = pcall(watching.watch, id)
    if not ok then -- it keeps no other from its turn
      redis.call('ZADD', watched, 'XX', TS + runs.WATCH_S, id)
      failure = id .. ': ' .. text_of(problem)
    end
  end
  count_looks()
  if failure then error(failure) end
  return redis.call('ZCOUNT', watched, '-inf', TS) == 0
end
