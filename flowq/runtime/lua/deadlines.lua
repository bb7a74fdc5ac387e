-- deadlines.lua: The steps that end runs, and workflows that are jobs, when they exceed their timeout.
--
-- The sorted set `deadlines` has runs, and the joins of workflows, by the instant. Fields of ours:
--   timeout, deadline_at, late   of a run: what it may take ("600 10m": seconds, and in words), until
--                   when that is, since the run last began, and why it is being canceled
--   flowq_timeout   of a join's hash: the same as `timeout`
--   late, halted    of a join's future hash: why what is inside is being ended, and how far that is
--   supplanted      of a join's future hash: that is because of a newer job (holders.lua)

local AGAIN_S = 5 -- who has told running jobs to stop may have died before they heard of it

local function set(id, at) redis.call('ZADD', OURS .. 'deadlines', at, id) end

local function unset(id) redis.call('ZREM', OURS .. 'deadlines', id) end

local function read(timeout)
  local seconds, words = string.match(timeout or '', '^(%S+) (.+)$')
  return tonumber(seconds), words and 'timed out after ' .. words
end

-- The run goes, for the first time or after a retry: its time begins.
function deadlines.begin_run(run, timeout)
  local seconds = read(timeout)
  if not seconds then return end
  if redis.call('HSETNX', keys.run(run), 'deadline_at', TS + seconds) == 1 then set(run, TS + seconds) end
end

-- The jobs of a workflow run again, so its time begins anew.
function deadlines.begin_again(join, timeout)
  local seconds = read(timeout)
  if seconds then set(join, TS + seconds) end
end

local function end_run(run)
  local key = keys.run(run)
  local f = redis.call('HMGET', key, 'state', 'canceling', 'timeout', 'late')
  if f[1] ~= 'running' or (f[2] and not f[4]) then return unset(run) end
  local _, why = read(f[3])
  set(run, TS + AGAIN_S)
  redis.call('HSETNX', key, 'canceling', '1')
  redis.call('HSET', key, 'late', why)
  redis.call('HDEL', key, 'canceled', 'resumed')
  later('cancel:' .. run)
end

function deadlines.begin_to_halt(join, why, is_supplanted)
  redis.call('HSETNX', keys.future(join), 'late', why)
  if is_supplanted then redis.call('HSET', keys.future(join), 'supplanted', 1, 'given_up', 1) end
  redis.call('HDEL', keys.future(join), 'halted')
  later('halt:' .. join)
end

local function end_workflow(join)
  local f = redis.call('HMGET', keys.job(join), 'flowq_outcome', 'flowq_run', 'flowq_timeout', 'status',
    'flowq_always')
  local seconds, why = read(f[3])
  if f[1] or not seconds or not nested.has_begun(join) then return unset(join) end -- its start sets it
  if runs.is_canceling(f[2], f[5]) then return unset(join) end
  if redis.call('HEXISTS', keys.run(f[2]), 'held') == 1 then -- it is retried, and waits for its turn
    return set(join, TS + seconds)
  end
  set(join, TS + AGAIN_S)
  deadlines.begin_to_halt(join, why)
  if f[4] == 'queued' or f[4] == 'scheduled' then jobs.call_off(join, 'canceled', why) end
end

-- Ends what is overdue, as a cancel does: what has not started is called off, what runs is to be
-- stopped, and jobs run that ask for it (`always`). To be made again until nothing is to be stopped.
function deadlines.overdue(id)
  if redis.call('EXISTS', keys.run(id)) == 1 then end_run(id)
  elseif not needless.again(id) then end_workflow(id) end
  return true
end

-- Ends a job, as a cancel does. `ends_as`: that of the workflow (firsts.lua), where it is not needed rather
-- than late. `is_supplanted`: a newer job takes its place, and its run does not fail because of that.
local function end_job(job, why, ends_as, is_supplanted)
  local f = redis.call('HMGET', keys.job(job), 'status', 'flowq_outcome', 'origin', 'worker_name', 'flowq_nested')
  if f[2] then return end
  if ends_as then redis.call('HSET', keys.job(job), 'flowq_ends_as', ends_as) end
  if is_supplanted then redis.call('HSET', keys.job(job), 'flowq_supplanted', 1) end
  local word = ends_as and firsts.read_end(ends_as) or 'canceled'
  if f[5] and nested.has_begun(job) then
    deadlines.begin_to_halt(job, why, is_supplanted)
    return nested.end_round(job, word, why)
  end
  if f[1] == 'started' then
    if executions.is_heard(job, f[3], f[4]) then return step.must_stop(job, why) end
    executions.take_away(job, f[3], f[4])
  elseif not NOT_STARTED[f[1]] then
    return
  end
  jobs.call_off(job, word, why)
  if f[5] then jobs.call_off(nested.start_id(job), word, why) end
end

local function end_inside(job, why, ends_as, is_supplanted)
  local f = redis.call('HMGET', keys.job(job), 'status', 'flowq_outcome', 'flowq_always')
  local is_stuck = f[1] == 'deferred' and futures.is_stuck(job)
  if not f[2] and (f[3] ~= '1' or is_stuck) then end_job(job, why, ends_as, is_supplanted) end
end

-- A newer job takes the place of this one (holders.lua).
function deadlines.supplant(job, why) end_job(job, why, nil, true) end

-- Ends what is inside of a workflow that is late.
function deadlines.halt(join)
  local key, why = keys.future(join), nested.why_late_inside(join)
  if not why then return true end
  local ends_as = redis.call('HGET', keys.job(join), 'flowq_ends_as')
  ends_as = ends_as and string.match(ends_as, '^%a+ ') .. why or nil
  local is_supplanted = redis.call('HEXISTS', key, 'supplanted') == 1
  return step.each_item(keys.blockers(join), key, 'halted', function(job)
    end_inside(job, why, ends_as, is_supplanted)
  end)
end

-- A workflow has begun to run again while the one that it is inside of was found late.
function deadlines.follow(join, inside)
  local why = nested.why_late_inside(inside)
  if why then
    deadlines.begin_to_halt(join, why, redis.call('HEXISTS', keys.future(inside), 'supplanted') == 1)
  end
end
