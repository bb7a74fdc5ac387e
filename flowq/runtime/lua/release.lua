-- release.lua: closes the declaration of a future job; its blockers are freed by step.lua.
--
-- ARGV   4 job id of the future job   5 "1" to release the open future jobs among its blockers too
-- Returns {1} for the call that released it, {0} when it was released before, or
--   {"missing"}, {"plain"} (not a future job), {"ended", state} (canceled or skipped).
-- From here on any process can finish the release, from the todo.

local id = ARGV[4]
local state = redis.call('HGET', keys.future(id), 'state')
local status = redis.call('HGET', keys.job(id), 'status')
if not status then return { 'missing' } end
if not state then return { 'plain' } end
if UNDECIDED[state] and status == 'canceled' then return { 'ended', status } end -- by RQ's own Job
if CALLED_OFF[state] then return { 'ended', state } end
if state ~= 'open' then return { 0 } end
redis.call('HSET', keys.future(id), 'state', 'releasing')
if ARGV[5] == '1' then redis.call('HSET', keys.future(id), 'cascade', 1) end
redis.call('ZREM', OURS .. 'expiring', id)
later('free:' .. id)
return { 1 }
