-- settling.lua: Settles jobs that have ended: counts the end in the run and the group, and tells the
-- future jobs that the job blocks.

local CASCADE_LIMIT = 500

local ends, first_end -- jobs whose end has to be accounted for

-- `facts`: what facts_of would read; with `is_noted` the outcome is in the hash already. `took_ms`: how
-- long the execution took, where the facts do not tell.
function settling.add(id, outcome, reason, facts, took_ms)
  ends[#ends + 1] = { id, outcome, reason, facts, took_ms }
end

-- The stop of a job did not reach its attempt: the attempt has finished, or its worker has died and the
-- next attempt begins. So the reason for the stop does not explain how the job ends.
function settling.forget_stop(id) redis.call('HDEL', keys.job(id), 'flowq_stopping', 'flowq_reason') end

function settling.reset() ends, first_end = {}, 1 end

function settling.count_ends() return #ends end

-- What settling has to know about a job of a run whose hash is gone: its id tells. It does not tell its limits
-- across runs: who waits there finds that it is gone (holders.lua), or its run is removed (slots.forget_run).
function settling.facts_of_gone(id, run, blocks)
  local group, index = groups.split_item_id(id)
  local group_name = group and redis.call('HGET', keys.group(group), 'name')
  local limits, inside = group_name and 'group:' .. group .. ' ' or '', nested.find_inside(id)
  while inside do
    limits = limits .. 'future:' .. inside .. ' '
    inside = nested.find_inside(inside)
  end
  local own_group = redis.call('HGET', keys.group(id), 'name')
  return { run = run, blocks = blocks, future = redis.call('EXISTS', keys.future(id)) == 1,
    name = own_group and own_group .. '(list)' or group_name and group_name .. '[' .. index .. ']'
      or nested.name_inside(id) or runs.name_of(id, run),
    group = group_name and group, expands = own_group and true or false,
    slots = limits .. 'run:' .. run, ttl = redis.call('EXISTS', keys.mortal(id)) == 1 }
end

-- What settling has to know about a job, also about one whose hash has expired. What only jobs of
-- a run have is read for those.
local function facts_of(id)
  local f = redis.call('HMGET', keys.job(id), 'origin', 'flowq_blocks', 'flowq_future', 'flowq_run',
    'flowq_outcome', 'ttl')
  if f[1] then
    return { exists = true, queue = f[1], blocks = f[2], future = f[3], run = f[4], before = f[5],
      ttl = f[6] }
  end
  local m = cjson.decode(redis.call('GET', keys.mortal(id)) or '[]')
  local job = m[3] and settling.facts_of_gone(id, m[3], m[1]) or { blocks = m[1], future = m[2] }
  job.before, job.ttl = m[5], 1
  return job
end

local function read_more(id, job)
  local f = redis.call('HMGET', keys.job(id), 'flowq_name', 'flowq_group', 'flowq_slots',
    'flowq_expands', 'flowq_tolerate', 'flowq_pass', 'flowq_adds', 'started_at', 'flowq_stopping',
    'flowq_ends_as', 'flowq_supplanted')
  job.name, job.group, job.slots, job.expands = f[1], f[2], f[3], f[4]
  job.tolerate, job.pass, job.adds = f[5], f[6], f[7]
  job.started_at = job.started_at or f[8]
  job.stopping, job.ends_as, job.supplanted = f[9], f[10], f[11]
end

local account_for -- calls itself, by settle_in_run
local EXECUTED = { finished = true, failed = true, stopped = true }

-- The state that readers see.
local function shown_as(outcome)
  return outcome == 'passed' and 'skipped' or outcome == 'tolerated' and 'failed' or outcome
end

-- How many seconds its execution took, if that is known.
local function find_duration(job)
  if not job.started_ts then return job.took_ms and tonumber(job.took_ms) / 1000 end
  return math.max(0, tonumber(job.ended_ts) - tonumber(job.started_ts))
end

-- Tells the run of an end. `ended_by` says who ended the job, where it was not its execution that ended.
local function log_end(id, job, shown, reason, ended_by)
  if not EXECUTED[shown] or ended_by or not job.started_at or job.started_at == '' then
    return runs.log(job.run, id, job.name, shown, reason)
  end
  local took_s = job.started_ts and find_duration(job)
  local took_ms = took_s and string.format('%.3f', took_s * 1000) or job.took_ms or ''
  local failure = shown == 'failed' and retries.tell_failure(id) or nil
  runs.log_end(job.run, id, job.name, shown, reason, job.started_at, took_ms, failure)
end

-- What a run has to know before the future jobs that the job blocks hear of its end. That may end
-- the job once more, differently.
local function settle_in_run(id, job, outcome, reason, ended_by)
  if job.before ~= outcome then
    reason = reason or redis.call('HGET', keys.job(id), 'flowq_reason')
    log_end(id, job, shown_as(outcome), reason, ended_by)
  end
  if job.group or job.expands then
    for _, other in ipairs(groups.note_end(id, job, job.before, outcome)) do
      -- A workflow that failed inside was called off, as a job of RQ.
      local f = redis.call('HMGET', keys.job(other), 'status', 'flowq_nested')
      local was_called_off = f[1] == 'canceled' and f[2]
      account_for(other, was_called_off and 'skipped' or 'failed', 'more than are tolerated')
    end
  end
  if job.adds and outcome ~= 'finished' then later('strand:' .. id) end
  if job.expands and outcome == 'finished' then nested.note_begin(id) end
  if job.supplanted then runs.count_supplanted(job.run, job.before, outcome) end
  runs.count(job.run, job.before, outcome, id, job.ends_as)
end

-- Only a job with a time to live in its queue has left a note for the case that it expires there.
local function keep_note(id, job, outcome)
  if outcome ~= 'failed' and outcome ~= 'stopped' then
    redis.call('DEL', keys.mortal(id))
  elseif job.exists and redis.call('EXISTS', keys.mortal(id)) == 1 then
    -- It may be requeued, and expire.
    local facts = { job.blocks or false, job.future or false, job.run or false, job.name or false,
      outcome }
    redis.call('SET', keys.mortal(id), cjson.encode(facts), 'KEEPTTL')
  end
end

-- A job that was canceled is deleted, or has run to its end nevertheless: RQ leaves it in its registry
-- of canceled jobs for ever.
local function leave_canceled_registry(id, queue)
  redis.call('ZREM', PREFIX .. ':canceled:' .. queue, id)
  redis.call('ZREM', OURS .. 'forgotten', id .. ' ' .. queue)
end

function account_for(id, outcome, reason, facts, took_ms)
  local job = facts or facts_of(id)
  job.took_ms = took_ms
  local blocks, future, run, before = job.blocks, job.future, job.run, job.before
  if run and job.exists then read_more(id, job) end
  if job.stopping and outcome == 'finished' then settling.forget_stop(id) end
  if CALLED_OFF[before] and job.exists and (outcome == 'deleted' or not CALLED_OFF[outcome]) then
    leave_canceled_registry(id, redis.call('HGET', keys.job(id), 'origin'))
  end
  if outcome == 'deleted' and (before == 'finished' or before == 'passed') then outcome = before end
  local seen, ended_by = outcome, reason
  if run then outcome, reason = outcomes.decide(id, job, outcome, reason) end
  if before ~= outcome then
    local shown = shown_as(outcome)
    metrics.count_end(job.queue, shown, EXECUTED[shown] and not ended_by and find_duration(job) or nil)
  end
  if job.exists and not job.is_noted then
    redis.call('HSET', keys.job(id), 'flowq_outcome', outcome)
  end
  if job.ttl then keep_note(id, job, outcome) end
  if outcome == 'expired' then
    redis.call('DEL', PREFIX .. ':job::' .. id .. ':dependencies')
    if not run then redis.call('DEL', PREFIX .. ':results:' .. id) end -- of an attempt before
  end
  local f = future and futures.read_for_end(id)
  local above = f and (f[3] or f[4]) and ancestors.find(id, outcome, f)
  for _, target in ipairs(futures.named_in(blocks)) do edges.add(target, id, outcome, above, job.expands) end
  if run then settle_in_run(id, job, outcome, reason, ended_by) end
  -- One that was skipped can be armed again, whatever that counts for.
  if future then futures.finish(id, f, seen == 'skipped' and seen or outcome, run) end
  if job.slots then slots.give(id, job.slots) end
  if run or outcome == 'deleted' or outcome == 'expired' then return end
  -- RQ sees to the others; a hash that a success makes anew after a delete has lost what it blocks.
  local is_ours = blocks or CALLED_OFF[outcome] or not job.exists
  if is_ours and not futures.is_wanted(blocks, id) and not futures.will_retire(blocks) then
    later('expire:' .. id)
  end
end

-- What fails, or comes too late in a long cascade, is picked up from the todo.
function settling.postpone(blockers, how)
  for i, blocker in ipairs(blockers) do pcall(later, 'end:' .. blocker .. ':' .. how[i]) end
end

-- Accounts for the ends that are known, and for those that follow from them, then queues what they
-- have held. A long cascade is cut. Never raises; returns the text of the first failure.
function settling.settle_all()
  local count, failure = 0, nil
  if first_end <= #ends or edges.has_updates() then futures.forget_states() end
  while first_end <= #ends or edges.has_updates() or slots.has_room_for_others() do
    while first_end <= #ends do
      local item = ends[first_end]
      first_end = first_end + 1
      count = count + 1
      local is_time = count <= CASCADE_LIMIT
      local ok, problem = false, nil
      if is_time then ok, problem = pcall(account_for, unpack(item, 1, 5)) end
      if not ok then
        settling.postpone({ item[1] }, { item[2] })
        failure = failure or is_time and text_of(problem) or nil
      end
    end
    local problem = edges.update_all()
    failure = failure or problem
    slots.fill_noted()
  end
  local ok, problem = pcall(jobs.push_queued)
  jobs.close_gaps()
  return failure or not ok and text_of(problem) or nil
end

-- Accounts for the end of one job in each of its edges.
-- Runs inside the transaction that ends the job, with EVAL and its source (a NOSCRIPT there would
-- commit the end without the settling), so it never raises: on trouble it leaves a note in the
-- todo and returns its text.
-- ARGV   4 job id   5 outcome   6 generation that the ended attempt was started with
--        7 how long it took, in milliseconds; "" where that is not known
-- Returns OK, "late" for an attempt of an older generation, or the text of the error.
-- Idempotent. O(1) in the number of blockers of each future job.
function settling.settle(argv)
  local id, outcome, generation = argv[4], argv[5], int(argv[6])
  local ok, current = pcall(redis.call, 'HGET', keys.job(id), 'flowq_gen')
  if ok and generation < int(current) then return 'late' end
  settling.add(id, outcome, nil, nil, argv[7] ~= '' and argv[7] or nil)
  return settling.settle_all() or redis.status_reply('OK')
end

-- Removes jobs from the front of a queue, as rq.Queue.empty does, in bounded steps.
-- ARGV   4 key of the queue   5 how many at most
-- Blockers among them settle as deleted. Returns how many were removed; 0 when the queue is empty.
function settling.empty_queue(argv)
  local ids = redis.call('LPOP', argv[4], argv[5]) or {}
  for _, id in ipairs(ids) do
    local key = keys.job(id)
    settling.add(id, redis.call('EXISTS', key) == 1 and 'deleted' or 'expired')
    settling.settle_all()
    redis.call('DEL', key, key .. ':dependents', PREFIX .. ':results:' .. id)
  end
  return #ids
end

-- A worker popped a job whose hash has expired; it settles as expired.
-- ARGV   4 job id
-- Returns 1 when that was news to somebody, else 0 (not one of ours, or it is there after all).
function settling.expire(argv)
  local id = argv[4]
  if redis.call('EXISTS', keys.job(id)) == 1 or redis.call('EXISTS', keys.mortal(id)) == 0 then
    return 0
  end
  settling.add(id, 'expired')
  settling.settle_all()
  return 1
end
