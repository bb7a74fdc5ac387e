-- retention.lua: The steps that give ended jobs their time to live.

local CANCELED_TTL_S = 86400 -- RQ never removes a canceled job; where nothing was declared
local RESULT_TTL_S, FAILURE_TTL_S = 500, 31536000 -- RQ's defaults

local function keys_of_future(id)
  return keys.future(id), keys.edges(id), keys.blockers(id), keys.above(id)
end

local function live_for(ttl, ...)
  for _, key in ipairs({ ... }) do
    if ttl < 0 then
      redis.call('PERSIST', key)
    elseif ttl == 0 then
      redis.call('DEL', key)
    else
      redis.call('EXPIRE', key, ttl)
    end
  end
end

local function expire(job)
  local key = keys.job(job)
  local f = redis.call('HMGET', key, 'origin', 'status', 'result_ttl', 'failure_ttl',
    'flowq_blocks', 'flowq_future', 'flowq_run', 'flowq_outcome')
  if not f[1] or f[7] or futures.is_wanted(f[5], job) then return end
  local ttl, registry
  if f[2] == 'finished' then
    ttl, registry = tonumber(f[3] or RESULT_TTL_S), ':finished:'
  elseif f[2] == 'failed' or f[2] == 'stopped' then
    ttl, registry = tonumber(f[4] or FAILURE_TTL_S), ':failed:'
  elseif f[2] == 'canceled' then
    -- One that was skipped neutrally counts as a success, all others as failures.
    ttl, registry = tonumber(f[8] == 'passed' and f[3] or f[8] ~= 'passed' and f[4] or CANCELED_TTL_S),
      ':canceled:'
  else
    return
  end
  live_for(ttl, key, PREFIX .. ':results:' .. job, key .. ':dependents',
    PREFIX .. ':job::' .. job .. ':dependencies')
  -- Its blockers are in these keys, until they have got their own time to live.
  if f[6] and not redis.call('ZSCORE', TODO, 'retire:' .. job) then
    live_for(ttl, keys_of_future(job))
  end
  if f[2] == 'canceled' and ttl > 0 then
    redis.call('ZADD', OURS .. 'forgotten', TS + ttl, job .. ' ' .. f[1])
  end
  registry = PREFIX .. registry .. f[1]
  if ttl == 0 then
    redis.call('ZREM', registry, job)
  elseif f[2] ~= 'canceled' then -- whose score is the time of its cancellation
    redis.call('ZADD', registry, ttl < 0 and '+inf' or math.floor(TS) + ttl, job)
  end
end

function retention.expire_some(job)
  expire(job)
  for _, entry in ipairs(redis.call('ZRANGE', TODO, 0, step.limit)) do -- often there are many
    local other = string.match(entry, '^expire:(.+)$')
    if other then
      expire(other)
      redis.call('ZREM', TODO, entry)
    end
  end
  return true
end

function retention.retire(future)
  if redis.call('ZSCORE', TODO, 'abandon:' .. future) then return false end
  local key = keys.future(future)
  if redis.call('EXISTS', key) == 0 then return true end
  local done = step.each_item(keys.blockers(future), key, 'retired', expire)
  if done then
    local ttl = redis.call('TTL', keys.job(future))
    live_for(ttl == -2 and 0 or ttl, keys_of_future(future))
  end
  return done
end
