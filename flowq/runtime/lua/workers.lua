-- workers.lua: which workers are there. It takes no ARGV.

local is_there_by_name -- of this call

function workers.begin() is_there_by_name = {} end

-- When the lease of one of our workers is over, in epoch seconds; nil for those of RQ's.
function workers.lease_of(name)
  return tonumber(redis.call('ZSCORE', OURS .. 'workers', name) or nil)
end

-- Whether a worker is connected, and listens to commands. In a cluster others may hear it, too.
local function listens(name)
  if string.find(PREFIX, '{', 1, true) then return true end
  local ok, answer = pcall(redis.call, 'PUBSUB', 'NUMSUB', PREFIX .. ':pubsub:' .. name)
  return not ok or int(answer[2]) > 0
end

-- Whether a worker is there: one of ours until its lease is over, as long as it listens; one of RQ's as
-- long as its hash is.
function workers.is_there(name)
  if is_there_by_name[name] == nil then
    local lease = workers.lease_of(name)
    local is_there = redis.call('EXISTS', keys.worker(name)) == 1
    if lease then is_there = lease > TS and listens(name) end
    is_there_by_name[name] = is_there
  end
  return is_there_by_name[name]
end
