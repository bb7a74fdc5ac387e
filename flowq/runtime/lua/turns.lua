-- turns.lua: what both halves of a turn share; a part of turn.lua, in front of it, with its ARGV, which
-- begin reads.
--
-- Its table has the worker, worker_key (its hash) and held_key (the set of its executions).

local argv, at
local lists -- what is added to sorted sets together: {score, member, score, member …} by key

-- Reads the arguments from `first` on.
function turns.begin(arguments, first)
  argv, at, lists = arguments, first, {}
  turns.worker = argv[4]
  turns.worker_key = PREFIX .. ':worker:' .. turns.worker
  turns.held_key = turns.worker_key .. ':executions'
end

function turns.take()
  at = at + 1
  return argv[at - 1]
end

function turns.register(key, score, member)
  local list = lists[key]
  if not list then
    list = {}
    lists[key] = list
  end
  list[#list + 1] = score
  list[#list + 1] = member
end

function turns.register_all()
  if next(lists) == nil then return end
  for key, list in pairs(lists) do redis.call('ZADD', key, unpack(list)) end
  lists = {}
end
