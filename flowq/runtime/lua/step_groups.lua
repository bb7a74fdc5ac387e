-- step_groups.lua: the steps for groups; a part of step.lua, in front of it, with its ARGV.

local function close_some(group) return close_items(group, limit) end

local function forget_group(group)
  redis.call('DEL', group_key(group), tolerated_key(group), OURS .. 'keys:' .. group,
    OURS .. 'items:' .. group, slots_key('group:' .. group), waiting_key('group:' .. group))
end

local function drop_group(run, group)
  if redis.call('SREM', OURS .. 'groups:' .. run, group) == 1 then forget_group(group) end
end

-- The group is as it was declared.
local function empty_group(group)
  redis.call('HDEL', group_key(group), 'size', 'complete', 'left', 'over', 'closed', 'closing', 'reason')
  redis.call('DEL', tolerated_key(group), OURS .. 'keys:' .. group, OURS .. 'items:' .. group)
end

local function forget_groups(run)
  local groups = redis.call('SPOP', OURS .. 'groups:' .. run, limit)
  for _, group in ipairs(groups) do forget_group(group) end
  if #groups > 0 then return false end
  redis.call('DEL', slots_key('run:' .. run), waiting_key('run:' .. run))
  return true
end
