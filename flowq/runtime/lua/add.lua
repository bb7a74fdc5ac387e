-- add.lua: enqueues jobs with holds, all of them or none.
--
-- ARGV   4 number of jobs, then for each of them
--          id, queue, blocks ("a b! c"), future ("" or "policy if_empty expires_in": the first "-"
--          for the default, the last in seconds or "-"), at ("" or seconds),
--          run, name, unique ("" or "1"), number of fields, field, value, field, value …
-- Returns {"existing", id, …} when all were enqueued but those named (often none), which are blockers
-- of the same future jobs already, or of the same run and block nothing; else the reason, and nothing
-- is written:
--   {"missing", future}            there is no such job
--   {"plain", future}              the job is not a future job
--   {"started", future}            it has been queued already
--   {"ended", future, state}       it is over
--   {"self", id}                   it would block itself
--   {"taken", id, by}              the id belongs to a job that has not ended, or is needed
--   {"queue", id}                  the id is the name of a queue
--   {"future", queue}              the queue has the name of a future job
--   {"duplicate", id}              unique, and the id exists
--   {"norun", run}                 the run is gone, or has ended
--   {"busy", id}                   an earlier job of that id has steps left (abandon:, retire:)
-- O(1) for each job, in the number of blockers of its future jobs.

local fresh, seen, queues = {}, {}, {} -- of this very call: future jobs, all ids, all queues
local jobs, at = {}, 5
for _ = 1, tonumber(ARGV[4]) do
  local job = { id = ARGV[at], queue = ARGV[at + 1], blocks = ARGV[at + 2], future = ARGV[at + 3],
    at = ARGV[at + 4], run = ARGV[at + 5], name = ARGV[at + 6], unique = ARGV[at + 7],
    first = at + 9, last = at + 8 + 2 * tonumber(ARGV[at + 8]) }
  jobs[#jobs + 1] = job
  at = job.last + 1
  queues[job.queue] = true
end

local existing = {}

local function refused_future(job, future)
  if future == job.id then return { 'self', future } end
  if fresh[future] then return nil end
  if redis.call('TYPE', blockers_key(future)).ok == 'zset' then return { 'queue', future } end
  local state = redis.call('HGET', future_key(future), 'state')
  local status = redis.call('HGET', job_key(future), 'status')
  if not status then return { 'missing', future } end
  if not state then return { 'plain', future } end
  local is_open = UNDECIDED[state] or state == 'met'
  if is_open and status == 'canceled' then return { 'ended', future, status } end -- by RQ's own Job
  if is_open and status ~= 'deferred' or state == 'queued' then return { 'started', future } end
  if not is_open then return { 'ended', future, state } end
end

local function blocks_already(job)
  if job.blocks == '' then
    return job.run ~= '' and redis.call('HGET', job_key(job.id), 'flowq_run') == job.run
  end
  for future in each_future(job.blocks) do
    if redis.call('HEXISTS', edges_key(future), job.id) == 0 then return false end
  end
  return true
end

local HAS_ENDED = { finished = true, failed = true, stopped = true, canceled = true }

-- Whether this very call has been made before, and its reply was lost: clients then send it again.
local function is_resent(job)
  if HAS_ENDED[redis.call('HGET', job_key(job.id), 'status')] then return false end
  for at = job.first, job.last, 2 do
    if ARGV[at] == 'created_at' then
      return redis.call('HGET', job_key(job.id), 'created_at') == ARGV[at + 1]
    end
  end
end

local function refused_id(job)
  if seen[job.id] then return { 'taken', job.id, 'another job of this call' } end
  seen[job.id] = true
  if is_resent(job) then
    job.exists = true
    return nil
  end
  local status = redis.call('HGET', job_key(job.id), 'status')
  for _, operation in ipairs({ 'abandon:', 'retire:' }) do
    if HAS_ENDED[status or 'canceled'] and redis.call('ZSCORE', TODO, operation .. job.id) then
      return { 'busy', job.id }
    end
  end
  if not status then return nil end
  if job.unique == '1' then return { 'duplicate', job.id } end
  if blocks_already(job) then
    job.exists = true
    existing[#existing + 1] = job.id
    return nil
  end
  if not HAS_ENDED[status] then
    return { 'taken', job.id, 'a job that is ' .. status }
  end
  for future in each_future(redis.call('HGET', job_key(job.id), 'flowq_blocks')) do
    if UNDECIDED[redis.call('HGET', future_key(future), 'state')]
      and redis.call('HEXISTS', edges_key(future), job.id) == 1 then
      return { 'taken', job.id, 'a blocker of ' .. future }
    end
  end
end

-- A blocker of a run's future job belongs to that run, whoever adds it.
local function inherit_run(job)
  for future in each_future(job.blocks) do
    local run = redis.call('HGET', job_key(future), 'flowq_run')
    if run then
      local prefix = run .. '-'
      job.run = run
      job.inside = find_inside_before(future)
      job.name = string.sub(job.id, 1, #prefix) == prefix and string.sub(job.id, #prefix + 1)
        or job.id
      return
    end
  end
end

local function refused(job)
  if job.run == '' then inherit_run(job) end
  if job.future ~= '' and (queues[job.id] or redis.call('SISMEMBER', PREFIX .. ':queues',
    PREFIX .. ':queue:' .. job.id) == 1
    or redis.call('TYPE', blockers_key(job.id)).ok == 'zset') then
    return { 'queue', job.id }
  end
  if redis.call('TYPE', PREFIX .. ':deferred:' .. job.queue).ok == 'list'
    or redis.call('EXISTS', future_key(job.queue)) == 1 then
    return { 'future', job.queue }
  end
  local reason = refused_id(job)
  if reason or job.exists then return reason end
  for future in each_future(job.blocks) do
    reason = refused_future(job, future)
    if reason then return reason end
  end
  if job.run ~= '' then
    local run = redis.call('HMGET', run_key(job.run), 'state', 'canceling')
    if run[2] or (run[1] ~= 'staged' and run[1] ~= 'running') then return { 'norun', job.run } end
    job.late = run[1] == 'running'
  end
  if job.future ~= '' then fresh[job.id] = true end
end

-- Returns how many gates the edge adds to the job. The id of a blocker that is gone keeps its place.
local function add_edge(job, future, mark)
  local key = future_key(future)
  local f = redis.call('HMGET', key, 'state', 'policy', 'freed')
  local is_held = f[1] == 'open' or f[1] == 'releasing'
  if f[1] == 'met' then take_back(future) end
  local old = redis.call('HGET', edges_key(future), job.id)
  if old then
    move_edge(future, job.id, old, 'pending' .. mark, f[2])
    local place = f[1] == 'releasing' and redis.call('LPOS', blockers_key(future), job.id)
    return is_held and not (place and place < int(f[3])) and 1 or 0
  end
  redis.call('RPUSH', blockers_key(future), job.id)
  redis.call('HSET', edges_key(future), job.id, 'pending' .. mark)
  redis.call('HINCRBY', key, 'pending', 1)
  if not job.expands then redis.call('HINCRBY', key, 'total', 1) end
  if is_held then return 1 end
  redis.call('HINCRBY', key, 'freed', 1)
  return 0
end

local function write(job)
  local key = job_key(job.id)
  redis.call('DEL', key, edges_key(job.id), future_key(job.id), mortal_key(job.id),
    PREFIX .. ':results:' .. job.id)
  if redis.call('TYPE', blockers_key(job.id)).ok == 'list' then
    redis.call('DEL', blockers_key(job.id))
  end
  if job.future ~= '' then
    local policy, if_empty, expires = string.match(job.future, '(%S+) (%w+) (%S+)')
    -- As RQ's depends_on; but in a run a future job is skipped, so that every run has an end.
    if policy == '-' then policy = job.run ~= '' and 'skip' or 'wait' end
    redis.call('HSET', future_key(job.id), 'state', 'open', 'policy', policy, 'if_empty', if_empty)
    if expires ~= '-' then redis.call('ZADD', OURS .. 'expiring', TS + tonumber(expires), job.id) end
  end
  redis.call('HSET', key, unpack(ARGV, job.first, job.last))
  redis.call('SADD', PREFIX .. ':queues', PREFIX .. ':queue:' .. job.queue)
  redis.call('ZADD', PREFIX .. ':deferred:' .. job.queue, '+inf', job.id)
  local f = redis.call('HMGET', key, 'flowq_expands', 'flowq_group', 'flowq_slots', 'dependency_ids',
    'flowq_by')
  job.expands, job.group, job.by = f[1], f[2], f[5]
  for _, dependency in ipairs(f[4] and cjson.decode(f[4]) or {}) do
    redis.call('SREM', job_key(dependency) .. ':dependents', job.id) -- of a deleted job of that id
  end
  local gates = 0
  for future, mark in each_future(job.blocks) do gates = gates + add_edge(job, future, mark) end
  local ours = { 'flowq_gates', gates }
  local function set(field, value)
    if value ~= '' then
      ours[#ours + 1] = field
      ours[#ours + 1] = value
    end
  end
  set('flowq_blocks', job.blocks)
  set('flowq_future', job.future ~= '' and '1' or '')
  set('flowq_at', job.at)
  set('flowq_run', job.run)
  set('flowq_name', job.name)
  set('flowq_inside', job.inside or '')
  set('flowq_late', job.late and job.future ~= '' and '1' or '')
  if job.run ~= '' and redis.call('HEXISTS', run_key(job.run), 'max_parallel') == 1 then
    set('flowq_slots', (f[3] and f[3] .. ' ' or '') .. 'run:' .. job.run)
  end
  if job.run ~= '' then set('flowq_retries', redis.call('HGET', key, 'retries_left') or '') end
  redis.call('HSET', key, unpack(ours))
  if job.run ~= '' then
    redis.call('RPUSH', OURS .. 'jobs:' .. job.run, job.id)
    redis.call('HINCRBY', run_key(job.run), 'left', 1)
    if job.late then log(job.run, job.id, job.name, 'deferred') end
  end
  if job.run ~= '' and job.blocks == '' and job.future == '' then keep_loose(job.run, job.id) end
  if job.group then count_in_group(job.group, 'new', nil) end
  if job.by and job.future ~= '' then redis.call('HSET', job_key(job.by), 'flowq_adds', 1) end
end

-- A group that is closed takes no more: its new items end as the others did.
local function is_closed(job)
  local g = job.group and redis.call('HMGET', group_key(job.group), 'closed', 'reason')
  if not g or not g[1] then return false end
  call_off(job.id, g[1], g[2])
  return true
end

for _, job in ipairs(jobs) do
  local reason = refused(job)
  if reason then return reason end
end
for _, job in ipairs(jobs) do
  if not job.exists then
    write(job)
    if not is_closed(job) then lift(job.id) end
  end
end
settle_all()
table.insert(existing, 1, 'existing') -- `unpack` ends at some 8,000 values
return existing
