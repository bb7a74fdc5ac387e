-- run_steps.lua: the steps for runs; a part of step.lua, in front of it. It takes no ARGV.

function run_steps.release(run)
  local key = keys.run(run)
  local f = redis.call('HMGET', key, 'state', 'held', 'timeout')
  if f[1] ~= 'running' or f[2] then return true end
  deadlines.begin_run(run, f[3])
  return steps.each_item(OURS .. 'futures:' .. run, key, 'released', function(future)
    releasing.let_go(future)
  end)
end

local function forget(job)
  local key = keys.job(job)
  local f = redis.call('HMGET', key, 'origin', 'status')
  local queue = f[1]
  if queue then
    for _, registry in ipairs({ 'deferred', 'finished', 'failed', 'canceled', 'scheduled' }) do
      redis.call('ZREM', PREFIX .. ':' .. registry .. ':' .. queue, job)
    end
    if f[2] == 'queued' then jobs.take_from_queue(job, queue) end
  end
  redis.call('DEL', key, key .. ':dependents', PREFIX .. ':job::' .. job .. ':dependencies',
    PREFIX .. ':results:' .. job, PREFIX .. ':executions:' .. job,
    keys.blockers(job), keys.edges(job), keys.above(job), keys.future(job), keys.mortal(job),
    keys.behind(job), keys.slots('future:' .. job), keys.waiting('future:' .. job),
    OURS .. 'again:' .. job)
  for _, index in ipairs({ 'expiring', 'deadlines', 'rounds', 'watched' }) do
    redis.call('ZREM', OURS .. index, job)
  end
  for _, entry in ipairs({ 'free:', 'abandon:', 'retire:', 'expire:' }) do
    redis.call('ZREM', TODO, entry .. job)
  end
end

local OF_A_QUEUE = { 'queue', 'workers', 'wip', 'deferred', 'finished', 'failed', 'canceled', 'scheduled',
  'scheduler-lock' }

-- What is left of the queue that a run had for itself.
local function forget_queue(queue)
  if not queue then return end
  redis.call('SREM', PREFIX .. ':queues', PREFIX .. ':queue:' .. queue)
  for _, kind in ipairs(OF_A_QUEUE) do redis.call('DEL', PREFIX .. ':' .. kind .. ':' .. queue) end
end

function run_steps.purge(run)
  local key = keys.run(run)
  runs.leave_concurrency(run)
  redis.call('HSET', key, 'state', 'purging')
  local ids = redis.call('LPOP', OURS .. 'jobs:' .. run, steps.limit)
  for _, job in ipairs(ids or {}) do forget(job) end
  if redis.call('EXISTS', OURS .. 'jobs:' .. run) == 1 then return false end
  if not group_steps.forget_all_of(run) then return false end
  forget_queue(redis.call('HGET', key, 'queue'))
  local outputs_job = redis.call('HGET', key, 'outputs_job')
  if outputs_job then forget(outputs_job) end
  redis.call('DEL', key, OURS .. 'futures:' .. run, OURS .. 'events:' .. run,
    OURS .. 'again:' .. run, OURS .. 'order:' .. run, OURS .. 'code:' .. run, keys.unended(run),
    OURS .. 'gone:' .. run, OURS .. 'loose:' .. run) -- the last two are of an older version
  for _, index in ipairs({ 'runs', 'staged', 'ended', 'watched', 'deadlines' }) do
    redis.call('ZREM', OURS .. index, run)
  end
  for _, entry in ipairs({ 'run:', 'cancel:', 'again:' }) do
    redis.call('ZREM', TODO, entry .. run)
  end
  return true
end

-- A job that would still run has nobody who executes it (flowq/runtime/runs.py, cancel).
local ABANDONED = 'the run was canceled, and no worker listens on its queue'

