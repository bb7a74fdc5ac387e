-- watching.lua: the step that looks for what ended unnoticed; a part of step.lua, in front of it. It
-- takes no ARGV.

-- Looks for blockers that ended behind our back: deleted or ended by something that does not know
-- us, expired, or lost between a queue and a worker. One pass over the edges, a part in each step.
local function note(blocker, what)
  steps.found[#steps.found + 1] = blocker
  steps.found[#steps.found + 1] = what
end

local function is_lost(blocker, job)
  local queue = PREFIX .. ':queue:' .. job[2]
  if redis.call('EXISTS', queue) == 1 or redis.call('EXISTS', queue .. ':intermediate') == 1 then
    return false
  end
  if not job[4] then redis.call('HSET', keys.job(blocker), 'flowq_missing', TS) end
  return job[4] and TS - tonumber(job[4]) >= steps.WATCH_S
end

local ENDED_STATUS = { finished = true, failed = true, stopped = true, canceled = true }

-- Accounts in its run, once, for a job whose hash is gone; what is known comes from its id.
local function account_gone(run, job)
  if not run or redis.call('SADD', OURS .. 'gone:' .. run, job) == 0 then return end
  local group, index = groups.split_item_id(job)
  local group_name = group and redis.call('HGET', keys.group(group), 'name')
  local name = group_name and group_name .. '[' .. index .. ']' or nested.name_inside(job)
    or string.sub(job, #run + 2)
  runs.log(run, job, name, 'deleted', 'somebody deleted it')
  if group_name then groups.count(group, nil, 'deleted') end
  runs.count(run, nil, 'deleted', job)
  runs.drop_loose(run, job)
  slots.give(job, (group_name and 'group:' .. group .. ' ' or '') .. 'run:' .. run)
end

local function look_after(future, blocker, run)
  local job = redis.call('HMGET', keys.job(blocker), 'status', 'origin', 'flowq_outcome',
    'flowq_missing')
  if not job[1] then
    local mortal = redis.call('EXISTS', keys.mortal(blocker)) == 1
    note(blocker, mortal and 'expired' or 'deleted')
    if mortal then return settling.add(blocker, 'expired') end
    account_gone(run or redis.call('HGET', keys.job(future), 'flowq_run'), blocker)
    return edges.will_tell(future, blocker, 'deleted')
  end
  if ENDED_STATUS[job[1]] then
    note(blocker, job[1])
    return settling.add(blocker, job[3] or job[1])
  end
  if job[1] == 'queued' and is_lost(blocker, job) then
    note(blocker, 'lost')
    redis.call('HDEL', keys.job(blocker), 'flowq_missing')
    redis.call('RPUSH', PREFIX .. ':queue:' .. job[2], blocker)
  end
end

-- A blocker that did not succeed can still be deleted, or requeued and executed, behind our back.
local function look_again(future, blocker, outcome)
  local status = redis.call('HGET', keys.job(blocker), 'status')
  if not status and outcome ~= 'deleted' then
    note(blocker, 'deleted')
    return edges.will_tell(future, blocker, 'deleted')
  end
  if status == 'finished' then
    note(blocker, status)
    settling.add(blocker, status)
  end
end

local function watch_run(run)
  local cursor = redis.call('HGET', keys.run(run), 'watched') or '0'
  local answer = redis.call('SSCAN', keys.loose(run), cursor, 'COUNT', steps.limit)
  for _, job in ipairs(answer[2]) do look_after(run, job, run) end
  redis.call('HSET', keys.run(run), 'watched', answer[1])
  if answer[1] ~= '0' then return false end
  if redis.call('EXISTS', keys.loose(run)) == 1 then
    redis.call('ZADD', OURS .. 'watched', 'XX', TS + steps.WATCH_S, run)
  else
    redis.call('ZREM', OURS .. 'watched', run)
  end
  return true
end

function watching.watch(future)
  if redis.call('EXISTS', keys.run(future)) == 1 then return watch_run(future) end
  local key = keys.future(future)
  if redis.call('HGET', key, 'state') ~= 'released' then
    redis.call('ZREM', OURS .. 'watched', future)
    return true
  end
  local cursor = redis.call('HGET', key, 'watched') or '0'
  local answer = redis.call('HSCAN', keys.edges(future), cursor, 'COUNT', steps.limit)
  for at = 1, #answer[2], 2 do
    local blocker, outcome = answer[2][at], answer[2][at + 1]
    local class = outcomes.class(outcome)
    if class == 'pending' then look_after(future, blocker) end
    if class == 'bad' then look_again(future, blocker, outcome) end
  end
  redis.call('HSET', key, 'watched', answer[1])
  local done = answer[1] == '0'
  if done then redis.call('ZADD', OURS .. 'watched', 'XX', TS + steps.WATCH_S, future) end
  return done
end
