-- futures.lua: Decides when future jobs start, and knows whether anybody waits for them.

-- Says why a future job is skipped: its last blocker that did not succeed, by name, and how.
function futures.describe_culprit(future, culprit)
  local id, outcome = string.match(culprit or '', '^(%S+) (%S+)$')
  if not id then return 'a job before it did not succeed' end
  local why = nested.why_not_begun(future, id)
  if why then return why end
  local name = nested.public_name(redis.call('HGET', keys.job(id), 'flowq_name') or id)
  if outcome == 'failed' or outcome == 'expired' then return name .. ' ' .. outcome end
  return name .. ' was ' .. outcome
end

-- Says in its run that a job waits for blockers none of which will succeed by itself any more.
local function log_stuck(id, culprit)
  local f = redis.call('HMGET', keys.job(id), 'flowq_run', 'flowq_name', 'status')
  if not f[1] or f[3] ~= 'deferred' then return end
  local why = culprit and ': ' .. futures.describe_culprit(id, culprit) or ''
  runs.log(f[1], id, f[2], 'deferred', 'waits for a blocker to succeed' .. why)
end

-- Whether a future job waits for a blocker to succeed that has failed.
function futures.is_stuck(id)
  local f = redis.call('HMGET', keys.future(id), 'state', 'policy', 'pending', 'bad')
  return f[1] == 'released' and f[2] == 'wait' and int(f[3]) == 0 and int(f[4]) > 0
end

-- Whether the run of a job is being canceled, or the workflow that it is inside of is late: then nothing
-- waits for what would have to be run again.
local function is_ending(id)
  local f = redis.call('HMGET', keys.job(id), 'flowq_run', 'flowq_inside')
  return f[1] and runs.is_canceling(f[1]) or nested.why_late_inside(f[2])
end

local DECIDING_FIELDS = { 'state', 'policy', 'pending', 'bad', 'lost', 'total', 'if_empty',
  'culprit', 'failed', 'canceled', 'won', 'decided' }

function futures.read_for_decision(id)
  return redis.call('HMGET', keys.future(id), unpack(DECIDING_FIELDS))
end

-- A future job none of whose blockers can let it run any more.
local function skip(id, culprit)
  local goes_again, why = nested.begin_next_round(id, futures.describe_culprit(id, culprit))
  if not goes_again then jobs.call_off(id, 'skipped', why) end
end

-- Goes on with a future job that has nothing more to wait for from its blockers, unless it is held for
-- others. Returns whether it does go on.
function futures.start(id, job)
  job = job or jobs.read_for_enqueue(id)
  if job[12] ~= 'deferred' or int(job[13]) > 0 then return false end
  local is_queued = jobs.proceed(id, job)
  if is_queued == nil then return false end
  redis.call('HSET', keys.future(id), 'state', is_queued and 'queued' or 'met')
  redis.call('ZREM', OURS .. 'watched', id)
  return true
end

-- Looks whether a released future job can be queued, or never will be.
-- `f` is what read_for_decision has read, and `job` what jobs.read_for_enqueue would.
function futures.decide(id, f, job)
  if f[1] ~= 'released' then return end
  if firsts.is_one(f[2]) then return firsts.decide(id, f, job) end
  if int(f[3]) > 0 then return end
  local bad, lost = int(f[4]), int(f[5])
  if f[2] == 'wait' and (lost > 0 or bad > 0 and is_ending(id)) then
    return jobs.call_off(id, 'skipped', futures.describe_culprit(id, f[8]))
  end
  if f[2] == 'wait' and bad > 0 then return log_stuck(id, f[8]) end
  if f[2] == 'skip' and bad + lost > 0 then return skip(id, f[8]) end
  if f[2] == 'skip' and ancestors.forbid(id, f) then
    return skip(id, redis.call('HGET', keys.future(id), 'above'))
  end
  if int(f[6]) == 0 and f[7] == 'skip' then
    return jobs.call_off(id, 'passed', nested.why_empty(id))
  end
  futures.start(id, job)
end

-- Only RQ's depends_on held it: it is taken out of RQ's hands again, and waits for us. Returns false
-- when RQ is queueing it already.
function futures.take_back(future)
  if redis.call('HGET', keys.job(future), 'status') ~= 'deferred' then return false end
  local ids = redis.call('HGET', keys.job(future), 'dependency_ids')
  for _, dependency in ipairs(cjson.decode(ids or '[]')) do
    redis.call('SREM', keys.job(dependency) .. ':dependents', future)
  end
  redis.call('DEL', PREFIX .. ':job::' .. future .. ':dependencies')
  slots.leave_turn(future, redis.call('HGET', keys.job(future), 'flowq_slots'))
  approvals.forget_judging(future)
  redis.call('HSET', keys.future(future), 'state', 'released')
  return true
