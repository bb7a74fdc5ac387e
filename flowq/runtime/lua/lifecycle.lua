-- lifecycle.lua: The steps that release, cancel and remove a run.

function lifecycle.release(run)
  local key = keys.run(run)
  local f = redis.call('HMGET', key, 'state', 'held', 'timeout')
  if f[1] ~= 'running' or f[2] then return true end
  deadlines.begin_run(run, f[3])
  return step.each_item(OURS .. 'futures:' .. run, key, 'released', function(future)
    release.begin(future)
  end)
end

function lifecycle.forget(job)
  local key = keys.job(job)
  local f = redis.call('HMGET', key, 'origin', 'status', 'flowq_slots')
  local queue = f[1]
  local is_elsewhere = f[3] and slots.are_across_runs(f[3])
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
  if is_elsewhere then slots.give_across_runs(job, f[3]) end
end

local OF_A_QUEUE = { 'queue', 'workers', 'wip', 'deferred', 'finished', 'failed', 'canceled', 'scheduled',
  'scheduler-lock' }

-- What is left of the queue that a run had for itself.
local function forget_queue(queue)
  if not queue then return end
  redis.call('SREM', PREFIX .. ':queues', PREFIX .. ':queue:' .. queue)
  for _, kind in ipairs(OF_A_QUEUE) do redis.call('DEL', PREFIX .. ':' .. kind .. ':' .. queue) end
end

-- Takes a run out of the lists of runs by label (flowq/runtime/run_labels.py).
local function forget_labels(run)
  local labels = redis.call('HGET', keys.run(run), 'labels')
  if not labels then return end
  for name, value in pairs(cjson.decode(labels)) do
    redis.call('ZREM', OURS .. 'labels:' .. name .. '=' .. value, run)
  end
  redis.call('ZREM', OURS .. 'labeled', run .. ' ' .. labels)
end

-- The due time of a run that somebody removes (flowq/runtime/runs.py, remove) can have another run. That
-- of one whose retention is over cannot: nothing runs twice.
local function unclaim(run)
  local f = redis.call('HMGET', keys.run(run), 'unclaims', 'claim')
  local due = f[1] and f[2] and OURS .. 'due:' .. f[2]
  if due and redis.call('GET', due) == run then redis.call('DEL', due) end
end

function lifecycle.purge(run)
  local key = keys.run(run)
  runs.leave_concurrency(run)
  redis.call('HSET', key, 'state', 'purging')
  local ids = redis.call('LPOP', OURS .. 'jobs:' .. run, step.limit)
  for _, job in ipairs(ids or {}) do lifecycle.forget(job) end
  if redis.call('EXISTS', OURS .. 'jobs:' .. run) == 1 then return false end
  if not groups.forget_all_of(run, step.limit) then return false end
  if not slots.forget_run(run, step.limit) then return false end
  forget_queue(redis.call('HGET', key, 'queue'))
  local workflow = redis.call('HGET', key, 'workflow')
  if workflow then redis.call('ZREM', OURS .. 'runs:' .. workflow, run) end
  runs.list_by_state(run, nil)
  forget_labels(run)
  unclaim(run)
  local outputs_job = redis.call('HGET', key, 'outputs_job')
  if outputs_job then lifecycle.forget(outputs_job) end
  redis.call('DEL', key, OURS .. 'futures:' .. run, OURS .. 'events:' .. run,
    OURS .. 'again:' .. run, OURS .. 'order:' .. run, OURS .. 'code:' .. run, keys.unended(run),
    OURS .. 'counts:' .. run, OURS .. 'states:' .. run, keys.printed(run),
    OURS .. 'gone:' .. run, OURS .. 'loose:' .. run) -- the last two are of an older version
  for _, index in ipairs({ 'runs', 'staged', 'ended', 'watched', 'deadlines', 'printing' }) do
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
  local is_called_off = runs.is_canceling(run, f[2]) or f[1] == 'deferred' and futures.is_stuck(job)
  if is_heard and is_called_off then step.must_stop(job, runs.why_canceled(run)) end
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

function lifecycle.cancel(run)
  local key, unattended = keys.run(run), read_unattended(run)
  local done = step.each_item(OURS .. 'jobs:' .. run, key, 'canceled', function(job)
    cancel_job(job, run, unattended)
  end)
  if done then
    settling.settle_all()
    runs.end_without_jobs(run)
  end
  return done
end

-- A job that adds others has failed before it released them: those that have not begun end with it. Of the
-- start of a workflow that is all that it has added; items of a list that were released before go on.
function lifecycle.call_off_added(job)
  local f = redis.call('HMGET', keys.job(job), 'flowq_run', 'flowq_inside')
  if not f[1] or not nested.has_added_in_vain(job) then return true end
  local is_start = nested.is_start(job, f[2])
  local done = step.each_item(OURS .. 'jobs:' .. f[1], keys.job(job), 'flowq_stranding', function(other)
    local g = redis.call('HMGET', keys.job(other), 'flowq_by', 'status', 'flowq_gates')
    if g[1] ~= job or not NOT_STARTED[g[2]] then return end
    if nested.has_begun(other) then
      return is_start and nested.end_round(other, 'canceled', nested.ADDER_FAILED)
    end
    local is_held = int(g[3]) > 0 or redis.call('HGET', keys.future(other), 'state') == 'open'
    if is_start or is_held then jobs.call_off(other, 'canceled', nested.ADDER_FAILED) end
  end)
  if done then redis.call('HDEL', keys.job(job), 'flowq_stranding') end
  return done
end
