-- turn.lua: one turn of a flowq worker: it ends executions, settles them, and claims the next jobs.
--
-- ARGV   4 name of the worker   5 first part of the new executions' ids
--        6 slots: how many children can take work   7 how many of these are idle: the others can
--        take short jobs only   8 budget: seconds of short jobs for one child
--        9 how many jobs at most   10 seconds between heartbeats
--        11 number of queues, then their names in order of priority
--        then the number of known kinds of short jobs, then kind, seconds for each
--        then the number of ends, then for each of them
--          one line of words, "-" for what is empty: job, execution, status (finished|failed),
--          started_at, ended_at (as RQ writes them), the same in epoch seconds, ttl (-1 for ever),
--          field of the result, generation, kind of the result (RQ's number), "1" when its claim
--          was a light one
--          queue   value of the result
-- Returns {answers, claims, held, suspended, more}:
--   answers    for each end "ok", "lost" (the execution was taken from us: nothing is written) or
--              "long" (jobs depend on it: RQ's own way has to end it, nothing is written)
--   claims     {job, execution, queue, {field, value…}, 1 for a light one} for each claimed job; the
--              hash as it was before, without empty fields
--   held       how many executions the worker has now
--   suspended  1 when RQ's workers are suspended and nothing is claimed
--   more       1 when there are jobs left for which there was no room
-- The pop and the WIP entry are one step: a job is in the queue or in an execution, never between.
-- The WIP entry is the fence of every end. O(1) for each job.
-- Jobs of a short kind get a light claim: a WIP entry, and no records of the execution, which
-- beat.lua adds for those that are still there after some milliseconds.

local worker, base = ARGV[4], ARGV[5]
local slots, idle, budget, limit, interval = tonumber(ARGV[6]), tonumber(ARGV[7]),
  tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local worker_key = PREFIX .. ':worker:' .. worker
local held_key = worker_key .. ':executions'
local at = 11

local function take()
  at = at + 1
  return ARGV[at - 1]
end

local queues, cost_by_kind = {}, {}
for i = 1, tonumber(take()) do queues[i] = take() end
local knows_short = false
for _ = 1, tonumber(take()) do
  local kind = take()
  cost_by_kind[kind] = tonumber(take())
  knows_short = true
end

-- Ending ----------------------------------------------------------------------------------------

local ends_by_wip, job_keys, records, succeeded, failed, seconds = {}, {}, {}, 0, 0, 0
local lists = {} -- what is added to sorted sets together: {score, member, score, member …} by key

local function register(key, score, member)
  local list = lists[key]
  if not list then
    list = {}
    lists[key] = list
  end
  list[#list + 1] = score
  list[#list + 1] = member
end

local function register_all()
  for key, list in pairs(lists) do redis.call('ZADD', key, unpack(list)) end
  lists = {}
end

local END_LINE = '^' .. string.rep('(%S+) ', 11) .. '(%S+)$'

local function take_end()
  local id, execution, status, started_at, ended_at, started_ts, ended_ts, ttl, field, generation,
    result, light = string.match(take(), END_LINE)
  local e = { id = id, execution = execution, queue = take(), status = status,
    started_at = started_at, ended_at = ended_at, started_ts = started_ts, ended_ts = ended_ts,
    ttl = ttl, field = field, value = take(), generation = generation, result = result,
    light = light }
  e.key = job_key(e.id)
  e.member = e.id .. ':' .. e.execution
  local wip = PREFIX .. ':wip:' .. e.queue
  local group = ends_by_wip[wip] or { ends = {}, members = {} }
  ends_by_wip[wip] = group
  group.ends[#group.ends + 1] = e
  group.members[#group.members + 1] = e.member
  job_keys[#job_keys + 1] = e.key .. ':dependents'
  return e
end

local function find_held()
  for wip, group in pairs(ends_by_wip) do
    local scores = redis.call('ZMSCORE', wip, unpack(group.members))
    for i, e in ipairs(group.ends) do e.is_held = scores[i] end
  end
end

local function drop_record(e)
  if e.light == '1' then return end
  records[#records + 1] = PREFIX .. ':execution:' .. e.member
  redis.call('ZREM', PREFIX .. ':executions:' .. e.id, e.execution)
end

-- Returns the members of the executions that are over.
local function drop_executions()
  local released = {}
  for wip, group in pairs(ends_by_wip) do
    local members = {}
    for _, e in ipairs(group.ends) do
      if e.is_over then members[#members + 1] = e.member end
    end
    if #members > 0 then redis.call('ZREM', wip, unpack(members)) end
    for _, member in ipairs(members) do released[#released + 1] = member end
  end
  if #released > 0 then redis.call('SREM', held_key, unpack(released)) end
  if #records > 0 then redis.call('DEL', unpack(records)) end
end

-- `has_ended`: it ended before, and what is there may have a time to live.
local function keep_result(e, has_ended)
  local key = PREFIX .. ':results:' .. e.id
  if e.field ~= '-' then
    redis.call('XADD', key, 'MAXLEN', '~', 10, '*', 'execution_id', e.execution,
      'execution_started_at', e.started_ts, 'execution_ended_at', e.ended_ts, 'type', e.result,
      'worker_name', worker, e.field, e.value)
  else
    redis.call('XADD', key, 'MAXLEN', '~', 10, '*', 'execution_id', e.execution,
      'execution_started_at', e.started_ts, 'execution_ended_at', e.ended_ts, 'type', e.result,
      'worker_name', worker)
  end
  if e.ttl == '-1' then
    if has_ended then redis.call('PERSIST', key) end
  elseif e.ttl ~= '-' then
    redis.call('EXPIRE', key, e.ttl)
  end
end

-- RQ's cancel() of a running job takes its WIP entry away, and lets it run to its end.
local function was_canceled(e)
  return redis.call('HGET', e.key, 'status') == 'canceled'
    and redis.call('SISMEMBER', held_key, e.member) == 1
end

-- Writes the end into the job's hash; returns what settling has to know, nil when it concerns nobody.
local function write_end(e, f)
  local is_tracked = (f[3] or f[4] or f[5]) and int(e.generation) >= int(f[2])
  if not is_tracked then
    redis.call('HSET', e.key, 'status', e.status, 'started_at', e.started_at, 'ended_at', e.ended_at,
      'last_heartbeat', e.ended_at)
    return nil
  end
  local facts = { exists = true, blocks = f[4], future = f[3], run = f[5], before = f[6], ttl = f[7] }
  if f[5] then -- what it counts for in its run is not known yet
    redis.call('HSET', e.key, 'status', e.status, 'started_at', e.started_at, 'ended_at', e.ended_at,
      'last_heartbeat', e.ended_at)
  else
    redis.call('HSET', e.key, 'status', e.status, 'started_at', e.started_at, 'ended_at', e.ended_at,
      'last_heartbeat', e.ended_at, 'flowq_outcome', e.status)
    facts.is_noted = true
  end
  return facts
end

local function finish(e, has_dependents)
  if has_dependents and redis.call('EXISTS', e.key .. ':dependents') == 1 then return 'long' end
  if not e.is_held and not was_canceled(e) then return 'lost' end
  e.is_over = true
  drop_record(e)
  seconds = seconds + (tonumber(e.ended_ts) - tonumber(e.started_ts))
  local is_success = e.status == 'finished'
  if is_success then succeeded = succeeded + 1 else failed = failed + 1 end
  local f = redis.call('HMGET', e.key, 'status', 'flowq_gen', 'flowq_future', 'flowq_blocks',
    'flowq_run', 'flowq_outcome', 'ttl', 'dependency_ids', 'ended_at')
  if not f[1] then return 'ok' end -- deleted while it ran
  local dependencies = f[8] and PREFIX .. ':job::' .. e.id .. ':dependencies'
  if e.ttl == '0' then
    redis.call('DEL', e.key, PREFIX .. ':results:' .. e.id)
    if dependencies then redis.call('DEL', dependencies) end
    return 'ok'
  end
  local facts = write_end(e, f)
  keep_result(e, f[9] and f[9] ~= '')
  local ttl = e.ttl
  if not is_success and ttl == '-' then ttl = '31536000' end -- as RQ: a year for failures
  local score = ttl == '-1' and '+inf' or math.floor(TS) + tonumber(ttl)
  register(PREFIX .. (is_success and ':finished:' or ':failed:') .. e.queue, score, e.id)
  -- A future job's own keys are needed until its blockers are retired (lua/step_futures.lua).
  if ttl ~= '-1' then
    redis.call('EXPIRE', e.key, ttl)
    if dependencies then redis.call('EXPIRE', dependencies, ttl) end
  end
  if facts then will_settle(e.id, e.status, nil, facts) end
  return 'ok'
end

local answers, ends_of_jobs = {}, {}
for i = 1, tonumber(take()) do ends_of_jobs[i] = take_end() end
if #ends_of_jobs > 0 then
  find_held()
  local has_dependents = redis.call('EXISTS', unpack(job_keys)) > 0
  for i, e in ipairs(ends_of_jobs) do answers[i] = finish(e, has_dependents) end
  drop_executions()
  register_all() -- before the settling, which may move some of them
  settle_all()
  if succeeded > 0 then redis.call('HINCRBY', worker_key, 'successful_job_count', succeeded) end
  if failed > 0 then redis.call('HINCRBY', worker_key, 'failed_job_count', failed) end
  redis.call('HINCRBYFLOAT', worker_key, 'total_working_time', seconds)
end

-- Claiming --------------------------------------------------------------------------------------

local claims, members = {}, {}
local alone, short_cost = 0, 0 -- children taken by one job each; seconds of short jobs

local function fits(cost)
  if #claims >= limit then return false end
  if cost then
    if alone + math.ceil((short_cost + cost) / budget) > slots then return false end
    short_cost = short_cost + cost
    return true
  end
  if alone == idle or alone + 1 + math.ceil(short_cost / budget) > slots then return false end
  alone = alone + 1
  return true
end

local function record(id, execution, member, ttl)
  local key = PREFIX .. ':execution:' .. member
  redis.call('HSET', key, 'id', execution, 'job_id', id, 'created_at', ARGV[3],
    'last_heartbeat', ARGV[3], 'worker_name', worker)
  redis.call('EXPIRE', key, ttl)
  redis.call('ZADD', PREFIX .. ':executions:' .. id, math.floor(TS) + ttl + 60, execution)
end

local function claim(id, queue, lean, raw, is_short)
  local key = job_key(id)
  local execution = base .. string.format('%08x', #claims)
  local member = id .. ':' .. execution
  local timeout = int(raw.timeout)
  local ttl = (timeout > 0 and math.min(timeout, interval) or interval) + 60
  if not is_short then record(id, execution, member, ttl) end
  register(PREFIX .. ':wip:' .. queue, math.floor(TS) + ttl, member)
  redis.call('HSET', key, 'last_heartbeat', NOW, 'status', 'started', 'started_at', NOW,
    'worker_name', worker)
  -- A time to live comes from `ttl`, or from an earlier end.
  if raw.ttl or raw.ended_at then redis.call('PERSIST', key) end
  begin(id, raw, worker)
  members[#members + 1] = member
  claims[#claims + 1] = { id, execution, queue, lean, is_short and 1 or 0 }
end

-- The hash as a table, and as a list; both without empty fields.
local function read(flat)
  local raw, lean, is_lean = {}, flat, true
  for i = 1, #flat, 2 do
    local value = flat[i + 1]
    if value ~= '' then raw[flat[i]] = value else is_lean = false end
  end
  if not is_lean then
    lean = {}
    for name, value in pairs(raw) do
      lean[#lean + 1] = name
      lean[#lean + 1] = value
    end
  end
  return raw, lean
end

-- The kind of a job, for the estimate of its time: its function, as its description shows it.
local function kind_of(raw, queue)
  return string.match(raw.description or '', '^([^(]+)%(') or queue
end

-- Returns true when the children have enough.
local function claim_from(queue)
  local list = PREFIX .. ':queue:' .. queue
  local chunk = math.min(limit - #claims, knows_short and 64 or slots)
  if chunk <= 0 then return true end
  local popped, is_full = 0, false
  local ids = redis.call('LRANGE', list, 0, chunk - 1)
  for _, id in ipairs(ids) do
    local flat = redis.call('HGETALL', job_key(id))
    if #flat == 0 then -- its own ttl is over, or it was deleted by a plain tool
      if redis.call('EXISTS', mortal_key(id)) == 1 then will_settle(id, 'expired') end
    else
      local raw, lean = read(flat)
      local cost = cost_by_kind[kind_of(raw, queue)]
      if not fits(cost) then
        is_full = true
        break
      end
      claim(id, queue, lean, raw, cost)
    end
    popped = popped + 1
  end
  if popped > 0 then redis.call('LPOP', list, popped) end
  if is_full then return true end
  if #ids == chunk then return claim_from(queue) end
  return false
end

local suspended = redis.call('EXISTS', PREFIX .. ':suspended')
local more = 0
if slots > 0 and suspended == 0 then
  local is_full = false
  for _, queue in ipairs(queues) do
    is_full = is_full or claim_from(queue)
    if is_full and redis.call('EXISTS', PREFIX .. ':queue:' .. queue) == 1 then
      more = 1
      break
    end
  end
  register_all()
  settle_all()
end
if #members > 0 then redis.call('SADD', held_key, unpack(members)) end
local held = redis.call('SCARD', held_key)
redis.call('HSET', worker_key, 'state', suspended == 1 and held == 0 and 'suspended'
  or held > 0 and 'busy' or 'idle', 'last_heartbeat', NOW)
return { answers, claims, held, suspended, more }
