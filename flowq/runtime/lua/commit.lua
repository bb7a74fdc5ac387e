-- commit.lua: makes a staged run real; from here on any process can finish its releases.
--
-- One whose `concurrency` group has another run already is held until its turn comes.
-- ARGV   4 run id   5 "hold" to release nothing yet, "go" to release what was held by "hold", else ""
-- Returns 1 for the call that did it, 0 when it was done before, -1 when there is no such run any
-- more (its submitter took longer than its lease, and it was removed), -2 for the "go" of one that
-- waits for its turn. Idempotent.

local run, mode = ARGV[4], ARGV[5]
local key = keys.run(run)
local f = redis.call('HMGET', key, 'state', 'held')
local state, held = f[1], f[2]
if not state or state == 'purging' then return -1 end
if state ~= 'staged' and not (mode == 'go' and held) then return 0 end
if held == 'turn' then return -2 end
if state == 'staged' then
  redis.call('HSET', key, 'state', 'running', 'committed_at', NOW)
  redis.call('ZREM', OURS .. 'staged', run)
  runs.watch(run)
end
if mode == 'hold' then
  redis.call('HSET', key, 'held', 'hand')
  runs.log(run, '', '', 'waiting', 'it is held')
  return 1
end
redis.call('HDEL', key, 'held')
if not runs.join_concurrency(run) then return 1 end
runs.log(run, '', '', 'running')
later('run:' .. run)
return 1
