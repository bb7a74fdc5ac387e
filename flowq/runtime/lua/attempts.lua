-- attempts.lua: What an attempt of a job changes when it starts, and what the running job reports about
-- itself.

-- A future job's own keys live as long as its hash does; an earlier end may have left a time to live.
local function keep_keys(id)
  for _, key in ipairs({ keys.future(id), keys.edges(id), keys.blockers(id), keys.above(id) }) do
    redis.call('PERSIST', key)
  end
end

-- Takes back in its run what futures.lua said of a future job, one of whose blockers runs again.
local function log_unstuck(future)
  local f = futures.read_for_decision(future)
  if f[1] ~= 'released' or f[2] ~= 'wait' or int(f[3]) > 0 or int(f[4]) == 0 then return end
  local j = redis.call('HMGET', keys.job(future), 'flowq_run', 'flowq_name')
  if j[1] then runs.log(j[1], future, j[2], 'deferred', 'a blocker runs again') end
end

-- A job that had ended runs again: that it had is forgotten, also where it was counted, and what is shown
-- of that end (its exit code among it), because the job may end without being executed. RQ's results stay;
-- readers look at the outcome (runtime/results.py). Returns the future jobs that it blocks, as in its hash.
local function forget_end(id)
  local key = keys.job(id)
  local f = redis.call('HMGET', key, 'flowq_blocks', 'flowq_outcome', 'flowq_run', 'flowq_group',
    'flowq_ends_as', 'flowq_supplanted')
  if f[2] then
    redis.call('HDEL', key, 'flowq_outcome', 'flowq_reason', 'flowq_stopping', 'flowq_pass',
      'flowq_view', 'flowq_due', 'flowq_polls', 'flowq_pause_events', 'flowq_ends_as')
    if f[6] then
      redis.call('HDEL', key, 'flowq_supplanted')
      runs.count_supplanted(f[3], f[2], nil)
    end
    if f[3] then runs.count(f[3], f[2], nil, id, f[5]) end
    if f[4] then groups.count(f[4], f[2], nil) end
  end
  return f[1]
end

-- A future job that was skipped, and never ran, waits again; returns false where its hash is gone.
local function wait_again(future)
  local key = keys.job(future)
  local f = redis.call('HMGET', key, 'origin', 'flowq_run', 'flowq_name')
  if not f[1] then return false end
  redis.call('HSET', keys.future(future), 'state', 'released')
  redis.call('HDEL', keys.future(future), 'retired')
  redis.call('HSET', key, 'status', 'deferred', 'ended_at', '')
  redis.call('ZREM', PREFIX .. ':canceled:' .. f[1], future)
  redis.call('ZADD', PREFIX .. ':deferred:' .. f[1], '+inf', future)
  futures.watch(future, f[2])
  redis.call('PERSIST', key)
  keep_keys(future)
  redis.call('ZREM', TODO, 'retire:' .. future)
  if f[2] then runs.log(f[2], future, f[3], 'deferred', 'a blocker runs again') end
  return true
end

-- The edge from a job that runs again holds again; returns whether the future job waits again.
local function renew_edge(id, future)
  local s = redis.call('HMGET', keys.future(future), 'state', 'policy', 'decided')
  if s[3] then return false end
  local old = redis.call('HGET', keys.edges(future), id)
  local counts = UNDECIDED[s[1]] or s[1] == 'skipped' or s[1] == 'met' and futures.take_back(future)
  if not old or not counts then return false end
  log_unstuck(future)
  edges.move(future, id, old, string.sub(old, -1) == '!' and 'pending!' or 'pending', s[2])
  return s[1] == 'skipped' and wait_again(future)
end

