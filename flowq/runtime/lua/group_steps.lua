-- group_steps.lua: the steps for groups; a part of step.lua, in front of it. It takes no ARGV.

function group_steps.close(group) return groups.close_items(group, steps.limit) end

local function forget(group)
  redis.call('DEL', keys.group(group), keys.tolerated(group), OURS .. 'keys:' .. group,
    OURS .. 'items:' .. group, keys.slots('group:' .. group), keys.waiting('group:' .. group))
end

function group_steps.drop(run, group)
  if redis.call('SREM', OURS .. 'groups:' .. run, group) == 1 then forget(group) end
end

-- The group is as it was declared.
function group_steps.empty(group)
  redis.call('HDEL', keys.group(group), 'size', 'complete', 'left', 'over', 'closed', 'closing',
    'reason', 'approved', 'rejected')
  redis.call('DEL', keys.tolerated(group), OURS .. 'keys:' .. group, OURS .. 'items:' .. group)
end

function group_steps.forget_all_of(run)
  local ids = redis.call('SPOP', OURS .. 'groups:' .. run, steps.limit)
  for _, group in ipairs(ids) do forget(group) end
  if #ids > 0 then return false end
  redis.call('DEL', keys.slots('run:' .. run), keys.waiting('run:' .. run))
  return true
end
