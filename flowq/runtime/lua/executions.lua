-- executions.lua: whether a started job is really being executed, and its end where nobody is there to
-- end it; a part of step.lua, in front of it. It takes no ARGV.

local members_by_worker, is_there_by_worker -- of this step

function executions.begin() members_by_worker, is_there_by_worker = {}, {} end

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

-- Whether a worker is connected, and listens to commands. In a cluster others may hear it, too.
local function listens(worker)
  if string.find(PREFIX, '{', 1, true) then return true end
  local ok, answer = pcall(redis.call, 'PUBSUB', 'NUMSUB', PREFIX .. ':pubsub:' .. worker)
  return not ok or int(answer[2]) > 0
end

-- Whether a worker is there: one of ours until its lease is over, one of RQ's as long as its hash is.
local function is_there(worker)
  if is_there_by_worker[worker] == nil then
    local lease = tonumber(redis.call('ZSCORE', OURS .. 'workers', worker) or nil)
    local lives = redis.call('EXISTS', keys.worker(worker)) == 1
    if lease then lives = lease > TS and listens(worker) end
    is_there_by_worker[worker] = lives
  end
  return is_there_by_worker[worker]
end

-- Whether the worker, or nil, has the job, and RQ's registry of started jobs says so, too.
function executions.find(id, queue, worker)
  local member = worker and members_of(worker)[id]
  return member and redis.call('ZSCORE', PREFIX .. ':wip:' .. queue, member)
end

-- Whether somebody can hear a command that concerns the execution.
function executions.is_heard(id, queue, worker)
  return executions.find(id, queue, worker) and is_there(worker)
end

-- Takes the execution away from its worker; if that lives after all, it kills what it has lost.
function executions.take_away(id, queue, worker)
  local member = worker and members_of(worker)[id]
  if not member then return end
  redis.call('ZREM', PREFIX .. ':wip:' .. queue, member)
  redis.call('SREM', keys.held(worker), member)
  redis.call('DEL', PREFIX .. ':execution:' .. member, PREFIX .. ':executions:' .. id)
end
