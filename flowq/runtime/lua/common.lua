-- common.lua: put in front of every other script of this folder.
--
-- ARGV   1 key prefix of RQ ("rq")   2 now, as RQ writes instants   3 now, in epoch seconds
-- Each script documents the rest of its ARGV, which starts at 4. KEYS[1] only names the slot: in a
-- cluster all keys share one hash tag (RQ_KEY_PREFIX).
--
-- Fields of ours in a job's hash; nothing but these scripts writes them:
--   flowq_blocks   the future jobs that it blocks, "a b! c"; "!" = a failure here is ignored
--   flowq_gates    how many of them have not been released yet
--   flowq_future   "1" for a future job
--   flowq_outcome  how its last attempt ended; absent while it has not ended
--   flowq_gen      its generation; a settling from an older one changes nothing
--   flowq_at       epoch seconds before which it must not be queued
--   flowq_reason   why it was called off
--   flowq_missing  since when it is queued, but on no queue
--   flowq_late     "1" for a future job that joined a run after its commit
--   flowq_loose    "1" for an item that blocks nothing, once a retry has to queue it
--   flowq_retries  how many retries it was declared with, for when its run is retried
--   flowq_run, flowq_name    the run that it belongs to, and its name there
--   and those of groups.lua
--
-- A future's hash: state, policy (wait|skip|run), if_empty (run|skip), total, pending, bad, lost
-- (edges, by class), culprit (the last edge of bad or lost, and its outcome); cascade ("1" when
-- its release goes on to its blockers); and how far the steps have come with its blockers: freed
-- (without this gate), dropped, recalled, retired, watched.
--   open → releasing → released → met → queued → <outcome of the job>
-- It is undecided up to `released`. `met`: only RQ's own depends_on, a slot or an approval holds it.

local PREFIX, NOW, TS = ARGV[1], ARGV[2], tonumber(ARGV[3])
local OURS = PREFIX .. ':flowq:1:'
local TODO = OURS .. 'todo'
local WEEK_S = 604800
local CASCADE_LIMIT = 500
local UNDECIDED = { open = true, releasing = true, released = true }
local CALLED_OFF = { canceled = true, skipped = true, passed = true, deleted = true, expired = true }

local function job_key(id) return PREFIX .. ':job:' .. id end
local function blockers_key(id) return PREFIX .. ':deferred:' .. id end
local function future_key(id) return OURS .. 'future:' .. id end
local function edges_key(id) return OURS .. 'edges:' .. id end
local function mortal_key(id) return OURS .. 'mortal:' .. id end
local function run_key(id) return OURS .. 'run:' .. id end

local function int(value) return tonumber(value or 0) or 0 end

local function each_future(blocks) return string.gmatch(blocks or '', '([%w_-]+)(!?)') end

local function text_of(problem)
  return tostring(type(problem) == 'table' and problem.err or problem)
end

-- Of groups.lua, which stands behind this file.
local take_slots, hold_slots, give_slots, leave_turn, judge, count_in_group, end_in_group, reopen_group
local must_ask, keep_loose, drop_loose

local begun = {} -- what this call has put on the todo

