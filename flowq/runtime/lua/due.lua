-- due.lua: queues the jobs of RQ's schedule whose time has come: retries after their back-off, and
-- whatever was enqueued for later.
--
-- ARGV   4 how many at most of each queue   then the names of the queues
-- Returns {queue, job, …} of those that it leaves to RQ's own way (they have a rate limit).
-- Atomic; safe in any number of workers at once.

local left = {}

local function queue_job(queue, id)
  local key = job_key(id)
  local f = redis.call('HMGET', key, 'status', 'rate_limit_key', 'enqueue_at_front',
    'enqueue_at_front_on_retry', 'ended_at', 'ttl', 'flowq_run', 'flowq_name')
  local registry = PREFIX .. ':scheduled:' .. queue
  if f[2] then
    left[#left + 1] = queue
    left[#left + 1] = id
    return
  end
  redis.call('ZREM', registry, id)
  if not f[1] then return end
  redis.call('HSET', key, 'status', 'queued', 'enqueued_at', NOW)
  if int(f[6]) > 0 then redis.call('EXPIRE', key, f[6]) end
  redis.call('SADD', PREFIX .. ':queues', PREFIX .. ':queue:' .. queue)
  local at_front = f[3] == '1' or (f[4] == '1' and f[5] and f[5] ~= '')
  redis.call(at_front and 'LPUSH' or 'RPUSH', PREFIX .. ':queue:' .. queue, id)
  if f[7] then log(f[7], id, f[8] or '', 'queued') end
end

for i = 5, #ARGV do
  local queue = ARGV[i]
  local due = redis.call('ZRANGEBYSCORE', PREFIX .. ':scheduled:' .. queue, 0, math.floor(TS),
    'LIMIT', 0, ARGV[4])
  for _, id in ipairs(due) do queue_job(queue, id) end
end
return left
