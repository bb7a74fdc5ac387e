-- retry.lua: begins to run jobs of an ended run again; step.lua does the rest.
--
-- ARGV   4 run id   5 key of the list that says what to do with which job, last ones first:
--        "+<job>" runs again, "=<job>" keeps its result and tells it to the jobs that run again,
--        "-<job>" is removed, for somebody will add it again, and "*<group>" forgets its items
--        6 "1" when the run may have succeeded
-- One with a `concurrency` group lines up in it again, and is held until its turn comes.
-- Returns {1}, or {"state", state} when the run is in no state for that, and nothing is changed.
-- Idempotent: sent again after a lost reply it finds its list taken, and answers {1} again.

local run, list = ARGV[4], ARGV[5]
local key = keys.run(run)
local state = redis.call('HGET', key, 'state')
if state ~= 'failed' and state ~= 'canceled' and not (state == 'succeeded' and ARGV[6] == '1') then
  if state and redis.call('EXISTS', list) == 0 then return { 1 } end
  redis.call('DEL', list)
  return { 'state', state or 'gone' }
end
redis.call('RENAME', list, OURS .. 'again:' .. run)
redis.call('PERSIST', OURS .. 'again:' .. run)
redis.call('HSET', key, 'state', 'retrying')
redis.call('HDEL', key, 'ended_at', 'canceling', 'canceled', 'resumed', 'released', 'again', 'held',
  'deadline_at', 'late')
redis.call('ZREM', OURS .. 'ended', run)
runs.join_concurrency(run)
later('again:' .. run)
return { 1 }
