-- round.lua: begins to run again what did not succeed inside of a workflow; step.lua does the rest.
--
-- ARGV   4 id of its join   5 key of the list that says what to do with which job, as in retry.lua
-- Returns 1, or 0 when the join does not wait for that any more. Idempotent.

local join, list = ARGV[4], ARGV[5]
if not redis.call('ZSCORE', OURS .. 'rounds', join) then
  redis.call('DEL', list)
  return 0
end
redis.call('RENAME', list, OURS .. 'again:' .. join)
redis.call('PERSIST', OURS .. 'again:' .. join)
redis.call('ZREM', OURS .. 'rounds', join)
local f = redis.call('HMGET', keys.job(join), 'flowq_run', 'flowq_name', 'flowq_round')
if f[1] then runs.log(f[1], join, f[2], 'deferred', 'attempt ' .. int(f[3]) + 1) end
later('round:' .. join)
return 1
