-- set_apart.lua: moves jobs of a run to the queue that it has for itself.
--
-- ARGV   4 that queue   then the ids of the jobs, in the order in which they are to be queued
-- One that is being executed stays where it is. Idempotent.

local own = ARGV[4]

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
for i = 5, #ARGV do move(ARGV[i]) end
jobs.close_gaps()
return 1
