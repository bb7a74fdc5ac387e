-- turn_claims.lua: The second half of a turn: the jobs that the worker claims.

local FEW = 4 -- jobs for a child that are worth a turn
local base, places, idle, budget, limit, interval, most
local queues, cost_by_kind, least_cost
local claims, members, kinds -- the first two are in the table as well
local called_off -- by run: whether its jobs must not begin any more
local ended, gone -- how many jobs in the queues this turn has ended instead, and that were no more
local MANY_ENDS, MANY_GONE = 64, 1000 -- enough of them for one turn
local alone, short_cost -- children taken by one job each; seconds of short jobs

local function fits(cost)
  if #claims >= limit then return false end
  if cost then
    if alone + math.ceil((short_cost + cost) / budget) > places then return false end
    short_cost = short_cost + cost
    return true
  end
  if alone == idle or alone + 1 + math.ceil(short_cost / budget) > places then return false end
  alone = alone + 1
  return true
end

-- Whether some job could still fit.
local function has_room()
  local used = alone + math.ceil(short_cost / budget)
  if alone < idle and used < places then return true end
  return least_cost and alone + math.ceil((short_cost + least_cost) / budget) <= places
end

local function record(id, execution, member, ttl)
  local key = PREFIX .. ':execution:' .. member
  redis.call('HSET', key, 'id', execution, 'job_id', id, 'created_at', TS,
    'last_heartbeat', TS, 'worker_name', turn.worker)
  redis.call('EXPIRE', key, ttl)
  redis.call('ZADD', PREFIX .. ':executions:' .. id, math.floor(TS) + ttl + 60, execution)
end

-- What the end of the execution has to know: "l" light, "p" plain, "-" none of them. A plain job is
-- no future job and of no run, has no time to live and no dependencies, and did not end before.
local function marks_of(raw, is_short)
  local is_plain = not (raw.flowq_future or raw.flowq_run or raw.ttl or raw.dependency_ids
    or raw.ended_at)
  return is_plain and (is_short and 'lp' or 'p') or is_short and 'l' or '-'
end