-- `unattended`: the queues whose jobs end in any case.
local function cancel_job(job, run, unattended)
  local f = redis.call('HMGET', keys.job(job), 'status', 'flowq_always', 'origin', 'worker_name')
  local is_started = f[1] == 'started'
  if not is_started and not NOT_STARTED[f[1]] then
    local blocks = redis.call('HGET', keys.unended(run), job)
    return blocks and watching.look_at(job, run, blocks)
  end
  local is_heard = is_started and executions.is_heard(job, f[3], f[4])
  local is_called_off = runs.calls_off(run, f[2]) or f[1] == 'deferred' and futures.is_stuck(job)
  if is_heard and is_called_off then steps.must_stop(job, runs.why_canceled(run)) end
  if is_heard or not (is_called_off or unattended[f[3]]) then return runs.note_unended(run, job) end
  if is_started then executions.take_away(job, f[3], f[4]) end
  jobs.call_off(job, 'canceled', is_called_off and runs.why_canceled(run) or ABANDONED)
end

local function read_unattended(run)
  local is_unattended = {}
  local queues = redis.call('HGET', keys.run(run), 'unattended') or '[]'
  for _, queue in ipairs(cjson.decode(queues)) do is_unattended[queue] = true end
  return is_unattended
end

function run_steps.cancel(run)
  local key, unattended = keys.run(run), read_unattended(run)
  local done = steps.each_item(OURS .. 'jobs:' .. run, key, 'canceled', function(job)
    cancel_job(job, run, unattended)
  end)
  if done then
    settling.settle_all()
    runs.end_without_jobs(run)
  end
  return done
end

-- Whether the release of a future job has still to come to this blocker of it.
local function stands_before(job, future)
  if redis.call('HEXISTS', keys.edges(future), job) == 0 then return false end
  local f = redis.call('HMGET', keys.future(future), 'state', 'freed')
  if f[1] ~= 'releasing' then return f[1] == 'open' end
  return (redis.call('LPOS', keys.blockers(future), job) or 0) >= int(f[2])
end

-- Whether a future job's release is in no plan, and whoever added it does not run again to make it.
local function is_left_to_us(key)
  local f = redis.call('HMGET', key, 'flowq_late', 'flowq_by')
  if not f[1] then return false end
  if f[2] and not redis.call('HGET', keys.job(f[2]), 'flowq_outcome') then return false end
  return redis.call('HDEL', key, 'flowq_late') == 1
end

-- A job that runs again is held as it was at first, in a new generation: whatever is still on its
-- way from an earlier one changes nothing.
local function hold_again(job, run, why)
  local key = keys.job(job)
  local f = redis.call('HMGET', key, 'origin', 'flowq_blocks', 'flowq_future', 'flowq_name',
    'flowq_retries', 'flowq_group', 'flowq_timeout')
  if not f[1] then return end
  for _, registry in ipairs({ ':finished:', ':failed:', ':canceled:', ':scheduled:' }) do
    redis.call('ZREM', PREFIX .. registry .. f[1], job)
  end
  if redis.call('HGET', key, 'status') == 'queued' then -- requeued with RQ's tools meanwhile
    redis.call('LREM', PREFIX .. ':queue:' .. f[1], 0, job)
  end
  attempts.rearm(job) -- what it blocks outside of the run is not held again, but waits again
  if f[6] then groups.reopen(f[6]) end
  deadlines.begin_again(job, f[7])
  redis.call('HINCRBY', key, 'flowq_gen', 1)
  jobs.forget_judging(job)
  redis.call('HDEL', key, 'flowq_approved', 'flowq_rejected', 'flowq_round', 'flowq_since')
  nested.count_from_now(job)
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
    redis.call('HSET', keys.future(job), 'state', 'open')
    redis.call('HDEL', keys.future(job), 'freed', 'dropped', 'retired', 'late', 'halted', 'given_up')
    if is_left_to_us(key) then redis.call('RPUSH', OURS .. 'futures:' .. run, job) end
  elseif gates == 0 then
    if redis.call('HSETNX', key, 'flowq_loose', 1) == 1 then
      redis.call('RPUSH', OURS .. 'futures:' .. run, job) -- nothing else would queue it
    end
  end
  runs.log(run, job, f[4], 'deferred', why)
