-- back.lua: takes executions away from a worker that cannot go on with them.
--
-- ARGV   4 name of the worker   5 "back" (nothing has run), "crash" (it may have run) or "dead"
--        (the worker is gone: whatever it held, and the worker itself)
--        6 how many crashes a job is forgiven   7 number of executions (not for "dead"), then for
--        each of them: job, execution
-- Returns {what, job, execution, queue, …} for each: "queued" (at the front of its queue), "crashed"
-- (its worker was lost too often, or it must not be repeated: the caller fails it, and has its WIP
-- entry until then) or "gone" (somebody else has ended it).
-- Fenced by the WIP entry: an execution is taken away once. A job that was only handed over, and has
-- not begun, is not charged with a crash.

local worker, how, forgiven = ARGV[4], ARGV[5], tonumber(ARGV[6])
local worker_key = PREFIX .. ':worker:' .. worker
local held_key = worker_key .. ':executions'

local function pairs_to_take()
  local list = {}
  if how == 'dead' then
    for _, member in ipairs(redis.call('SMEMBERS', held_key)) do
      local job, execution = string.match(member, '^(.-):([^:]+)$')
      if job then list[#list + 1] = { job, execution } end
    end
  else
    for i = 1, tonumber(ARGV[7]) do list[i] = { ARGV[6 + 2 * i], ARGV[7 + 2 * i] } end
  end
  return list
end

local function drop(id, execution, queue)
  redis.call('ZREM', PREFIX .. ':wip:' .. queue, id .. ':' .. execution)
  redis.call('DEL', PREFIX .. ':execution:' .. id .. ':' .. execution)
  redis.call('ZREM', PREFIX .. ':executions:' .. id, execution)
  redis.call('SREM', held_key, id .. ':' .. execution)
end

local function put_back(id, queue, f)
  redis.call('HSET', job_key(id), 'status', 'queued', 'enqueued_at', NOW, 'started_at', '',
    'worker_name', '')
  redis.call('SADD', PREFIX .. ':queues', PREFIX .. ':queue:' .. queue)
  redis.call('LPUSH', PREFIX .. ':queue:' .. queue, id)
  if int(f[3]) > 0 then redis.call('EXPIRE', job_key(id), f[3]) end
  if f[4] then log(f[4], id, f[5] or '', 'queued', how ~= 'back' and 'its worker was lost' or '') end
end

local function take_away(id, execution)
  local f = redis.call('HMGET', job_key(id), 'origin', 'status', 'ttl', 'flowq_run', 'flowq_name',
    'flowq_on_crash')
  local queue = f[1]
  if not queue then
    redis.call('SREM', held_key, id .. ':' .. execution)
    return 'gone', ''
  end
  local is_ours = redis.call('ZSCORE', PREFIX .. ':wip:' .. queue, id .. ':' .. execution)
  if not is_ours or f[2] ~= 'started' then
    drop(id, execution, queue)
    return 'gone', queue
  end
  local has_begun = how ~= 'back' and redis.call('HGET', PREFIX .. ':execution:' .. id .. ':'
    .. execution, 'flowq_handed') ~= '1'
  if has_begun then
    local crashes = redis.call('HINCRBY', job_key(id), 'flowq_crashes', 1)
    if f[6] == 'fail' or crashes > forgiven then return 'crashed', queue end
  end
  drop(id, execution, queue)
  put_back(id, queue, f)
  return 'queued', queue
end

local answer = {}
for _, pair in ipairs(pairs_to_take()) do
  local what, queue = take_away(pair[1], pair[2])
  for _, part in ipairs({ what, pair[1], pair[2], queue }) do answer[#answer + 1] = part end
end
if how == 'dead' then
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
return answer
