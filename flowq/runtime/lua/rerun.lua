-- rerun.lua: Runs jobs again: those of a run that is retried, and those of a workflow with `retries`.
--
-- The sorted set `rounds` has the joins of workflows that wait for their back-off (nested.lua), by the
-- instant. again:J has what to do with which job inside (`rerun.retry_run`), and J's future hash how far
-- that has come: again, let_go.

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
  attempts.renew_edges(job) -- what it blocks outside of the run is not held again, but waits again
  if f[6] then groups.reopen(f[6]) end
  deadlines.begin_again(job, f[7])
  redis.call('HINCRBY', key, 'flowq_gen', 1)
  approvals.forget_judging(job)
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
    redis.call('HDEL', keys.future(job), 'freed', 'dropped', 'recalled', 'retired', 'late', 'halted',
      'given_up', 'rested', 'supplanted')
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
  local f = redis.call('HMGET', keys.job(job), 'flowq_blocks', 'flowq_outcome', 'flowq_expands')
  for future, mark in each_future(f[1]) do
    local old = redis.call('HGET', keys.edges(future), job)
    local s = redis.call('HMGET', keys.future(future), 'state', 'policy', 'decided')
    if old and f[2] and s[1] == 'open' and not s[3] then
      local above = ancestors.find(job, f[2], futures.read_for_end(job))
      local outcome = firsts.is_one(s[2]) and firsts.at_edge(f[2], above, f[3]) or f[2]
      edges.move(future, job, old, outcome .. mark, s[2], above)
    end
  end
end

-- The job does not stand in front of the future job any more, as if it never had.
local function take_edge_away(future, job, expands)
  local old = redis.call('HGET', keys.edges(future), job)
  local s = redis.call('HMGET', keys.future(future), 'policy', 'decided')
  if not old or s[2] then return end
  edges.move(future, job, old, 'passed', s[1])
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
  if f[3] then groups.drop(run, job) end
  if f[2] and redis.call('EXISTS', keys.job(f[2])) == 0 then groups.drop(run, f[2]) end
  redis.call('HDEL', keys.unended(run), job)
  redis.call('LREM', OURS .. 'jobs:' .. run, -1, job)
  lifecycle.forget(job)
  runs.log(run, job, f[4] or nested.name_inside(job) or job, 'removed', 'it is made anew')
end

local DO_AGAIN = { ['+'] = hold_again, ['='] = tell_again, ['-'] = remove, ['*'] = groups.empty }

-- Does what an entry of such a list says.
local function do_again(entry, run, why)
  DO_AGAIN[string.sub(entry, 1, 1)](string.sub(entry, 2), run, why)
end

function rerun.run_again(run)
  local key, list = keys.run(run), OURS .. 'again:' .. run
  if redis.call('HGET', key, 'state') ~= 'retrying' then return true end
  local done = step.each_item(list, key, 'again', function(entry)
    do_again(entry, run, 'the run is retried')
  end)
  if not done then return false end
  redis.call('DEL', list)
  local who = redis.call('HMGET', key, 'retried_by', 'retried_job')
  redis.call('HDEL', key, 'again', 'retried_by', 'retried_job')
  redis.call('HSET', key, 'state', 'running')
  runs.watch(run)
  runs.list_queue(run)
  if redis.call('HEXISTS', key, 'held') == 1 then return true end -- it goes when its turn comes
  if who[1] then runs.log_act(run, '', '', 'running', '', 'retry', who[1], who[2])
  else runs.log(run, '', '', 'running') end
  later('run:' .. run)
  return true
end

