-- step_runs.lua: the steps for runs; a part of step.lua, in front of it, with its ARGV.

local function release_run(run)
  local key = run_key(run)
  local f = redis.call('HMGET', key, 'state', 'held')
  if f[1] ~= 'running' or f[2] then return true end
  return each_item(OURS .. 'futures:' .. run, key, 'released', function(future)
    if redis.call('HGET', future_key(future), 'state') == 'open' then
      redis.call('HSET', future_key(future), 'state', 'releasing')
      redis.call('ZREM', OURS .. 'expiring', future)
      if not free(future) then later('free:' .. future) end
    else
      lift(future)
    end
  end)
end

local function forget(job)
  local key = job_key(job)
  local queue = redis.call('HGET', key, 'origin')
  if queue then
    for _, registry in ipairs({ 'deferred', 'finished', 'failed', 'canceled', 'scheduled' }) do
      redis.call('ZREM', PREFIX .. ':' .. registry .. ':' .. queue, job)
    end
    redis.call('LREM', PREFIX .. ':queue:' .. queue, 1, job)
  end
  redis.call('DEL', key, key .. ':dependents', PREFIX .. ':job::' .. job .. ':dependencies',
    PREFIX .. ':results:' .. job, PREFIX .. ':executions:' .. job,
    blockers_key(job), edges_key(job), future_key(job), mortal_key(job), behind_key(job),
    slots_key('future:' .. job), waiting_key('future:' .. job))
  redis.call('ZREM', OURS .. 'expiring', job)
  redis.call('ZREM', OURS .. 'watched', job)
  for _, entry in ipairs({ 'free:', 'abandon:', 'retire:', 'expire:' }) do
    redis.call('ZREM', TODO, entry .. job)
  end
end

local function purge(run)
  local key = run_key(run)
  leave_concurrency(run)
  redis.call('HSET', key, 'state', 'purging')
  local jobs = redis.call('LPOP', OURS .. 'jobs:' .. run, limit)
  for _, job in ipairs(jobs or {}) do forget(job) end
  if redis.call('EXISTS', OURS .. 'jobs:' .. run) == 1 then return false end
  if not forget_groups(run) then return false end
  redis.call('DEL', key, OURS .. 'futures:' .. run, OURS .. 'events:' .. run,
    OURS .. 'again:' .. run, OURS .. 'order:' .. run, OURS .. 'gone:' .. run, loose_key(run))
  for _, index in ipairs({ 'runs', 'staged', 'ended', 'watched' }) do
    redis.call('ZREM', OURS .. index, run)
  end
  for _, entry in ipairs({ 'run:', 'cancel:', 'again:' }) do
    redis.call('ZREM', TODO, entry .. run)
  end
  return true
end

