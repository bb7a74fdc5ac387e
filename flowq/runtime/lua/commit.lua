-- commit.lua: makes a staged run real; from here on any process can finish its releases.
--
-- One whose `concurrency` group has another run already is held until its turn comes.
-- ARGV   4 run id   5 "hold" to release nothing yet, "go" to release what was held, else ""
-- Returns 1 for the call that did it, 0 when it was done before, -1 when there is no such run any
-- more (its submitter took longer than its lease, and it was removed). Idempotent.

local run, mode = ARGV[4], ARGV[5]
local key = run_key(run)
local state = redis.call('HGET', key, 'state')
if not state or state == 'purging' then return -1 end
local is_held = redis.call('HEXISTS', key, 'held') == 1
if state ~= 'staged' and not (mode == 'go' and is_held) then return 0 end
if state == 'staged' then
  redis.call('HSET', key, 'state', 'running', 'committed_at', NOW)
  redis.call('ZREM', OURS .. 'staged', run)
end
if mode == '' and redis.call('HEXISTS', key, 'concurrency') == 1 then
  local list = OURS .. 'concurrency:' .. redis.call('HGET', key, 'concurrency')
  redis.call('RPUSH', list, run)
  if redis.call('LINDEX', list, 0) ~= run then mode = 'hold' end
end
if mode == 'hold' then
  redis.call('HSET', key, 'held', 1)
  log(run, '', '', 'waiting')
  return 1
end
redis.call('HDEL', key, 'held')
log(run, '', '', 'running')
later('run:' .. run)
return 1
