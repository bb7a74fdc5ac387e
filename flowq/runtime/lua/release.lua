-- release.lua: closes the declaration of a future job; its blockers are freed by step.lua.
--
-- ARGV   4 job id of the future job
-- Returns {1} for the call that released it, {0} when it was released before, or
--   {"missing"}, {"plain"} (not a future job), {"ended", state} (canceled or skipped).
-- From here on any process can finish the release, from the todo.

local id = ARGV[4]
local state = redis.call('HGET', future_key(id), 'state')
if not state then
  return { redis.call('EXISTS', job_key(id)) == 1 and 'plain' or 'missing' }
end
if CALLED_OFF[state] then return { 'ended', state } end
if state ~= 'open' then return { 0 } end
redis.call('HSET', future_key(id), 'state', 'releasing')
later('free:' .. id)
return { 1 }
