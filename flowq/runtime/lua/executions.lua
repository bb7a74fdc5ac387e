-- executions.lua: whether a started job is really being executed, and its end where nobody is there to
-- end it; a part of step.lua, in front of it. It takes no ARGV.

local members_by_worker -- of this step

function executions.begin()
  members_by_worker = {}
  workers.begin()
end

-- The executions that a worker has, by job.
local function members_of(worker)
  local members = members_by_worker[worker]
  if not members then
    members = {}
    for _, member in ipairs(redis.call('SMEMBERS', keys.held(worker))) do
      members[string.match(member, '^(.-):[^:]*$') or ''] = member
    end
    members_by_worker[worker] = members
  end
  return members
end

-- Whether the worker, or nil, has the job, and RQ's registry of started jobs says so, too.
function executions.find(id, queue, worker)
  local member = worker and members_of(worker)[id]
  return member and redis.call('ZSCORE', PREFIX .. ':wip:' .. queue, member)
end

-- Whether somebody can hear a command that concerns the execution.
function executions.is_heard(id, queue, worker)
  return executions.find(id, queue, worker) and workers.is_there(worker)
end

-- Takes the execution away from its worker; if that lives after all, it kills what it has lost.
function executions.take_away(id, queue, worker)
  local member = worker and members_of(worker)[id]
  if not member then return end
  redis.call('ZREM', PREFIX .. ':wip:' .. queue, member)
  redis.call('SREM', keys.held(worker), member)
  redis.call('DEL', PREFIX .. ':execution:' .. member, PREFIX .. ':executions:' .. id)
end