local function claim(id, queue, lean, raw, is_short)
  local key = keys.job(id)
  local execution = base .. string.format('%08x', #claims)
  local member = id .. ':' .. execution
  local timeout = int(raw.timeout)
  local ttl = (timeout > 0 and math.min(timeout, interval) or interval) + 60
  if not is_short then record(id, execution, member, ttl) end
  turn.register(PREFIX .. ':wip:' .. queue, math.floor(TS) + jobs.WIP_S, member)
  if raw.flowq_run then
    redis.call('HSET', key, 'last_heartbeat', NOW, 'status', 'started', 'started_at', NOW,
      'worker_name', turn.worker, 'flowq_attempts', int(raw.flowq_attempts) + 1)
  else
    redis.call('HSET', key, 'last_heartbeat', NOW, 'status', 'started', 'started_at', NOW,
      'worker_name', turn.worker)
  end
  -- A time to live comes from `ttl`, or from an earlier end.
  if raw.ttl or raw.ended_at then redis.call('PERSIST', key) end
  attempts.begin(id, raw, turn.worker, is_short and 'handed' or 'started')
  members[#members + 1] = member
  claims[#claims + 1] = { id, execution, queue, lean, marks_of(raw, is_short) }
end

-- The hash as a table, and as a list; both without empty fields.
local function read(flat)
  -- With the names that most have: a table that grows is made anew each time.
  local raw = { created_at = false, data = false, description = false, enqueued_at = false,
    origin = false, status = false, timeout = false, ttl = false, ended_at = false,
    flowq_blocks = false, flowq_gates = false, flowq_future = false, flowq_run = false,
    flowq_outcome = false, flowq_slots = false, dependency_ids = false }
  local lean, is_lean = flat, true
  for i = 1, #flat, 2 do
    local value = flat[i + 1]
    if value ~= '' then raw[flat[i]] = value else is_lean = false end
  end
  if not is_lean then
    lean = {}
    for i = 1, #flat, 2 do
      if flat[i + 1] ~= '' then
        lean[#lean + 1] = flat[i]
        lean[#lean + 1] = flat[i + 1]
      end
    end
  end
  return raw, lean
end

-- The kind of a job, for the estimate of its time: its function, as its description shows it.
local function kind_of(raw, queue)
  local description = raw.description or ''
  local kind = kinds[description] -- many have the same
  if kind == nil then
    kind = string.match(description, '^([^(]+)%(') or false
    kinds[description] = kind
  end
  return kind or queue
end

-- Whether the job's run is being canceled; then it ends now.
local function is_called_off(id, queue, list, raw)
  local run = raw.flowq_run
  if not run then return false end
  local known = run .. (raw.flowq_always and ' always' or '')
  if called_off[known] == nil then
    called_off[known] = runs.is_canceling(run, raw.flowq_always) and true or false
  end
  if called_off[known] then
    -- It is at the front. `call_off` takes it from there, unless its hash says something else.
    if raw.status ~= 'queued' or raw.origin ~= queue then redis.call('LREM', list, 1, id) end
    jobs.call_off(id, 'canceled', runs.why_canceled(run))
    ended = ended + 1
  end
  return called_off[known]
end

-- Whether the job has what it needs of limits across runs, whoever has queued it; otherwise it waits.
local function has_slots(id, queue, raw)
  if raw.flowq_judging == 'due' or slots.take(id, raw.flowq_slots) then return true end
  redis.call('HSET', keys.job(id), 'status', 'deferred')
  redis.call('ZADD', PREFIX .. ':deferred:' .. queue, '+inf', id)
  if raw.flowq_future then redis.call('HSET', keys.future(id), 'state', 'met') end
  runs.note_event(id, raw.flowq_pause_events,
    runs.log(raw.flowq_run, id, raw.flowq_name, 'deferred', 'waits for a slot'))
  ended = ended + 1
  return false
end

-- Returns "full" when the children have enough, "more" when it has also seen a job that is left.
local function claim_from(queue)
  local list = PREFIX .. ':queue:' .. queue
  local chunk = math.min(limit - #claims, most)
  if chunk <= 0 or not has_room() then return 'full' end
  local popped, is_full = 0, false
  local ids = redis.call('LRANGE', list, 0, chunk) -- one more, to know whether there is one
  for i = 1, math.min(#ids, chunk) do
    local id = ids[i]
    local flat = redis.call('HGETALL', keys.job(id))
    local raw, lean
    if #flat > 0 then raw, lean = read(flat) end
    if not raw then -- its own ttl is over, or it was deleted by a plain tool
      gone = gone + 1
      if redis.call('EXISTS', keys.mortal(id)) == 1 then
        settling.add(id, 'expired')
        ended = ended + 1
      end
      popped = popped + 1
    elseif not is_called_off(id, queue, list, raw) then
      -- A job that counts across runs begins when it is claimed, so it is none of several for one child.
      local is_across = raw.flowq_slots and raw.flowq_run and slots.are_across_runs(raw.flowq_slots)
      local cost = not is_across and cost_by_kind[kind_of(raw, queue)] or nil
      if is_across and not has_slots(id, queue, raw) then
        popped = popped + 1
      elseif not fits(cost) then
        is_full = true
        break
      else
        claim(id, queue, lean, raw, cost)
        popped = popped + 1
      end
    end
  end
  if popped > 0 then redis.call('LPOP', list, popped) end
  if is_full then return 'more' end
  if #ids <= chunk then return nil end
  if ended >= MANY_ENDS or gone >= MANY_GONE then return 'more' end
  local state = claim_from(queue)
  return state == 'full' and 'more' or state
end

-- How many of the jobs that are left to claim: half of the last ones, so that nobody waits long for
-- the end of those, and whoever has nothing to do finds some.
local function share()
  local count = 0
  for _, queue in ipairs(queues) do
    count = count + redis.call('LLEN', PREFIX .. ':queue:' .. queue)
    if count >= 2 * most then return most end
  end
  return math.max(math.ceil(count / 2), FEW * places)
end

-- Claims what there is room for; returns whether RQ's workers are suspended, and 1 for more jobs.
function turn_claims.claim_all()
  if places == 0 then return false, 0 end
  if redis.call('EXISTS', PREFIX .. ':suspended') == 1 then return true, 0 end
  if most > FEW * places then limit = math.min(limit, share()) end
  local state
  for _, queue in ipairs(queues) do
    state = state or claim_from(queue)
    if state == 'more' then return false, 1 end
    if state and redis.call('EXISTS', PREFIX .. ':queue:' .. queue) == 1 then return false, 1 end
  end
  return false, 0
end

function turn_claims.begin(argv)
  base = argv[5]
  places, idle, budget = tonumber(argv[6]), tonumber(argv[7]), tonumber(argv[8])
  limit, interval = tonumber(argv[9]), tonumber(argv[10])
  claims, members, kinds, called_off, alone, short_cost = {}, {}, {}, {}, 0, 0
  ended, gone = 0, 0
  turn_claims.claims, turn_claims.members = claims, members
  queues, cost_by_kind, least_cost = {}, {}, nil
  for i = 1, tonumber(turn.take()) do queues[i] = turn.take() end
  for _ = 1, tonumber(turn.take()) do
    local kind, cost = turn.take(), tonumber(turn.take())
    cost_by_kind[kind] = cost
    least_cost = math.min(least_cost or cost, cost)
  end
  most = places
  if least_cost then
    most = math.min(64, math.max(places, math.ceil(places * budget / least_cost)))
  end
end
