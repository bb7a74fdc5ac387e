-- runs.lua: The record of a run: its events, its counts, its end, and its turn in a `concurrency` group.
--
-- Beside a run R: unended:R (what each job of it blocks that has not ended, by id; so a job whose hash
-- is gone can still be accounted for, once).

function runs.log(run, id, name, state, reason)
  return redis.call('XADD', OURS .. 'events:' .. run, '*', 'job', id, 'name', name or '',
    'state', state, 'reason', reason or '')
end

-- The same of what somebody has done: `act` is "approve", "reject", "cancel", "release" or "retry"; `by`
-- says who. `target`: what they named, if it is not the job of the event, nor the run itself.
function runs.log_act(run, id, name, state, reason, act, by, target)
  local fields = { 'job', id, 'name', name or '', 'state', state, 'reason', reason or '', 'act', act, 'by', by }
  if (target or '') ~= '' then
    fields[#fields + 1] = 'target'
    fields[#fields + 1] = target
  end
  return redis.call('XADD', OURS .. 'events:' .. run, '*', unpack(fields))
end

-- The same of an act that does not change the state of the run, told as an event of the run in the state
-- that it has: readers of all versions take that for what they know already.
function runs.log_act_only(run, reason, act, by, target)
  local f = redis.call('HMGET', keys.run(run), 'state', 'held')
  if not f[1] or runs.has_ended(f[1]) then return end
  local state = f[1] == 'staged' and f[1] or f[2] and 'waiting' or 'running'
  runs.log_act(run, '', '', state, reason, act, by, target)
end

-- The same of an execution that begins ("started"), or was handed to a child ("handed").
function runs.log_start(run, id, name, state, worker)
  return redis.call('XADD', OURS .. 'events:' .. run, '*', 'job', id, 'name', name or '', 'state', state,
    'worker', worker)
end

-- Another event about a job that has paused (pauses.lua), which its next pause replaces. `before` are
-- those that are known: its field `flowq_pause_events`, nil for a job that has not paused.
function runs.note_event(id, before, event)
  if before then redis.call('HSET', keys.job(id), 'flowq_pause_events', before .. ' ' .. event) end
end

-- Removes events that others replace. User code can write any field of its job, so these may be no ids.
function runs.forget(run, events)
  for event in string.gmatch(events, '%S+') do redis.pcall('XDEL', OURS .. 'events:' .. run, event) end
end

-- What a job has reported of its progress, instead of what it had reported before (the event `before`).
-- Readers of older versions take it for an execution that is told again. Returns the event, or nil when
-- the run is removed. `before` may be no id: user code can write any field of its job.
function runs.log_progress(run, id, name, worker, text, before)
  local key = OURS .. 'events:' .. run
  runs.forget(run, before or '')
  return redis.call('XADD', key, 'NOMKSTREAM', '*', 'job', id, 'name', name or '', 'state', 'started',
    'worker', worker, 'progress', text)
end

-- The same of an execution that has ended: when it began (as RQ writes instants), and how many
-- milliseconds it took, where that is known. The event itself has the instant of its batch.
-- `failure`: {error, exit_code or ""} of one that has failed, where that is known.
function runs.log_end(run, id, name, state, reason, began_at, took_ms, failure)
  if failure then
    redis.call('XADD', OURS .. 'events:' .. run, '*', 'job', id, 'name', name or '', 'state', state,
      'reason', reason or '', 'began_at', began_at, 'took_ms', took_ms, 'error', failure[1],
      'exit_code', failure[2])
    return
  end
  redis.call('XADD', OURS .. 'events:' .. run, '*', 'job', id, 'name', name or '', 'state', state,
    'reason', reason or '', 'began_at', began_at, 'took_ms', took_ms)
end

-- The name of a job of the run by its id; those of items and inner jobs are others.
function runs.name_of(id, run)
  local prefix = run .. '-'
  return string.sub(id, 1, #prefix) == prefix and string.sub(id, #prefix + 1) or id
end

local COUNTS_AGAINST = { failed = 1, stopped = 1, canceled = 1, expired = 1, deleted = 1 }

local function concurrency_key(run)
  local group = redis.call('HGET', keys.run(run), 'concurrency')
  return group and OURS .. 'concurrency:' .. group
end

local GOES_ON = { running = true, retrying = true }

-- Yields the runs of a group in their order: place from 0, id, held, limit. What is there no more is taken
-- out, and does not keep the others.
local function each_in_line(list)
  local at = 0
  return function()
    while true do
      local run = redis.call('LINDEX', list, at)
      if not run then return nil end
      local f = redis.call('HMGET', keys.run(run), 'state', 'held', 'concurrency_limit')
      if GOES_ON[f[1]] then
        at = at + 1
        return at - 1, run, f[2], tonumber(f[3] or nil) or 1
      end
      redis.call('LREM', list, at > 0 and -1 or 1, run)
    end
  end
end

-- Lets the runs at the front of the group go that still wait, as many as may. Nobody overtakes: a run goes
-- if fewer than its limit are before it, and all of these go.
local function let_first_go(list)
  for place, run, held, limit in each_in_line(list) do
    if held == 'turn' then
      if place >= limit then return end
      redis.call('HDEL', keys.run(run), 'held')
      runs.log(run, '', '', 'running')
      later('run:' .. run)
    end
  end
end

-- The run lines up in its group of runs, because of what somebody has done (to `target`), where `by` is
-- given; returns false when others go first.
function runs.join_concurrency(run, act, by, target)
  local list = concurrency_key(run)
  if not list then return true end
  redis.call('LREM', list, 0, run)
  redis.call('RPUSH', list, run)
  local before
  for place, other, held, limit in each_in_line(list) do
    if other == run and place < limit then return true end
    before = before or other
    if other == run or held == 'turn' then break end
  end
  redis.call('HSET', keys.run(run), 'held', 'turn')
  local reason = 'run ' .. before .. ' of the same `concurrency` group goes first'
  if by then runs.log_act(run, '', '', 'waiting', reason, act, by, target)
  else runs.log(run, '', '', 'waiting', reason) end
  return false
end

-- The run has ended, or is removed: the next one of its group of runs may go.
function runs.leave_concurrency(run)
  local list = concurrency_key(run)
  if not list then return end
  redis.call('LREM', list, 0, run)
  let_first_go(list)
end

-- A run that goes first in its group may be gone without having left it.
function runs.check_turn(run)
  if redis.call('HGET', keys.run(run), 'held') == 'turn' then let_first_go(concurrency_key(run)) end
end

-- Whether a job of the run must not begin any more, nor begin anew: the run is being canceled. Jobs that
-- are to run nevertheless (`always`) do, and are retried, unless the cancel is one for all. Whatever
-- queues a job of a run, or takes it from its queue, asks this. What somebody requeues by hand once the
-- run has ended does run.
function runs.is_canceling(run, always)
  local f = redis.call('HMGET', keys.run(run), 'canceling', 'ended_at', 'resumed')
  return f[1] and not f[2] and not f[3] and (f[1] == 'now' or not always)
end

-- Why a job of a canceled run is called off.
function runs.why_canceled(run)
  local late = redis.call('HGET', keys.run(run), 'late')
  return late and 'the run ' .. late or 'the run was canceled'
end

-- RQ's tools list the queue that a run has for itself, but not once the run has ended.
function runs.list_queue(run)
  local queue = redis.call('HGET', keys.run(run), 'queue')
  if queue then redis.call('SADD', PREFIX .. ':queues', PREFIX .. ':queue:' .. queue) end
end

-- The job that was to evaluate the outputs at an earlier end, and has not begun.
local function drop_outputs_job(id)
  local f = redis.call('HMGET', keys.job(id), 'status', 'origin')
  if f[1] ~= 'queued' then return end
  redis.call('LREM', PREFIX .. ':queue:' .. f[2], 1, id)
  redis.call('DEL', keys.job(id))
end

-- A job that is no part of the run evaluates its outputs (flowq/runtime/outputs.py), on the queue of
-- the job `beside`, or on the one that the run has for itself. The number behind its id says which end
-- of the run it is for: a retry ends the run once more.
local function ask_for_outputs(run, key, call, beside, own_queue)
  local queue = own_queue or redis.call('HGET', keys.job(beside), 'origin') or 'default'
  local earlier = redis.call('HGET', key, 'outputs_job')
  if earlier then drop_outputs_job(earlier) end
  local id = 'flowq-outputs-' .. run .. '-' .. redis.call('HINCRBY', key, 'ends', 1)
  redis.call('HSET', key, 'outputs_job', id)
  redis.call('HSET', keys.job(id), 'status', 'queued', 'origin', queue, 'data', call,
    'description', 'outputs of run ' .. run, 'created_at', NOW, 'enqueued_at', NOW,
    'timeout', 300, 'result_ttl', 0, 'failure_ttl', WEEK_S)
  redis.call('LPUSH', PREFIX .. ':queue:' .. queue, id) -- somebody waits for them
end

runs.STATES = { 'staged', 'running', 'succeeded', 'failed', 'canceled' }

function runs.has_ended(state) return state == 'succeeded' or state == 'failed' or state == 'canceled' end

-- The run is in this state from now on, or removed (nil): runs are listed, and counted, by their states.
function runs.list_by_state(run, state)
  for _, other in ipairs(runs.STATES) do
    if other ~= state then redis.call('ZREM', OURS .. 'runs_in:' .. other, run) end
  end
  local submitted = state and redis.call('ZSCORE', OURS .. 'runs', run)
  if submitted then redis.call('ZADD', OURS .. 'runs_in:' .. state, submitted, run) end
end

local function end_if_done(run)
  local key = keys.run(run)
  local fields = redis.call('HMGET', key, 'left', 'bad', 'state', 'canceling', 'retention_s', 'queue',
    'outputs_call', 'outputs_beside', 'late', 'supplanted')
  if fields[3] ~= 'running' or int(fields[1]) > 0 then return end
  local bad = int(fields[2])
  local is_canceled = fields[4] or bad <= int(fields[10])
  local state = bad > 0 and (is_canceled and 'canceled' or 'failed') or 'succeeded'
  redis.call('HSET', key, 'state', state, 'ended_at', NOW)
  runs.list_by_state(run, state)
  metrics.add('run:' .. state)
  runs.log(run, '', '', state, state == 'canceled' and fields[9] or nil)
  redis.call('ZREM', OURS .. 'deadlines', run)
  redis.call('ZADD', OURS .. 'ended', TS + int(fields[5]), run)
  redis.call('ZREM', OURS .. 'watched', run)
  if fields[6] then redis.call('SREM', PREFIX .. ':queues', PREFIX .. ':queue:' .. fields[6]) end
  if fields[7] then ask_for_outputs(run, key, fields[7], fields[8], fields[6]) end
  runs.leave_concurrency(run)
end

function runs.note_unended(run, id)
  local blocks = redis.call('HGET', keys.job(id), 'flowq_blocks')
  redis.call('HSET', keys.unended(run), id, blocks or '')
end

-- Keeps the counts of a run over one transition of one of its jobs; nil means "has not ended".
-- `ends_as`: see runs.count_bad.
function runs.count(run, before, after, id, ends_as)
  local key = keys.run(run)
  if redis.call('EXISTS', key) == 0 then return end
  local ended, left = (after and 1 or 0) - (before and 1 or 0), 0
  if ended ~= 0 then left = redis.call('HINCRBY', key, 'left', -ended) end
  if ended > 0 then redis.call('HDEL', keys.unended(run), id) end
  if ended < 0 then runs.note_unended(run, id) end
  runs.count_bad(run, id, before, after, ends_as)
  if left > 0 and ended > 0 then return end
  if ended < 0 and redis.call('ZREM', OURS .. 'ended', run) == 1 then
    redis.call('HSET', key, 'state', 'running', 'resumed', 1) -- by hand, so a cancel is over
    runs.list_by_state(run, 'running')
    runs.watch(run)
    redis.call('HDEL', key, 'ended_at')
    runs.log(run, '', '', 'running')
    runs.list_queue(run)
    local list = concurrency_key(run) -- it goes on at once, and those that wait wait for it as well
    if list then redis.call('LPUSH', list, run) end
  end
  end_if_done(run)
end

-- Counts a job that has made way for a newer one (holders.lua): its run is canceled, and has not failed.
function runs.count_supplanted(run, before, after)
  local change = (COUNTS_AGAINST[after] or 0) - (COUNTS_AGAINST[before] or 0)
  if change ~= 0 then redis.call('HINCRBY', keys.run(run), 'supplanted', change) end
end

-- Counts a job against its run, or not any more; but not through a join that is tolerated, or was not
-- needed any more (`ends_as`, firsts.lua).
function runs.count_bad(run, id, before, after, ends_as)
  local bad = (COUNTS_AGAINST[after] or 0) - (COUNTS_AGAINST[before] or 0)
  local was_forgiven = before == 'tolerated' or ends_as and before == 'passed'
  local is_forgiven = after == 'tolerated' or ends_as and after == 'passed'
  if before ~= after and (was_forgiven or is_forgiven) then
    local hurt = int(redis.call('HGET', keys.future(id), 'hurt'))
    bad = bad + (was_forgiven and hurt or -hurt)
  end
  if bad == 0 then return end
  local inside = nested.find_inside(id)
  while inside do
    local f = redis.call('HMGET', keys.job(inside), 'flowq_nested', 'flowq_outcome', 'flowq_inside')
    if not f[1] then break end
    redis.call('HINCRBY', keys.future(inside), 'hurt', bad)
    if f[2] == 'tolerated' or f[2] == 'passed' then return end
    inside = f[3]
  end
  redis.call('HINCRBY', keys.run(run), 'bad', bad)
end

runs.WATCH_S = 30 -- how soon, and how often, maintenance looks for what ended unnoticed

-- From here on it looks at the jobs of the run.
function runs.watch(run) redis.call('ZADD', OURS .. 'watched', 'NX', TS + runs.WATCH_S, run) end

-- Ends a canceled run none of whose jobs is left, also where others have counted, who know less.
function runs.end_without_jobs(run)
  local f = redis.call('HMGET', keys.run(run), 'left', 'bad', 'canceling')
  if redis.call('EXISTS', keys.unended(run)) == 1 or not f[3] then return end
  if int(f[1]) > 0 then redis.call('HSET', keys.run(run), 'left', 0, 'bad', int(f[2]) + 1) end
  end_if_done(run)
end

local CLAIM_TTL_S = 30 * 86400

-- Makes a staged run real; from here on any process can finish its releases.
-- One whose `concurrency` group has another run already is held until its turn comes.
-- ARGV   4 run id   5 "hold" to release nothing yet, "go" to release what was held by "hold", else ""
--        6 who does that, for "go"
-- Returns 1 for the call that did it, 0 when it was done before, -1 when there is no such run any
-- more (its submitter took longer than its lease, and it was removed), -2 for the "go" of one that
-- waits for its turn, -3 when another run has the same claim: the due time of a schedule. Idempotent.
function runs.commit(argv)
  local run, mode = argv[4], argv[5]
  local key = keys.run(run)
  local f = redis.call('HMGET', key, 'state', 'held')
  local state, held = f[1], f[2]
  if not state or state == 'purging' then return -1 end
  if state ~= 'staged' and not (mode == 'go' and held) then return 0 end
  if held == 'turn' then return -2 end
  if state == 'staged' then
    local claim = redis.call('HGET', key, 'claim')
    if claim and not redis.call('SET', OURS .. 'due:' .. claim, run, 'NX', 'EX', CLAIM_TTL_S) then return -3 end
    redis.call('HSET', key, 'state', 'running', 'committed_at', NOW)
    runs.list_by_state(run, 'running')
    redis.call('ZREM', OURS .. 'staged', run)
    runs.watch(run)
  end
  if mode == 'hold' then
    redis.call('HSET', key, 'held', 'hand')
    runs.log(run, '', '', 'waiting', 'it is held')
    return 1
  end
  redis.call('HDEL', key, 'held')
  local by = mode == 'go' and (argv[6] or '') ~= '' and argv[6]
  if not runs.join_concurrency(run, 'release', by) then return 1 end
  if by then runs.log_act(run, '', '', 'running', '', 'release', by) else runs.log(run, '', '', 'running') end
  later('run:' .. run)
  return 1
end

-- Somebody cancels a run: from here on none of its jobs begins, but those that run in a canceled run too.
-- lifecycle.cancel calls them off.
-- ARGV   4 run id   5 "now" if these do not run either, else ""   6 who does that
-- Returns 1, or the state of a run that has ended; then nothing is changed. Idempotent.
function runs.begin_cancel(argv)
  local run, key = argv[4], keys.run(argv[4])
  local f = redis.call('HMGET', key, 'state', 'held', 'canceling', 'resumed')
  if not f[1] or runs.has_ended(f[1]) then return f[1] or 'gone' end
  local how = (argv[5] == 'now' or f[2]) and 'now' or f[3] or '1'
  redis.call('HSET', key, 'canceling', how)
  redis.call('HDEL', key, 'canceled', 'resumed', 'unattended') -- what is left of an earlier one
  local is_news = how ~= f[3] or f[4]
  if is_news and argv[6] ~= '' then runs.log_act_only(run, '', 'cancel', argv[6]) end
  return 1
end

-- Whether a job of a run must not begin any more, nor begin anew. It changes nothing.
-- ARGV   4 run   5 flowq_always of the job, or ""
-- Returns 1 or 0.
function runs.is_called_off(argv)
  return runs.is_canceling(argv[4], argv[5] ~= '') and 1 or 0
end