end

-- A future job that was called off early has not heard of the blockers that ended after that.
local function tell_again(job)
  local f = redis.call('HMGET', keys.job(job), 'flowq_blocks', 'flowq_outcome')
  for future, mark in each_future(f[1]) do
    local old = redis.call('HGET', keys.edges(future), job)
    local s = redis.call('HMGET', keys.future(future), 'state', 'policy')
    if old and f[2] and s[1] == 'open' then
      local above = ancestors.find(job, f[2], futures.read_for_end(job))
      edges.move(future, job, old, f[2] .. mark, s[2], above)
    end
  end
end

-- Whoever has added these did not come to their release, and will not.
function run_steps.call_off_added(job)
  local run = redis.call('HGET', keys.job(job), 'flowq_run')
  if not run then return true end
  local list = OURS .. 'jobs:' .. run
  local done = steps.each_item(list, keys.job(job), 'flowq_stranding', function(other)
    if redis.call('HGET', keys.job(other), 'flowq_by') == job
      and redis.call('HGET', keys.future(other), 'state') == 'open' then
      jobs.call_off(other, 'canceled', 'what adds its blockers has failed')
    end
  end)
  if done then redis.call('HDEL', keys.job(job), 'flowq_stranding') end
  return done
end

-- The job does not stand in front of the future job any more, as if it never had.
local function take_edge_away(future, job, expands)
  local old = redis.call('HGET', keys.edges(future), job)
  if not old then return end
  edges.move(future, job, old, 'finished', redis.call('HGET', keys.future(future), 'policy'))
  redis.call('HDEL', keys.edges(future), job)
  redis.call('LREM', keys.blockers(future), -1, job)
  if not expands then redis.call('HINCRBY', keys.future(future), 'total', -1) end
end

-- The group or the workflow that the job is a part of begins anew, and will add it again. The last
-- ones that were added go first, so their places in the lists are near.
local function remove(job, run)
  local f = redis.call('HMGET', keys.job(job), 'flowq_outcome', 'flowq_group', 'flowq_expands',
    'flowq_name', 'flowq_blocks')
  if not f[1] then redis.call('HINCRBY', keys.run(run), 'left', -1) end
  runs.count_bad(run, job, f[1] or nil, nil)
  for future in each_future(f[5]) do take_edge_away(future, job, f[3]) end
  if f[3] then group_steps.drop(run, job) end
  if f[2] and redis.call('EXISTS', keys.job(f[2])) == 0 then group_steps.drop(run, f[2]) end
  redis.call('HDEL', keys.unended(run), job)
  redis.call('LREM', OURS .. 'jobs:' .. run, -1, job)
  forget(job)
  runs.log(run, job, f[4] or nested.name_inside(job) or job, 'removed', 'it is made anew')
end

local DO_AGAIN = { ['+'] = hold_again, ['='] = tell_again, ['-'] = remove, ['*'] = group_steps.empty }

-- Does what an entry of such a list says (retry.lua).
function run_steps.do_again(entry, run, why)
  DO_AGAIN[string.sub(entry, 1, 1)](string.sub(entry, 2), run, why)
end

function run_steps.again(run)
  local key, list = keys.run(run), OURS .. 'again:' .. run
  if redis.call('HGET', key, 'state') ~= 'retrying' then return true end
  local done = steps.each_item(list, key, 'again', function(entry)
    run_steps.do_again(entry, run, 'the run is retried')
  end)
  if not done then return false end
  redis.call('DEL', list)
  redis.call('HDEL', key, 'again')
  redis.call('HSET', key, 'state', 'running')
  runs.watch(run)
  runs.list_queue(run)
  if redis.call('HEXISTS', key, 'held') == 1 then return true end -- it goes when its turn comes
  runs.log(run, '', '', 'running')
  later('run:' .. run)
  return true
end
