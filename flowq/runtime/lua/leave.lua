-- leave.lua: a worker ends, and gives back what it holds for as long as it lives.
--
-- ARGV   4 name of the worker   then the names of its queues
-- The lock of a queue's schedule is shared by all flowq workers (due.lua), so the last one that
-- serves the queue gives it back. RQ's scheduler tries to get it only every ten minutes, or when it
-- starts. Idempotent.

local worker = ARGV[4]

-- Whether another one of ours is there for the queue.
local function is_served(queue)
  local start = #(PREFIX .. ':worker:') + 1
  for _, key in ipairs(redis.call('SMEMBERS', PREFIX .. ':workers:' .. queue)) do
    local name = string.sub(key, start)
    if name ~= worker and workers.lease_of(name) and workers.is_there(name) then return true end
  end
  return false
end

workers.begin()
redis.call('ZREM', OURS .. 'workers', worker)
for i = 5, #ARGV do
  local lock = PREFIX .. ':scheduler-lock:' .. ARGV[i]
  if redis.call('GET', lock) == 'flowq' and not is_served(ARGV[i]) then redis.call('DEL', lock) end
end
return 1