function rerun.run_workflow(join)
  local key, list = keys.future(join), OURS .. 'again:' .. join
  local f = redis.call('HMGET', keys.job(join), 'flowq_run', 'flowq_outcome', 'flowq_timeout', 'flowq_inside')
  if not f[1] or f[2] then -- called off meanwhile
    redis.call('DEL', list)
    return true
  end
  local is_held = step.each_item(list, key, 'again', function(entry)
    do_again(entry, f[1], 'its workflow runs again')
  end)
  if not is_held then return false end
  local is_let_go = step.each_item(list, key, 'let_go', function(entry)
    if string.sub(entry, 1, 1) == '+' then release.begin(string.sub(entry, 2)) end
  end)
  if not is_let_go then return false end
  redis.call('DEL', list)
  redis.call('HDEL', key, 'again', 'let_go', 'late', 'halted')
  deadlines.begin_again(join, f[3])
  release.begin(join)
  deadlines.follow(join, f[4])
  return true
end

-- Nothing inside can run again: the workflow has failed after all.
function rerun.give_up(join)
  redis.call('ZREM', OURS .. 'rounds', join)
  if redis.call('HGET', keys.future(join), 'state') ~= 'open' then return true end
  redis.call('HSET', keys.future(join), 'state', 'released', 'given_up', 1)
  futures.decide(join, futures.read_for_decision(join))
  return true
end

-- Begins to run jobs of an ended run again; step.lua does the rest.
-- ARGV   4 run id   5 key of the list that says what to do with which job, last ones first:
--        "+<job>" runs again, "=<job>" keeps its result and tells it to the jobs that run again,
--        "-<job>" is removed, for somebody will add it again, and "*<group>" forgets its items
--        6 "1" when the run may have succeeded   7 who does that   8 the job that they named, or ""
-- One with a `concurrency` group lines up in it again, and is held until its turn comes.
-- Returns {1}, or {"state", state} if the state of the run does not allow it; then nothing is changed.
-- Idempotent: sent again after a lost reply it finds its list taken, and answers {1} again.
function rerun.retry_run(argv)
  local run, list = argv[4], argv[5]
  local key = keys.run(run)
  local state = redis.call('HGET', key, 'state')
  if state ~= 'failed' and state ~= 'canceled' and not (state == 'succeeded' and argv[6] == '1') then
    if state and redis.call('EXISTS', list) == 0 then return { 1 } end
    redis.call('DEL', list)
    return { 'state', state or 'gone' }
  end
  redis.call('RENAME', list, OURS .. 'again:' .. run)
  redis.call('PERSIST', OURS .. 'again:' .. run)
  local by = (argv[7] or '') ~= '' and argv[7]
  redis.call('HSET', key, 'state', 'retrying')
  runs.list_by_state(run, 'running')
  redis.call('HDEL', key, 'ended_at', 'canceling', 'canceled', 'resumed', 'released', 'again', 'held',
    'deadline_at', 'late', 'supplanted', 'retried_by', 'retried_job') -- older versions leave these
  redis.call('ZREM', OURS .. 'ended', run)
  local target = argv[8] or ''
  local goes_now = runs.join_concurrency(run, 'retry', by, target)
  if goes_now and by then redis.call('HSET', key, 'retried_by', by, 'retried_job', target) end
  later('again:' .. run)
  return { 1 }
end

-- Begins to run again what did not succeed inside of a workflow; step.lua does the rest.
-- ARGV   4 id of its join   5 key of the list that says what to do with which job, as in `retry_run`
-- Returns 1, or 0 when the join does not wait for that any more. Idempotent.
function rerun.retry_workflow(argv)
  local join, list = argv[4], argv[5]
  if not redis.call('ZSCORE', OURS .. 'rounds', join) then
    redis.call('DEL', list)
    return 0
  end
  redis.call('RENAME', list, OURS .. 'again:' .. join)
  redis.call('PERSIST', OURS .. 'again:' .. join)
  redis.call('ZREM', OURS .. 'rounds', join)
  local f = redis.call('HMGET', keys.job(join), 'flowq_run', 'flowq_name', 'flowq_round')
  if f[1] then runs.log(f[1], join, f[2], 'deferred', 'attempt ' .. int(f[3]) + 1) end
  later('round:' .. join)
  return 1
end
