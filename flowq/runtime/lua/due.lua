-- due.lua: queues the jobs of RQ's schedule whose time has come: retries after their back-off, and
-- whatever was enqueued for later.

local left, now, first_at, limit -- of this call; `left` is the answer

local function queue_job(queue, id)
  local key = keys.job(id)
  local f = redis.call('HMGET', key, 'status', 'rate_limit_key', 'enqueue_at_front',
    'enqueue_at_front_on_retry', 'ended_at', 'ttl', 'flowq_run', 'flowq_name', 'flowq_slots',
    'flowq_future', 'flowq_always', 'flowq_pause_events', 'flowq_due')
  local registry = PREFIX .. ':scheduled:' .. queue
  if f[2] then
    left[#left + 1] = queue
    left[#left + 1] = id
    return
  end
  redis.call('ZREM', registry, id)
  if not f[1] then return end
  if f[7] and runs.is_canceling(f[7], f[11]) then return jobs.call_off(id, 'canceled', runs.why_canceled(f[7])) end
  if f[9] and not slots.take(id, f[9]) then
    redis.call('HSET', key, 'status', 'deferred')
    redis.call('ZADD', PREFIX .. ':deferred:' .. queue, '+inf', id)
    if f[10] then redis.call('HSET', keys.future(id), 'state', 'met') end
    local event = runs.log(f[7], id, f[8] or '', 'deferred', 'waits for a slot')
    runs.note_event(id, f[12], event)
    return
  end
  redis.call('HSET', key, 'status', 'queued', 'enqueued_at', NOW)
  if int(f[6]) > 0 then redis.call('EXPIRE', key, f[6]) end
  redis.call('SADD', PREFIX .. ':queues', PREFIX .. ':queue:' .. queue)
  -- One that has slept takes a moment, and others wait for it.
  local at_front = f[3] == '1' or f[13] or (f[4] == '1' and f[5] and f[5] ~= '')
  redis.call(at_front and 'LPUSH' or 'RPUSH', PREFIX .. ':queue:' .. queue, id)
  if not f[7] then return end
  local event = runs.log(f[7], id, f[8] or '', 'queued')
  runs.note_event(id, f[12], event)
end

local function is_ours(queue)
  local lock = PREFIX .. ':scheduler-lock:' .. queue
  local owner = redis.call('GET', lock)
  if owner and owner ~= 'flowq' then return false end
  redis.call('SET', lock, 'flowq', 'EX', 61)
  return true
end

local function queue_due(queue)
  local registry = PREFIX .. ':scheduled:' .. queue
  local ids = redis.call('ZRANGEBYSCORE', registry, 0, now, 'LIMIT', 0, limit)
  for _, id in ipairs(ids) do queue_job(queue, id) end
  if #ids == limit then first_at = TS end -- there may be more
  local next_one = redis.call('ZRANGEBYSCORE', registry, '(' .. now, '+inf', 'WITHSCORES',
    'LIMIT', 0, 1)
  if next_one[2] then first_at = math.min(first_at, tonumber(next_one[2])) end
end

-- Queues what is due of these queues.
-- ARGV   4 how many at most of each queue   then the names of the queues
-- One whose limit has no free slot waits for its turn instead. Jobs that wait for a rate have their turn, too.
-- Returns {seconds until the next one is due, or '', then queue, job, … of those that it leaves to
-- RQ's own way (they have a rate limit)}. Instants are compared as they are, not by the second.
-- Atomic; safe in any number of workers at once. RQ's own schedulers are kept away by their lock,
-- which all flowq workers share; a queue that one of RQ's has is left to it.
function due.queue_all(argv)
  left, now, first_at, limit = { '' }, string.format('%.6f', TS), math.huge, tonumber(argv[4])
  for i = 5, #argv do
    if is_ours(argv[i]) then queue_due(argv[i]) end
  end
  first_at = math.min(first_at, slots.refill_rates() or math.huge)
  settling.settle_all()
  if first_at < math.huge then left[1] = string.format('%.3f', first_at - TS + 0.0005) end
  return left
end