end

-- From here on maintenance looks whether its blockers have ended unnoticed. A run looks after its own
-- jobs; but not for failed ones that a future job waits for to succeed.
function futures.watch(future, run)
  if run and redis.call('HGET', keys.future(future), 'policy') ~= 'wait' then return end
  redis.call('ZADD', OURS .. 'watched', TS + runs.WATCH_S, future)
end

local states -- of the future jobs that this call has asked for; see is_wanted
local lists_by_blocks

function futures.forget_states() states = {} end

function futures.reset() states, lists_by_blocks = {}, {} end

-- The future jobs that a job blocks: many jobs block the same ones.
function futures.named_in(blocks)
  local list = lists_by_blocks[blocks or '']
  if not list then
    list = {}
    for future in each_future(blocks) do list[#list + 1] = future end
    lists_by_blocks[blocks or ''] = list
  end
  return list
end

-- Whether a future job that it blocks has not ended, so that how it ended may still be asked.
-- One that ends in this very call looks at all its blockers itself (retire), so each is asked once.
-- One that has started early (firsts.lua) does not ask about `id` if it was added after that.
function futures.is_wanted(blocks, id)
  for _, future in ipairs(futures.named_in(blocks)) do
    local f = states[future]
    if f == nil then
      f = redis.call('HMGET', keys.future(future), 'state', 'decided')
      states[future] = f
    end
    local is_asking = UNDECIDED[f[1]] or f[1] == 'met' or f[1] == 'queued'
    local is_late = is_asking and f[2] and redis.call('HEXISTS', keys.edges(future), id) == 0
    if is_asking and not is_late then return true end
  end
  return false
end

-- Whether a step to come looks at the blockers of one of these future jobs anyway.
function futures.will_retire(blocks)
  for future in each_future(blocks) do
    if redis.call('ZSCORE', TODO, 'retire:' .. future) then return true end
  end
  return false
end

function futures.read_for_end(id)
  return redis.call('HMGET', keys.future(id), 'state', 'freed', 'failed', 'canceled', 'stops')
end

-- Notes the end of a future job, and what follows for its blockers. `f` is what read_for_end has read.
function futures.finish(id, f, outcome, run)
  local key = keys.future(id)
  if not f[1] then return end
  redis.call('HSET', key, 'state', outcome)
  redis.call('ZREM', OURS .. 'expiring', id)
  if f[5] and (outcome == 'deleted' or outcome == 'expired') then
    redis.call('ZREM', OURS .. 'deadlines', id)
  end
  if f[1] ~= 'queued' then redis.call('ZREM', OURS .. 'watched', id) end
  if CALLED_OFF[outcome] then
    redis.call('ZREM', TODO, 'free:' .. id)
    if redis.call('LLEN', keys.blockers(id)) > int(f[2]) then later('abandon:' .. id) end
  end
  if not run then later('retire:' .. id) end
end

local function close(id, cascade)
  local state = redis.call('HGET', keys.future(id), 'state')
  local status = redis.call('HGET', keys.job(id), 'status')
  if not status then return { 'missing' } end
  if not state then return { 'plain' } end
  if UNDECIDED[state] and status == 'canceled' then return { 'ended', status } end -- by RQ's own Job
  if CALLED_OFF[state] then return { 'ended', state } end
  if state ~= 'open' then return { 0 } end
  redis.call('HSET', keys.future(id), 'state', 'releasing')
  if cascade == '1' then redis.call('HSET', keys.future(id), 'cascade', 1) end
  redis.call('ZREM', OURS .. 'expiring', id)
  later('free:' .. id)
  return { 1 }
end

-- Closes the declaration of a future job; its blockers are freed by step.lua.
-- ARGV   4 job id of the future job   5 "1" to release the open future jobs among its blockers too
--        6 the job that has added it, and releases with it all that it has added, or ""
--        7 ids of others that are released with it
-- Returns {1} for the call that released it, {0} when it was released before, or
--   {"missing"}, {"plain"} (not a future job), {"ended", state} (canceled or skipped).
-- From here on any process can finish the release, from the todo. All are released in one call, so an
-- adder that dies has released either all or none of them (lifecycle.call_off_added).
function futures.close(argv)
  local answer = close(argv[4], argv[5])
  for at = 7, #argv do close(argv[at], argv[5]) end
  if (argv[6] or '') ~= '' then redis.call('HDEL', keys.job(argv[6]), 'flowq_adds') end
  return answer
end
