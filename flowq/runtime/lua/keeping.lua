-- keeping.lua: A staged run continues an ended one: it takes over how jobs ended there, with all that
-- others may read of these ends. Ids are the same but for the run in front (flowq/runtime/keeping.py).

-- Whether the run that is continued has still ended as it had when it was looked at.
local function is_as_known(before, ended_at)
  local f = redis.call('HMGET', keys.run(before), 'state', 'ended_at')
  local has_ended = f[1] == 'succeeded' or f[1] == 'failed' or f[1] == 'canceled'
  return has_ended and (f[2] or '') == ended_at
end

local function renamed(id, before, run) return run .. string.sub(id, #before + 1) end

local function copy(from, to)
  redis.call('DEL', to)
  redis.call('COPY', from, to)
  redis.call('PERSIST', to)
end

local OF_A_GROUP = { 'name', 'max_items', 'max_parallel', 'tolerate', 'fail_fast', 'asks' }

-- Copies the lists of groups, and the records of those that are inside of others.
-- ARGV   4 run   5 the run before   6 when that ended   then ids of groups of that run
-- Returns 1, or 0 where the run before is another by now. Idempotent.
function keeping.copy_groups(argv)
  local run, before = argv[4], argv[5]
  if not is_as_known(before, argv[6]) then return 0 end
  for i = 7, #argv do
    local from, to = argv[i], renamed(argv[i], before, run)
    local key = keys.group(to)
    if redis.call('EXISTS', key) == 0 then
      redis.call('HSET', key, 'run', run)
      redis.call('SADD', OURS .. 'groups:' .. run, to)
      local f = redis.call('HMGET', keys.group(from), unpack(OF_A_GROUP))
      for at, field in ipairs(OF_A_GROUP) do
        if f[at] then redis.call('HSET', key, field, f[at]) end
      end
    end
    for _, field in ipairs({ 'size', 'complete', 'approved', 'needless' }) do
      local value = redis.call('HGET', keys.group(from), field)
      if value then redis.call('HSET', key, field, value) end
    end
    copy(OURS .. 'keys:' .. from, OURS .. 'keys:' .. to)
    copy(OURS .. 'items:' .. from, OURS .. 'items:' .. to)
  end
  return 1
end

local CAN_BE_KEPT = { finished = true, passed = true, tolerated = true }

-- What is copied of the end of a job: all that commands and expressions read of it.
local OF_AN_END = { 'started_at', 'ended_at', 'worker_name', 'description', 'flowq_attempts',
  'flowq_approved', 'flowq_asked', 'flowq_polls', 'flowq_pass', 'flowq_message', 'flowq_timeout' }

local function copy_end(from, id, key, run)
  local f = redis.call('HMGET', keys.job(from), unpack(OF_AN_END))
  for at, field in ipairs(OF_AN_END) do
    if f[at] then redis.call('HSET', key, field, f[at]) end
  end
  local view = redis.call('HGET', keys.job(from), 'flowq_view')
  if view and printed.charge_view({ '', '', '', run, #view }) == 1 then
    redis.call('HSET', key, 'flowq_view', view)
  end
  redis.call('HDEL', key, 'flowq_adds', 'flowq_kept')
  copy(PREFIX .. ':results:' .. from, PREFIX .. ':results:' .. id)
  local max = redis.call('HGET', keys.future(from), 'max_parallel')
  if max then redis.call('HSET', keys.future(id), 'max_parallel', max) end
end

-- What a future job knew when it started before all its blockers had ended: a later attempt of it sees that,
-- and what comes before it does not run it again.
local function copy_decision(id, from, run, before)
  local f = redis.call('HMGET', keys.future(from), 'decided', 'goes')
  if not f[1] then return end
  local decided = f[1] ~= '' and renamed(f[1], before, run) or ''
  redis.call('HSET', keys.future(id), 'decided', decided, 'winner', decided)
  if f[2] then redis.call('HSET', keys.future(id), 'goes', f[2]) end
end

-- The same for one of its edges, which the end of the blocker has moved.
local function copy_edges(id, from, run, before)
  for future in each_future(redis.call('HGET', keys.job(from), 'flowq_blocks')) do
    if redis.call('HEXISTS', keys.future(future), 'decided') == 1 then
      local outcome = redis.call('HGET', keys.edges(future), from)
      local other = renamed(future, before, run)
      if outcome and redis.call('HEXISTS', keys.edges(other), id) == 1 then
        redis.call('HSET', keys.edges(other), id, outcome)
      end
    end
  end
end

local function register(id, queue, status)
  redis.call('ZREM', PREFIX .. ':deferred:' .. queue, id)
  if status == 'finished' then
    redis.call('ZADD', PREFIX .. ':finished:' .. queue, '+inf', id)
  elseif status == 'failed' then
    redis.call('ZADD', PREFIX .. ':failed:' .. queue, math.floor(TS) + 31536000, id) -- as RQ
  else
    redis.call('ZADD', PREFIX .. ':canceled:' .. queue, TS, id)
  end
end

-- Says in the run that it is kept, in the words by which readers know what ended so.
local function explain(outcome, why, before)
  local kept = 'kept from run ' .. before
  if outcome == 'tolerated' then return 'tolerated: ' .. kept end
  return outcome == 'passed' and why and why ~= '' and why .. '; ' .. kept or kept
end

-- Returns whether the job has ended as the other did.
local function keep(id, from, run, before)
  local old = redis.call('HMGET', keys.job(from), 'status', 'flowq_outcome', 'flowq_reason', 'flowq_pass',
    'flowq_ends_as')
  if not old[1] or not CAN_BE_KEPT[old[2]] then return false end
  local key = keys.job(id)
  local f = redis.call('HMGET', key, 'origin', 'flowq_outcome', 'flowq_group', 'flowq_run')
  if f[4] ~= run then return false end
  if f[2] then return true end
  copy_end(from, id, key, run)
  redis.call('HSET', key, 'status', old[1])
  register(id, f[1], old[1])
  if old[2] == 'tolerated' and f[3] then redis.call('SADD', keys.tolerated(f[3]), id) end
  local why = explain(old[2], old[4] or old[3], before)
  redis.call('HSET', key, 'flowq_reason', why)
  if old[5] and old[2] == 'passed' then redis.call('HSET', key, 'flowq_ends_as', 'passed ' .. why) end
  copy_decision(id, from, run, before)
  settling.add(id, old[2], why)
  if settling.settle_all() then return false end
  copy_edges(id, from, run, before)
  return true
end

-- Ends jobs of a staged run as those of the run before did.
-- ARGV   4 run   5 the run before   6 when that ended   then ids of jobs of that run, blockers first
-- Returns 1, or 0 where the run before, or one of the jobs, is another by now. Idempotent.
function keeping.keep(argv)
  local run, before = argv[4], argv[5]
  if not is_as_known(before, argv[6]) then return 0 end
  for i = 7, #argv do
    if not keep(renamed(argv[i], before, run), argv[i], run, before) then return 0 end
  end
  metrics.reset() -- these ends were counted when they happened
  return 1
end
