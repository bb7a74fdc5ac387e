-- empty.lua: removes jobs from the front of a queue, as rq.Queue.empty does, in bounded steps.
--
-- ARGV   4 key of the queue   5 how many at most
-- Blockers among them settle as deleted. Returns how many were removed; 0 when the queue is empty.

local ids = redis.call('LPOP', ARGV[4], ARGV[5]) or {}
for _, id in ipairs(ids) do
  local key = keys.job(id)
  settling.add(id, redis.call('EXISTS', key) == 1 and 'deleted' or 'expired')
  settling.settle_all()
  redis.call('DEL', key, key .. ':dependents', PREFIX .. ':results:' .. id)
end
return #ids
