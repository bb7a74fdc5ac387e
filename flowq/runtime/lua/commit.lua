-- commit.lua: makes a staged run real; from here on any process can finish its releases.
--
-- ARGV   4 run id
-- Returns 1 for the call that committed, 0 when it was committed before, -1 when there is no such
-- run any more (its submitter took longer than its lease, and it was removed). Idempotent.

local run = ARGV[4]
local key = run_key(run)
local state = redis.call('HGET', key, 'state')
if state ~= 'staged' then return (state and state ~= 'purging') and 0 or -1 end
redis.call('HSET', key, 'state', 'running', 'committed_at', NOW)
redis.call('ZREM', OURS .. 'staged', run)
log(run, '', '', 'running')
later('run:' .. run)
return 1