local function cancel(run)
  local is_now = redis.call('HGET', run_key(run), 'canceling') == 'now'
  return each_item(OURS .. 'jobs:' .. run, run_key(run), 'canceled', function(job)
    local f = redis.call('HMGET', job_key(job), 'status', 'flowq_always')
    if NOT_STARTED[f[1]] and (is_now or not f[2]) then call_off(job, 'canceled', 'the run was canceled') end
    if f[1] == 'started' then running[#running + 1] = job end
  end)
end

-- Whether the release of a future job has still to come to this blocker of it.
local function stands_before(job, future)
  if redis.call('HEXISTS', edges_key(future), job) == 0 then return false end
  local f = redis.call('HMGET', future_key(future), 'state', 'freed')
  if f[1] ~= 'releasing' then return f[1] == 'open' end
  return (redis.call('LPOS', blockers_key(future), job) or 0) >= int(f[2])
end

-- Whether a future job's release is in no plan, and whoever added it does not run again to make it.
local function is_left_to_us(key)
  local f = redis.call('HMGET', key, 'flowq_late', 'flowq_by')
  if not f[1] then return false end
  if f[2] and not redis.call('HGET', job_key(f[2]), 'flowq_outcome') then return false end
  return redis.call('HDEL', key, 'flowq_late') == 1
end

-- A job that runs again is held as it was at first, in a new generation: whatever is still on its
-- way from an earlier one changes nothing.
local function hold_again(job, run)
  local key = job_key(job)
  local f = redis.call('HMGET', key, 'origin', 'flowq_blocks', 'flowq_future', 'flowq_name',
    'flowq_retries', 'flowq_group')
  if not f[1] then return end
  for _, registry in ipairs({ ':finished:', ':failed:', ':canceled:', ':scheduled:' }) do
    redis.call('ZREM', PREFIX .. registry .. f[1], job)
  end
  if redis.call('HGET', key, 'status') == 'queued' then -- requeued with RQ's tools meanwhile
    redis.call('LREM', PREFIX .. ':queue:' .. f[1], 0, job)
  end
  rearm(job) -- what it blocks outside of the run is not held again, but waits again
  if f[6] then reopen_group(f[6]) end
  redis.call('HINCRBY', key, 'flowq_gen', 1)
  redis.call('HDEL', key, 'flowq_asked', 'flowq_approved')
  redis.call('HSET', key, 'status', 'deferred', 'started_at', '', 'ended_at', '')
  if f[5] then redis.call('HSET', key, 'retries_left', f[5]) end
  redis.call('PERSIST', key)
  redis.call('ZADD', PREFIX .. ':deferred:' .. f[1], '+inf', job)
  local gates = 0
  for future in each_future(f[2]) do
    if stands_before(job, future) then gates = gates + 1 end
  end
  redis.call('HSET', key, 'flowq_gates', gates)
  if f[3] then
    redis.call('HSET', future_key(job), 'state', 'open')
    redis.call('HDEL', future_key(job), 'freed', 'dropped', 'retired')
    if is_left_to_us(key) then redis.call('RPUSH', OURS .. 'futures:' .. run, job) end
  elseif gates == 0 then
    if not f[2] then keep_loose(run, job) end
    if redis.call('HSETNX', key, 'flowq_loose', 1) == 1 then
      redis.call('RPUSH', OURS .. 'futures:' .. run, job) -- nothing else would queue it
    end
  end
  log(run, job, f[4], 'deferred', 'the run is retried')
end

-- A future job that was called off early has not heard of the blockers that ended after that.
local function tell_again(job)
  local f = redis.call('HMGET', job_key(job), 'flowq_blocks', 'flowq_outcome')
  for future, mark in each_future(f[1]) do
    local old = redis.call('HGET', edges_key(future), job)
    local s = redis.call('HMGET', future_key(future), 'state', 'policy')
    if old and f[2] and s[1] == 'open' then move_edge(future, job, old, f[2] .. mark, s[2]) end
  end
end

-- Whoever has added these did not come to their release, and will not.
local function call_off_stranded(job)
  local run = redis.call('HGET', job_key(job), 'flowq_run')
  if not run then return true end
  local done = each_item(OURS .. 'jobs:' .. run, job_key(job), 'flowq_stranding', function(other)
    if redis.call('HGET', job_key(other), 'flowq_by') == job
      and redis.call('HGET', future_key(other), 'state') == 'open' then
      call_off(other, 'canceled', 'what adds its blockers has failed')
    end
  end)
  if done then redis.call('HDEL', job_key(job), 'flowq_stranding') end
  return done
end

-- The job does not stand in front of the future job any more, as if it never had.
local function take_edge_away(future, job, expands)
  local old = redis.call('HGET', edges_key(future), job)
  if not old then return end
  move_edge(future, job, old, 'finished', redis.call('HGET', future_key(future), 'policy'))
  redis.call('HDEL', edges_key(future), job)
  redis.call('LREM', blockers_key(future), -1, job)
  if not expands then redis.call('HINCRBY', future_key(future), 'total', -1) end
end

-- The group or the workflow that the job is a part of begins anew, and will add it again. The last
-- ones that were added go first, so their places in the lists are near.
local function remove(job, run)
  local f = redis.call('HMGET', job_key(job), 'flowq_outcome', 'flowq_group', 'flowq_expands',
    'flowq_name', 'flowq_blocks')
  if not f[1] then redis.call('HINCRBY', run_key(run), 'left', -1) end
  weigh(run, job, f[1] or nil, nil)
  for future in each_future(f[5]) do take_edge_away(future, job, f[3]) end
  if f[3] then drop_group(run, job) end
  if f[2] and redis.call('EXISTS', job_key(f[2])) == 0 then drop_group(run, f[2]) end
  drop_loose(run, job)
  redis.call('SREM', OURS .. 'gone:' .. run, job)
  redis.call('LREM', OURS .. 'jobs:' .. run, -1, job)
  forget(job)
  log(run, job, f[4] or name_inside(job) or job, 'removed', 'it is made anew')
end

local DO_AGAIN = { ['+'] = hold_again, ['='] = tell_again, ['-'] = remove, ['*'] = empty_group }

local function again(run)
  local key, list = run_key(run), OURS .. 'again:' .. run
  if redis.call('HGET', key, 'state') ~= 'retrying' then return true end
  local done = each_item(list, key, 'again', function(entry)
    DO_AGAIN[string.sub(entry, 1, 1)](string.sub(entry, 2), run)
  end)
  if not done then return false end
  redis.call('DEL', list)
  redis.call('HDEL', key, 'again')
  redis.call('HSET', key, 'state', 'running')
  if redis.call('HEXISTS', key, 'held') == 1 then return true end -- it goes when its turn comes
  log(run, '', '', 'running')
  later('run:' .. run)
  return true
end