local function later(operation)
  if redis.call('ZADD', TODO, 'NX', TS, operation) == 1 then begun[#begun + 1] = operation end
end

-- Runs ------------------------------------------------------------------------------------------

local function log(run, id, name, state, reason)
  redis.call('XADD', OURS .. 'events:' .. run, '*', 'job', id, 'name', name or '',
    'state', state, 'reason', reason or '')
end

local COUNTS_AGAINST = { failed = 1, stopped = 1, canceled = 1, expired = 1, deleted = 1 }

-- The run has ended, or is removed: the next one of its group of runs may go.
local function leave_concurrency(run)
  local group = redis.call('HGET', run_key(run), 'concurrency')
  if not group then return end
  local list = OURS .. 'concurrency:' .. group
  redis.call('LREM', list, 0, run)
  local first = redis.call('LINDEX', list, 0)
  if first and redis.call('HDEL', run_key(first), 'held') == 1 then
    log(first, '', '', 'running')
    later('run:' .. first)
  end
end

local function end_run_if_done(run)
  local key = run_key(run)
  local fields = redis.call('HMGET', key, 'left', 'bad', 'state', 'canceling', 'retention_s')
  if fields[3] ~= 'running' or int(fields[1]) > 0 then return end
  local state = int(fields[2]) > 0 and (fields[4] and 'canceled' or 'failed') or 'succeeded'
  redis.call('HSET', key, 'state', state, 'ended_at', NOW)
  log(run, '', '', state)
  redis.call('ZADD', OURS .. 'ended', TS + int(fields[5]), run)
  leave_concurrency(run)
end

-- Keeps the counts of a run over one transition of one of its jobs; nil means "has not ended".
local function count_in_run(run, before, after)
  local key = run_key(run)
  if redis.call('EXISTS', key) == 0 then return end
  local ended = (after and 1 or 0) - (before and 1 or 0)
  local bad = (COUNTS_AGAINST[after] or 0) - (COUNTS_AGAINST[before] or 0)
  if ended ~= 0 then redis.call('HINCRBY', key, 'left', -ended) end
  if bad ~= 0 then redis.call('HINCRBY', key, 'bad', bad) end
  if ended < 0 and redis.call('ZREM', OURS .. 'ended', run) == 1 then
    redis.call('HSET', key, 'state', 'running')
    redis.call('HDEL', key, 'ended_at')
    log(run, '', '', 'running')
  end
  end_run_if_done(run)
end

-- Queueing --------------------------------------------------------------------------------------

-- RQ's rule for depends_on: a deleted dependency is met, a failed one when failures are allowed.
local function unmet_dependencies(dependency_ids, allow_failures)
  local all, unmet = cjson.decode(dependency_ids), false
  for _, id in ipairs(all) do
    local status = redis.call('HGET', job_key(id), 'status')
    if status and status ~= 'finished' and not (status == 'failed' and allow_failures == '1') then
      unmet = true
    end
  end
  return unmet and all
end

-- Makes a job QUEUED that has none of our other holds left; returns false when no slot is free, or
-- RQ's depends_on still holds it: it is entered in RQ's dependents sets now, and RQ queues it.
local function enqueue(id)
  local key = job_key(id)
  local f = redis.call('HMGET', key, 'origin', 'dependency_ids', 'allow_dependency_failures',
    'enqueue_at_front', 'flowq_at', 'ttl', 'flowq_run', 'flowq_name', 'flowq_blocks',
    'flowq_future', 'flowq_slots')
  local queue, ttl = f[1], int(f[6])
  if ttl > 0 then
    -- Its hash may expire before it is started; what that means to others has to outlive it.
    redis.call('SET', mortal_key(id), cjson.encode({ f[9], f[10], f[7], f[8] }), 'EX', ttl + WEEK_S)
  end
  local unmet = f[2] and unmet_dependencies(f[2], f[3])
  if unmet then
    for _, dependency in ipairs(unmet) do
      redis.call('SADD', job_key(dependency) .. ':dependents', id)
      redis.call('SADD', PREFIX .. ':job::' .. id .. ':dependencies', dependency)
    end
    return false
  end
  if f[11] and not take_slots(id, f[11]) then return false end
  redis.call('ZREM', PREFIX .. ':deferred:' .. queue, id)
  local state = 'queued'
  if f[5] and tonumber(f[5]) > TS then
    state = 'scheduled'
    redis.call('HSET', key, 'status', state)
    redis.call('ZADD', PREFIX .. ':scheduled:' .. queue, f[5], id)
  else
    redis.call('HSET', key, 'status', state, 'enqueued_at', NOW)
    redis.call(f[4] == '1' and 'LPUSH' or 'RPUSH', PREFIX .. ':queue:' .. queue, id)
  end
  if ttl > 0 then redis.call('EXPIRE', key, ttl) end
  if f[7] then log(f[7], id, f[8], state) end
  return true
end

-- Settling --------------------------------------------------------------------------------------

-- Which of a future's counts an edge's outcome belongs to; nil when it does not hold.
local function class_of(outcome, policy)
  if outcome == 'pending' or outcome == 'pending!' then return 'pending' end
  if string.sub(outcome, -1) == '!' then return nil end
  if outcome == 'finished' or outcome == 'passed' or outcome == 'tolerated' then return nil end
  if outcome == 'expired' then return 'lost' end
  if outcome == 'deleted' and policy == 'wait' then return nil end
  return 'bad'
end

local ends, first_end = {}, 1 -- jobs whose end has to be told to what they block: {id, outcome}

local function will_settle(id, outcome, reason) ends[#ends + 1] = { id, outcome, reason } end

local REGISTRY_BY_STATUS = { deferred = ':deferred:', scheduled = ':scheduled:',
  ready_to_enqueue = ':ready:' }

-- Ends a job that never ran: RQ's status is canceled (it has no other word), ours says why.
local function call_off(id, outcome, reason)
  local key = job_key(id)
  local f = redis.call('HMGET', key, 'origin', 'status')
  if not f[1] or f[2] == 'canceled' then return end
  local queue = f[1]
  if f[2] == 'queued' then redis.call('LREM', PREFIX .. ':queue:' .. queue, 1, id) end
  local registry = REGISTRY_BY_STATUS[f[2]]
  if registry then redis.call('ZREM', PREFIX .. registry .. queue, id) end
  redis.call('HSET', key, 'status', 'canceled', 'ended_at', NOW, 'flowq_reason', reason or '')
  redis.call('ZADD', PREFIX .. ':canceled:' .. queue, TS, id)
  will_settle(id, outcome, reason)
end

-- Says why a future job is skipped: its last blocker that did not succeed, by name, and how.
local function blame(culprit)
  local id, outcome = string.match(culprit or '', '^(%S+) (%S+)$')
  if not id then return 'a blocker did not succeed' end
  local name = redis.call('HGET', job_key(id), 'flowq_name') or id
  if outcome == 'failed' or outcome == 'expired' then return name .. ' ' .. outcome end
  return name .. ' was ' .. outcome
end

-- Looks whether a released future job can be queued, or never will be.
local function decide(id)
  local key = future_key(id)
  local f = redis.call('HMGET', key, 'state', 'policy', 'pending', 'bad', 'lost', 'total', 'if_empty',
    'culprit')
  if f[1] ~= 'released' or int(f[3]) > 0 then return end
  if int(f[6]) == 0 and f[7] == 'skip' then return call_off(id, 'passed', 'it has no blockers') end
  local bad, lost = int(f[4]), int(f[5])
  if f[2] == 'wait' and lost > 0 then return call_off(id, 'skipped', blame(f[8])) end
  if f[2] == 'wait' and bad > 0 then return end
  if f[2] == 'skip' and bad + lost > 0 then return call_off(id, 'skipped', blame(f[8])) end
  local job = redis.call('HMGET', job_key(id), 'status', 'flowq_gates')
  if job[1] ~= 'deferred' or int(job[2]) > 0 then return end
  redis.call('HSET', key, 'state', not must_ask(id) and enqueue(id) and 'queued' or 'met')
  redis.call('ZREM', OURS .. 'watched', id)
end

-- Queues a job when the hold that was just lifted was its last one.
local function lift(id)
  local f = redis.call('HMGET', job_key(id), 'status', 'flowq_gates', 'flowq_future')
  if f[1] ~= 'deferred' or int(f[2]) > 0 then return end
  if f[3] then return decide(id) end
  enqueue(id)
end

local function move_edge(future, blocker, old, new, policy)
  local before, after = class_of(old, policy), class_of(new, policy)
  if before ~= after then
    if before then redis.call('HINCRBY', future_key(future), before, -1) end
    if after then redis.call('HINCRBY', future_key(future), after, 1) end
    if after == 'bad' or after == 'lost' then
      redis.call('HSET', future_key(future), 'culprit', blocker .. ' ' .. new)
    elseif before == 'bad' or before == 'lost' then
      redis.call('HDEL', future_key(future), 'culprit')
    end
  end
  redis.call('HSET', edges_key(future), blocker, new)
end

-- Only RQ's depends_on held it: it is taken out of RQ's hands again, and waits for us. Returns false
-- when RQ is queueing it already.
local function take_back(future)
  if redis.call('HGET', job_key(future), 'status') ~= 'deferred' then return false end
  local ids = redis.call('HGET', job_key(future), 'dependency_ids')
  for _, dependency in ipairs(cjson.decode(ids or '[]')) do
    redis.call('SREM', job_key(dependency) .. ':dependents', future)
  end
  redis.call('DEL', PREFIX .. ':job::' .. future .. ':dependencies')
  leave_turn(future, redis.call('HGET', job_key(future), 'flowq_slots'))
  redis.call('HSET', future_key(future), 'state', 'released')
  return true
end

-- The last outcome before the decision counts, each blocker at most once; then it is frozen.
local function settle_edge(future, blocker, outcome)
  local f = redis.call('HMGET', future_key(future), 'state', 'policy')
  if not UNDECIDED[f[1]] and f[1] ~= 'met' then return end
  local old = redis.call('HGET', edges_key(future), blocker)
  if not old then return end
  local mark = string.sub(old, -1) == '!' and '!' or ''
  if f[1] == 'met' and not take_back(future) then return end
  move_edge(future, blocker, old, outcome .. mark, f[2])
  decide(future)
end

-- Whether a future job that it blocks has not ended, so that how it ended may still be asked.
local function is_wanted(blocks)
  for future in each_future(blocks) do
    local state = redis.call('HGET', future_key(future), 'state')
    if UNDECIDED[state] or state == 'met' or state == 'queued' then return true end
  end
  return false
end

-- Whether a step to come looks at the blockers of one of these future jobs anyway.
local function will_retire(blocks)
  for future in each_future(blocks) do
    if redis.call('ZSCORE', TODO, 'retire:' .. future) then return true end
  end
  return false
end

local function end_future(id, outcome, run)
  local key = future_key(id)
  local f = redis.call('HMGET', key, 'state', 'freed')
  if not f[1] then return end
  redis.call('HSET', key, 'state', outcome)
  redis.call('ZREM', OURS .. 'expiring', id)
  redis.call('ZREM', OURS .. 'watched', id)
  if CALLED_OFF[outcome] then
    redis.call('ZREM', TODO, 'free:' .. id)
    if redis.call('LLEN', blockers_key(id)) > int(f[2]) then later('abandon:' .. id) end
  end
  if not run then later('retire:' .. id) end
end

-- What settling has to know about a job, also about one whose hash has expired.
local function facts_of(id)
  local f = redis.call('HMGET', job_key(id), 'origin', 'flowq_blocks', 'flowq_future', 'flowq_run',
    'flowq_name', 'flowq_outcome', 'flowq_group', 'flowq_slots', 'flowq_expands', 'flowq_tolerate',
    'flowq_pass', 'flowq_adds')
  if f[1] then
    return { exists = true, blocks = f[2], future = f[3], run = f[4], name = f[5], before = f[6],
      group = f[7], slots = f[8], expands = f[9], tolerate = f[10], pass = f[11], adds = f[12] }
  end
  local m = cjson.decode(redis.call('GET', mortal_key(id)) or '[]')
  return { blocks = m[1], future = m[2], run = m[3], name = m[4], before = m[5] }
end

local settle

-- What a run has to know before the future jobs that the job blocks hear of its end.
local function settle_in_run(id, job, outcome, reason)
  if job.before ~= outcome then
    reason = reason or redis.call('HGET', job_key(id), 'flowq_reason')
    local shown = outcome == 'passed' and 'skipped' or outcome == 'tolerated' and 'failed' or outcome
    log(job.run, id, job.name, shown, reason)
  end
  if job.group or job.expands then
    for _, other in ipairs(end_in_group(id, job, job.before, outcome)) do
      settle(other, 'failed', 'more than are tolerated')
    end
  end
  if job.adds and outcome ~= 'finished' then later('strand:' .. id) end
  count_in_run(job.run, job.before, outcome)
end

function settle(id, outcome, reason)
  local job = facts_of(id)
  local blocks, future, run, before = job.blocks, job.future, job.run, job.before
  if outcome == 'deleted' and CALLED_OFF[before] and job.exists then
    redis.call('ZREM', OURS .. 'forgotten', id .. ' ' .. redis.call('HGET', job_key(id), 'origin'))
  end
  if outcome == 'deleted' and (before == 'finished' or before == 'passed') then outcome = before end
  if run then outcome, reason = judge(id, job, outcome, reason) end
  if job.exists then redis.call('HSET', job_key(id), 'flowq_outcome', outcome) end
  if outcome ~= 'failed' and outcome ~= 'stopped' then
    redis.call('DEL', mortal_key(id))
  elseif job.exists and redis.call('EXISTS', mortal_key(id)) == 1 then -- it may be requeued, and expire
    local facts = { blocks or false, future or false, run or false, job.name or false, outcome }
    redis.call('SET', mortal_key(id), cjson.encode(facts), 'KEEPTTL')
  end
  if outcome == 'expired' then redis.call('DEL', PREFIX .. ':job::' .. id .. ':dependencies') end
  if run then settle_in_run(id, job, outcome, reason) end
  if run and not blocks and not future then drop_loose(run, id) end
  if future then end_future(id, outcome, run) end
  for target in each_future(blocks) do settle_edge(target, id, outcome) end
  if job.slots then give_slots(id, job.slots) end
  if run or outcome == 'deleted' or outcome == 'expired' then return end
  -- RQ sees to the others; a hash that a success makes anew after a delete has lost what it blocks.
  local is_ours = blocks or CALLED_OFF[outcome] or not job.exists
  if is_ours and not is_wanted(blocks) and not will_retire(blocks) then later('expire:' .. id) end
end

-- Tells the ends that are known to what they hold, and those that follow from it. A long cascade
-- is cut: what is left is picked up from the todo, and so is what fails. Never raises; returns the
-- text of the first failure.
local function settle_all()
  local count, failure = 0, nil
  while first_end <= #ends do
    local item = ends[first_end]
    first_end = first_end + 1
    count = count + 1
    local ok, problem = true, nil
    if count <= CASCADE_LIMIT then ok, problem = pcall(settle, unpack(item)) end
    if count > CASCADE_LIMIT or not ok then
      pcall(later, 'end:' .. item[1] .. ':' .. item[2])
    end
    if not ok then failure = failure or text_of(problem) end
  end
  return failure
end