-- A blocker that had ended starts again: its edges hold again, and a future job that was skipped
-- because of it, and never ran, waits again, with what was skipped below it.
function attempts.renew_edges(id)
  local work, first = { id }, 1
  while first <= #work do
    for future in each_future(forget_end(work[first])) do
      if renew_edge(work[first], future) then work[#work + 1] = future end
    end
    first = first + 1
  end
end

-- A job starts to be executed: its run is told, its slots are its own whoever queued it (but not while its
-- `if` has still to be judged), the edges of a blocker that had ended hold again, and a future job's keys
-- live as long as its hash does. `job` has its fields of ours by name, as the hash has them.
-- `told` is the word for it: "started", or "handed" for what a child gets with others, and begins later.
function attempts.begin(id, job, worker, told)
  if job.flowq_stopping then settling.forget_stop(id) end -- its worker died before
  if job.flowq_outcome then attempts.renew_edges(id) end
  if job.flowq_slots and job.flowq_judging ~= 'due' then
    slots.hold(id, job.flowq_slots)
    slots.spend(id, job.flowq_slots)
  end
  local state = job.flowq_future and redis.call('HGET', keys.future(id), 'state')
  if state and (state ~= 'queued' or job.flowq_outcome) then -- whoever has queued it
    redis.call('HSET', keys.future(id), 'state', 'queued')
    keep_keys(id)
  end
  if job.flowq_future and not job.flowq_outcome and int(job.flowq_attempts) == 0 then
    metrics.count_join(job.enqueued_at)
  end
  if not job.flowq_run then return end
  local event = runs.log_start(job.flowq_run, id, job.flowq_name, told, worker)
  runs.note_event(id, not job.flowq_outcome and job.flowq_pause_events, event)
end

-- A job starts to be executed. Runs inside RQ's transaction that writes STARTED.
-- ARGV   4 job id   5 name of the worker
-- Returns OK, or the text of an error; it never raises. Tells the run, and where the job had ended
-- before, its edges hold again.
function attempts.start(argv)
  local ok, answer = pcall(function()
    local id = argv[4]
    local f = redis.call('HMGET', keys.job(id), 'flowq_outcome', 'flowq_run', 'flowq_name',
      'flowq_future', 'flowq_slots', 'flowq_judging', 'flowq_stopping', 'flowq_pause_events',
      'flowq_attempts', 'enqueued_at')
    attempts.begin(id, { flowq_outcome = f[1], flowq_run = f[2], flowq_name = f[3], flowq_future = f[4],
      flowq_slots = f[5], flowq_judging = f[6], flowq_stopping = f[7],
      flowq_pause_events = f[8], flowq_attempts = f[9], enqueued_at = f[10] }, argv[5], 'started')
    if f[2] then redis.call('HINCRBY', keys.job(id), 'flowq_attempts', 1) end
    if slots.has_room_for_others() then settling.settle_all() end
    return redis.status_reply('OK')
  end)
  if ok then return answer end
  return text_of(answer)
end

-- A running job says something about itself, or about its group.
-- ARGV   4 job id   5 "skip" (it ends as skipped, neutrally), "stop" (its unstarted siblings do),
--        "note" (shown beside its end), "give" (it waits for its back-off, and gives its slots back),
--        "again" (it has been queued or scheduled to run again: in a run that is being canceled it
--        ends instead), or "call" (its command, with all values in it)   6 why, or the command
-- Idempotent. Returns OK.
function attempts.tell_about(argv)
  local id, what = argv[4], argv[5]
  local f = redis.call('HMGET', keys.job(id), 'flowq_group', 'flowq_slots', 'flowq_name')
  if what == 'skip' then redis.call('HSET', keys.job(id), 'flowq_pass', argv[6]) end
  if what == 'call' and redis.call('EXISTS', keys.job(id)) == 1 then
    redis.call('HSET', keys.job(id), 'description', argv[6])
  end
  if what == 'note' then redis.call('HSET', keys.job(id), 'flowq_reason', argv[6]) end
  if what == 'stop' and f[1] then groups.close(f[1], 'passed', f[3] .. ': ' .. argv[6]) end
  if what == 'again' then jobs.begin_again(id) end
  if what == 'give' and f[2] then slots.give(id, f[2]) end
  return settling.settle_all() or redis.status_reply('OK')
end

-- The execution that has the job; "" when it has none.
local function find_execution(id)
  return redis.call('ZRANGE', PREFIX .. ':executions:' .. id, -1, -1)[1] or ''
end

local function note_progress(worker, id, execution, queue, text)
  local key = keys.job(id)
  local f = redis.call('HMGET', key, 'status', 'flowq_run', 'flowq_name', 'flowq_progress_at')
  if f[1] ~= 'started' then return end
  if execution == '' then
    execution = find_execution(id)
  elseif not redis.call('ZSCORE', PREFIX .. ':wip:' .. queue, id .. ':' .. execution) then
    return
  end
  redis.call('HSET', key, 'flowq_progress', text, 'flowq_progress_of', execution)
  local event = f[2] and runs.log_progress(f[2], id, f[3], worker, text, f[4])
  if event then redis.call('HSET', key, 'flowq_progress_at', event) end
end

-- What jobs have reported of their progress.
-- ARGV   4 name of the worker that executes them, then for each: job, execution, queue, and the report as
--          JSON; execution and queue are "" where they are not known
-- It changes nothing about executions that have ended, or were taken away. Returns 1, or raises the last
-- problem after the other reports are written: what one job has done to its keys does not keep them.
function attempts.note_progress(argv)
  local failure
  for i = 5, #argv, 4 do
    local ok, problem = pcall(note_progress, argv[4], unpack(argv, i, i + 3))
    if not ok then failure = problem end
  end
  if failure then error(failure, 0) end
  return 1
end
