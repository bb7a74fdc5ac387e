-- beat.lua: a worker says that it is alive, and that its executions are.
--
-- ARGV   4 name of the worker   5 seconds after which it counts as lost
--        6 ttl of the worker's hash   7 seconds between heartbeats
--        8 number of executions, then for each: job, execution, queue, "1" when it was handed over
--          and has not begun, when it was claimed (epoch seconds)
-- Returns {ids of executions that somebody took away…}.
-- It makes the records of executions that were claimed without them.

local worker = ARGV[4]
local worker_key = PREFIX .. ':worker:' .. worker
redis.call('ZADD', OURS .. 'workers', TS + tonumber(ARGV[5]), worker)
redis.call('HSET', worker_key, 'last_heartbeat', NOW)
redis.call('EXPIRE', worker_key, ARGV[6])

local lost = {}
local ttl = tonumber(ARGV[7]) + 60
for i = 9, 8 + 5 * tonumber(ARGV[8]), 5 do
  local id, execution, queue, handed = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local member = id .. ':' .. execution
  if redis.call('ZSCORE', PREFIX .. ':wip:' .. queue, member) then
    local key = PREFIX .. ':execution:' .. member
    redis.call('HSET', key, 'id', execution, 'job_id', id, 'worker_name', worker,
      'last_heartbeat', TS)
    redis.call('HSETNX', key, 'created_at', ARGV[i + 4])
    if handed == '1' then
      redis.call('HSET', key, 'flowq_handed', '1')
    else
      redis.call('HDEL', key, 'flowq_handed')
    end
    redis.call('EXPIRE', key, ttl)
    redis.call('ZADD', PREFIX .. ':wip:' .. queue, 'XX', math.floor(TS) + jobs.WIP_S, member)
    redis.call('ZADD', PREFIX .. ':executions:' .. id, math.floor(TS) + ttl + 60, execution)
    redis.call('EXPIRE', PREFIX .. ':executions:' .. id, ttl + 60)
    if redis.call('EXISTS', keys.job(id)) == 1 then
      redis.call('HSET', keys.job(id), 'last_heartbeat', NOW)
    end
  elseif redis.call('HGET', keys.job(id), 'status') ~= 'canceled'
    or redis.call('SISMEMBER', worker_key .. ':executions', member) == 0 then
    lost[#lost + 1] = execution -- a canceled one runs to its end, as with RQ
  end
end
return lost
