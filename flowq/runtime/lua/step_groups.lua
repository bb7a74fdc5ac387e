-- step_groups.lua: the steps for groups; a part of step.lua, in front of it, with its ARGV.

-- Ends the items of a closed group that have not started, and what is theirs.
local function close_items(group)
  local key = group_key(group)
  local f = redis.call('HMGET', key, 'closed', 'reason', 'closing', 'size')
  if not f[1] then return true end
  local at = int(f[3])
  local last = math.min(at + limit, int(f[4]))
  for index = at, last - 1 do
    local item = item_id(group, index)
    if NOT_STARTED[redis.call('HGET', job_key(item), 'status')] then
      call_off(item, f[1], f[2])
      if redis.call('EXISTS', future_key(item)) == 1 then later('recall:' .. item) end
    end
  end
  redis.call('HSET', key, 'closing', last)
  return last >= int(f[4])
end

local function forget_groups(run)
  local groups = redis.call('SPOP', OURS .. 'groups:' .. run, limit)
  for _, group in ipairs(groups) do
    redis.call('DEL', group_key(group), tolerated_key(group), OURS .. 'keys:' .. group,
      OURS .. 'items:' .. group, slots_key('group:' .. group), waiting_key('group:' .. group))
  end
  if #groups > 0 then return false end
  redis.call('DEL', slots_key('run:' .. run), waiting_key('run:' .. run))
  return true
end
