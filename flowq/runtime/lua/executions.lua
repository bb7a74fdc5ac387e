-- executions.lua: Which executions a worker holds, and how they are taken away from a worker that is gone.

local members_by_worker -- of this step

function executions.begin()
  members_by_worker = {}
  workers.begin()
end

-- The executions that a worker has, by job.
local function members_of(worker)
  local members = members_by_worker[worker]
  if not members then
    members = {}
    for _, member in ipairs(redis.call('SMEMBERS', keys.held(worker))) do
      members[string.match(member, '^(.-):[^:]*$') or ''] = member
    end
    members_by_worker[worker] = members
  end
  return members
end

-- Whether the worker, or nil, has the job, and RQ's registry of started jobs says so, too.
function executions.find(id, queue, worker)
  local member = worker and members_of(worker)[id]
  return member and redis.call('ZSCORE', PREFIX .. ':wip:' .. queue, member)
end

-- Whether somebody can hear a command that concerns the execution.
function executions.is_heard(id, queue, worker)
  return executions.find(id, queue, worker) and workers.is_there(worker)
end

-- Takes the execution away from its worker; if that lives after all, it kills what it has lost.
function executions.take_away(id, queue, worker)
  local member = worker and members_of(worker)[id]
  if not member then return end
  redis.call('ZREM', PREFIX .. ':wip:' .. queue, member)
  redis.call('SREM', keys.held(worker), member)
  redis.call('DEL', PREFIX .. ':execution:' .. member, PREFIX .. ':executions:' .. id)
end

local worker, is_dead, caller, forgiven -- of this call of give_back
local worker_key, held_key
local failing

local function list_taken(argv)
  local list = {}
  if is_dead then
    for _, member in ipairs(redis.call('SMEMBERS', held_key)) do
      local id, execution = string.match(member, '^(.-):([^:]+)$')
      if id then list[#list + 1] = { id, execution } end
    end
  else
    for i = 9, 8 + 3 * tonumber(argv[8]), 3 do
      list[#list + 1] = { argv[i], argv[i + 1], argv[i + 2] == '1' }
    end
  end
  return list
end

local function drop(id, execution, queue)
  local member = id .. ':' .. execution
  redis.call('SREM', held_key, member)
  redis.call('DEL', PREFIX .. ':execution:' .. member)
  redis.call('ZREM', PREFIX .. ':executions:' .. id, execution)
  if queue then redis.call('ZREM', PREFIX .. ':wip:' .. queue, member) end
end

local function put_back(id, queue, ttl, run, name, has_begun)
  redis.call('HSET', keys.job(id), 'status', 'queued', 'enqueued_at', NOW, 'started_at', '',
    'worker_name', '')
  redis.call('SADD', PREFIX .. ':queues', PREFIX .. ':queue:' .. queue)
  redis.call('LPUSH', PREFIX .. ':queue:' .. queue, id)
  if int(ttl) > 0 then redis.call('EXPIRE', keys.job(id), ttl) end
  if not run then return end
  if has_begun then
    return runs.log(run, id, name, 'queued', is_dead and 'its worker was lost' or 'its worker stopped')
  end
  runs.log(run, id, name, 'returned', is_dead and 'its worker was lost' or nil)
end

local function adopt(id, execution)
  local member = id .. ':' .. execution
  redis.call('SMOVE', held_key, PREFIX .. ':worker:' .. caller .. ':executions', member)
  redis.call('HSET', PREFIX .. ':execution:' .. member, 'id', execution, 'job_id', id,
    'worker_name', caller)
end

-- Whether the execution of a lost worker is known to have begun: a light claim has no record yet.
local function has_begun_there(id, execution)
  local key = PREFIX .. ':execution:' .. id .. ':' .. execution
  local record = redis.call('HMGET', key, 'id', 'flowq_handed')
  return record[1] and record[2] ~= '1'
end

local function must_fail(id, on_crash)
  local crashes = redis.call('HINCRBY', keys.job(id), 'flowq_crashes', 1)
  return on_crash == 'fail' or crashes > forgiven
end

local function take_away(id, execution, has_begun)
  local f = redis.call('HMGET', keys.job(id), 'origin', 'status', 'ttl', 'flowq_run', 'flowq_name',
    'flowq_on_crash', 'flowq_always', 'flowq_ends_as')
  local queue = f[1]
  local is_held = queue
    and redis.call('ZSCORE', PREFIX .. ':wip:' .. queue, id .. ':' .. execution)
  if not is_held or f[2] ~= 'started' then return drop(id, execution, queue) end
  if is_dead then metrics.add('lost') end
  has_begun = has_begun or is_dead and has_begun_there(id, execution)
  if is_dead and has_begun and must_fail(id, f[6]) then
    adopt(id, execution)
    failing[#failing + 1] = { id, execution, queue, redis.call('HGETALL', keys.job(id)) }
    return
  end
  drop(id, execution, queue)
  if f[4] and not has_begun then redis.call('HINCRBY', keys.job(id), 'flowq_attempts', -1) end
  if f[4] and runs.is_canceling(f[4], f[7]) then
    return jobs.call_off(id, 'canceled', runs.why_canceled(f[4])) -- nobody was there to stop it
  end
  if f[8] then return jobs.call_off(id, firsts.read_end(f[8])) end
  put_back(id, queue, f[3], f[4], f[5], has_begun)
end

local function forget_worker()
  redis.call('ZREM', OURS .. 'workers', worker)
  redis.call('SREM', PREFIX .. ':workers', worker_key)
  for _, queue in ipairs(redis.call('SMEMBERS', PREFIX .. ':queues')) do
    redis.call('SREM', PREFIX .. ':workers:' .. string.sub(queue, #PREFIX + 8), worker_key)
  end
  if redis.call('EXISTS', worker_key) == 1 then
    redis.call('HSET', worker_key, 'death', NOW)
    redis.call('EXPIRE', worker_key, 60)
  end
end

-- Takes executions away from a worker that cannot go on with them.
-- ARGV   4 name of the worker that had them
--        5 "back" (its own doing: nothing of them has run, or it was stopped on purpose) or "dead"
--          (the worker is lost: whatever it held, and the worker itself)
--        6 name of the worker that calls   7 how many crashes a job is forgiven
--        8 number of executions (not for "dead"), then for each of them: job, execution, "1" when it
--          has begun
-- Returns {job, execution, queue, {field, value…}} for each job that must be failed, because it was
-- lost too often or may not be repeated. Its execution belongs to the caller from here on. All
-- others are queued again, at the front, or were ended by somebody else; a canceled run's are
-- canceled.
-- Fenced by the WIP entry: an execution is taken away once. A job that was handed over and has not
-- begun is not charged with a crash, and that was no attempt.
function executions.give_back(argv)
  worker, is_dead, caller, forgiven = argv[4], argv[5] == 'dead', argv[6], tonumber(argv[7])
  worker_key = PREFIX .. ':worker:' .. worker
  held_key, failing = worker_key .. ':executions', {}
  for _, taken in ipairs(list_taken(argv)) do take_away(unpack(taken, 1, 3)) end
  settling.settle_all()
  if is_dead then forget_worker() end
  return failing
end
