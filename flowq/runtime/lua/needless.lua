-- needless.lua: The steps that end what is not needed any more: the blockers of a job that has started before
-- they have ended (`cancel_rest`), and the siblings of an item that has failed (`fail_fast`).

local AGAIN_S = 5 -- who has told running jobs to stop may have died before they heard of it

local function stopper(word, why)
  return function(id, _, is_workflow)
    if is_workflow then return deadlines.begin_to_halt(id, 'is ' .. why) end
    local f = redis.call('HMGET', keys.job(id), 'origin', 'worker_name')
    if executions.is_heard(id, f[1], f[2]) then return step.must_stop(id, why) end
    executions.take_away(id, f[1], f[2])
    jobs.call_off(id, word, why)
  end
end

-- At the end of a pass: another one follows as long as something was to be stopped.
local function end_pass(id, hash, field, done)
  if #step.running > 0 then
    redis.call('ZADD', OURS .. 'deadlines', TS + AGAIN_S, id)
    redis.call('HSET', hash, 'stops', 1)
  end
  if done then redis.call('HDEL', hash, field) end
  return done
end

function needless.end_rest(future)
  local key = keys.future(future)
  if redis.call('HEXISTS', key, 'goes') == 0 then return true end
  local why = firsts.why_not_needed(future)
  local stop = stopper('passed', why)
  local done = step.each_item(keys.blockers(future), key, 'rested', function(blocker)
    firsts.end_one(blocker, 'passed', why, future, stop)
  end)
  return end_pass(future, key, 'rested', done)
end

-- Stops the items of a group that has failed.
function needless.stop_items(group)
  local key = keys.group(group)
  local f = redis.call('HMGET', key, 'closed', 'reason', 'stopping', 'size')
  if f[1] ~= 'canceled' then return true end
  local stop, size, index = stopper(f[1], f[2]), int(f[4]), int(f[3])
  while index < size and step.budget > 0 do
    firsts.end_one(groups.item_id(group, index), f[1], f[2], nil, stop)
    step.budget, index = step.budget - 1, index + 1
  end
  redis.call('HSET', key, 'stopping', index)
  return end_pass(group, key, 'stopping', index >= size)
end

-- Whether that has to be done once more for what `deadlines` names, which may be neither.
function needless.again(id)
  local policy = redis.call('HGET', keys.future(id), 'policy')
  local is_group = redis.call('HEXISTS', keys.group(id), 'fail_fast') == 1
  if firsts.is_one(policy) then later('rest:' .. id) end
  if is_group then later('quell:' .. id) end
  return is_group or firsts.is_one(policy)
end
