-- turn.lua: one turn of a flowq worker: it ends executions, settles them, and claims the next jobs.
--
-- ARGV   4 name of the worker   5 first part of the new executions' ids
--        6 slots: how many children can take work   7 how many of these are idle: the others can
--        take short jobs only   8 budget: seconds of short jobs for one child
--        9 how many jobs at most   10 seconds between heartbeats
--        11 number of queues, then their names in order of priority
--        then the number of known kinds of short jobs, then kind, seconds for each
--        then the number of ends, then for each of them
--          job, execution, queue, status (finished|failed), started_at, ended_at (as RQ writes them),
--          the same in epoch seconds, ttl ("" none, -1 for ever), result field ("" none), its value,
--          generation, kind of the result (RQ's number), "1" when its claim was a light one
-- Returns {answers, claims, held, suspended}:
--   answers    for each end "ok", "lost" (the execution was taken from us: nothing is written) or
--              "long" (jobs depend on it: RQ's own way has to end it, nothing is written)
--   claims     {job, execution, queue, {field, value…}, 1 for a light one} for each claimed job; the
--              hash as it was before, without empty fields
--   held       how many executions the worker has now
--   suspended  1 when RQ's workers are suspended and nothing is claimed
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

local released, records, succeeded, failed, seconds = {}, {}, 0, 0, 0
local scores_by_registry = {}

local function drop_execution(e)
  local member = e.id .. ':' .. e.execution
  released[#released + 1] = member
  if e.light == '1' then return end
  records[#records + 1] = PREFIX .. ':execution:' .. member
  redis.call('ZREM', PREFIX .. ':executions:' .. e.id, e.execution)
end

local function register(registry, score, id)
  local list = scores_by_registry[registry]
  if not list then
    list = {}
    scores_by_registry[registry] = list
  end
  list[#list + 1] = score
  list[#list + 1] = id
end

local function register_all()
  for registry, list in pairs(scores_by_registry) do redis.call('ZADD', registry, unpack(list)) end
  scores_by_registry = {}
end

local function keep_result(e)
  local key = PREFIX .. ':results:' .. e.id
  local entry = { 'type', e.result, 'worker_name', worker }
  if e.field ~= '' then
    entry[#entry + 1] = e.field
    entry[#entry + 1] = e.value
  end
  redis.call('XADD', key, 'MAXLEN', '~', 10, '*', 'execution_id', e.execution,
    'execution_started_at', e.started_ts, 'execution_ended_at', e.ended_ts, unpack(entry))
  if e.ttl == '-1' then
    redis.call('PERSIST', key)
  elseif e.ttl ~= '' then
    redis.call('EXPIRE', key, e.ttl)
  end
end

-- RQ's cancel() of a running job takes its WIP entry away, and lets it run to its end.
local function was_canceled(id, execution)
  return redis.call('HGET', job_key(id), 'status') == 'canceled'
    and redis.call('SISMEMBER', held_key, id .. ':' .. execution) == 1
end

local function finish(e)
  local key = job_key(e.id)
  if redis.call('EXISTS', key .. ':dependents') == 1 then return 'long' end
  if redis.call('ZREM', PREFIX .. ':wip:' .. e.queue, e.id .. ':' .. e.execution) == 0
    and not was_canceled(e.id, e.execution) then
    return 'lost'
  end
  drop_execution(e)
  seconds = seconds + (tonumber(e.ended_ts) - tonumber(e.started_ts))
  local is_success = e.status == 'finished'
  if is_success then succeeded = succeeded + 1 else failed = failed + 1 end
  local f = redis.call('HMGET', key, 'status', 'flowq_gen', 'flowq_future', 'flowq_blocks',
    'flowq_run', 'dependency_ids')
  if not f[1] then return 'ok' end -- deleted while it ran
  if e.ttl == '0' then
    redis.call('DEL', key, PREFIX .. ':results:' .. e.id, PREFIX .. ':job::' .. e.id .. ':dependencies')
    return 'ok'
  end
  redis.call('HSET', key, 'status', e.status, 'started_at', e.started_at, 'ended_at', e.ended_at,
    'last_heartbeat', e.ended_at)
  keep_result(e)
  local ttl = e.ttl
  if not is_success and ttl == '' then ttl = '31536000' end -- as RQ: a year for failures
  local score = ttl == '-1' and '+inf' or math.floor(TS) + tonumber(ttl)
  register(PREFIX .. (is_success and ':finished:' or ':failed:') .. e.queue, score, e.id)
  -- A future job's own keys are needed until its blockers are retired (lua/step.lua).
  if ttl ~= '-1' then redis.call('EXPIRE', key, ttl) end
  if f[6] and ttl ~= '-1' then
    redis.call('EXPIRE', PREFIX .. ':job::' .. e.id .. ':dependencies', ttl)
  end
  if (f[3] or f[4] or f[5]) and int(e.generation) >= int(f[2]) then
    will_settle(e.id, e.status)
  end
  return 'ok'
end

local answers = {}
for i = 1, tonumber(take()) do
  answers[i] = finish({ id = take(), execution = take(), queue = take(), status = take(),
    started_at = take(), ended_at = take(), started_ts = take(), ended_ts = take(), ttl = take(),
    field = take(), value = take(), generation = take(), result = take(), light = take() })
end
register_all() -- before the settling, which may move some of them
settle_all()
if #released > 0 then redis.call('SREM', held_key, unpack(released)) end
if #records > 0 then redis.call('DEL', unpack(records)) end
if succeeded > 0 then redis.call('HINCRBY', worker_key, 'successful_job_count', succeeded) end
if failed > 0 then redis.call('HINCRBY', worker_key, 'failed_job_count', failed) end
if #released > 0 then redis.call('HINCRBYFLOAT', worker_key, 'total_working_time', seconds) end

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

-- The hash as a table, and as a list again; both without empty fields.
local function read(flat)
  local raw, lean, n = {}, {}, 0
  for i = 1, #flat, 2 do
    local value = flat[i + 1]
    if value ~= '' then
      raw[flat[i]] = value
      lean[n + 1] = flat[i]
      lean[n + 2] = value
      n = n + 2
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
if slots > 0 and suspended == 0 then
  for _, queue in ipairs(queues) do
    if claim_from(queue) then break end
  end
  register_all()
  settle_all()
end
if #members > 0 then redis.call('SADD', held_key, unpack(members)) end
local held = redis.call('SCARD', held_key)
redis.call('HSET', worker_key, 'state', suspended == 1 and held == 0 and 'suspended'
  or held > 0 and 'busy' or 'idle', 'last_heartbeat', NOW)
return { answers, claims, held, suspended }
