-- turn_ends.lua: The first half of a turn: the executions that have ended.

local ends_by_wip, job_keys, records

local END_LINE = '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$'

local function take_end()
  local id, execution, status, started_at, started_ts, ended_at, ended_ts, ttl, field, generation,
    result, marks, code = string.match(turn.take(), END_LINE)
  local e = { id = id, execution = execution, queue = turn.take(), status = status,
    started_at = started_at, ended_at = ended_at, started_ts = started_ts, ended_ts = ended_ts,
    result_ttl = ttl, field = field, value = turn.take(), generation = generation, result = result,
    marks = marks, code = code, key = keys.job(id), member = id .. ':' .. execution }
  e.view = string.find(marks, 'v', 1, true) and turn.take() or ''
  e.short_view = string.find(marks, 's', 1, true) and turn.take()
  e.printed = string.find(marks, 'o', 1, true) and turn.take()
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
  if string.find(e.marks, 'l', 1, true) then return end
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
  if #released > 0 then redis.call('SREM', turn.held_key, unpack(released)) end
  if #records > 0 then redis.call('DEL', unpack(records)) end
end

local function add_result(key, e, ...)
  redis.call('XADD', key, 'MAXLEN', '~', 10, '*', 'execution_id', e.execution, 'execution_started_at',
    e.started_ts, 'execution_ended_at', e.ended_ts, 'type', e.result, 'worker_name', turn.worker, ...)
end

-- `has_ended`: it ended before, and what is there may have a time to live.
local function keep_result(e, has_ended)
  local key = PREFIX .. ':results:' .. e.id
  if e.code ~= '-' then
    if e.field ~= '-' then
      add_result(key, e, 'flowq_code', e.code, e.field, e.value)
    else
      add_result(key, e, 'flowq_code', e.code)
    end
  elseif e.field ~= '-' then
    add_result(key, e, e.field, e.value)
  else
    add_result(key, e)
  end
  if e.result_ttl == '-1' then
    if has_ended then redis.call('PERSIST', key) end
  elseif e.result_ttl ~= '-' then
    redis.call('EXPIRE', key, e.result_ttl)
  end
end

-- RQ's cancel() of a running job takes its WIP entry away, and lets it run to its end.
local function was_canceled(e)
  return redis.call('HGET', e.key, 'status') == 'canceled'
    and redis.call('SISMEMBER', turn.held_key, e.member) == 1
end

-- Writes the end into the job's hash. Returns whether it concerns anybody; then `e` has also what settling
-- has to know.
local function write_end(e, f)
  local is_tracked = (f[3] or f[5] or f[6]) and int(e.generation) >= int(f[2])
  if f[6] and e.short_view then e.view = printed.choose_view(f[6], e.view, e.short_view) end
  if f[6] and e.code ~= '-' then
    redis.call('HSET', e.key, 'status', e.status, 'started_at', e.started_at, 'ended_at', e.ended_at,
      'flowq_view', e.view, 'flowq_code', e.code)
  elseif f[6] then
    redis.call('HSET', e.key, 'status', e.status, 'started_at', e.started_at, 'ended_at', e.ended_at,
      'flowq_view', e.view)
  elseif is_tracked then -- what it counts for in a run is not known yet
    redis.call('HSET', e.key, 'status', e.status, 'started_at', e.started_at, 'ended_at', e.ended_at,
      'flowq_outcome', e.status)
  else
    redis.call('HSET', e.key, 'status', e.status, 'started_at', e.started_at, 'ended_at', e.ended_at)
  end
  if not is_tracked then return false end
  e.exists, e.blocks, e.before, e.future, e.run, e.ttl = true, f[3], f[4], f[5], f[6], f[7]
  e.is_noted = not f[6]
  return true
end

-- What a plain job did not have when it was claimed, it has not got since.
local function read_for_end(e)
  if string.find(e.marks, 'p', 1, true) then
    return redis.call('HMGET', e.key, 'status', 'flowq_gen', 'flowq_blocks', 'flowq_outcome')
  end
  return redis.call('HMGET', e.key, 'status', 'flowq_gen', 'flowq_blocks', 'flowq_outcome',
    'flowq_future', 'flowq_run', 'ttl', 'dependency_ids', 'ended_at')
end

local function finish(e, has_dependents)
  if has_dependents and redis.call('EXISTS', e.key .. ':dependents') == 1 then return 'conclude' end
  if not e.is_held and not was_canceled(e) then return 'lost' end
  e.is_over = true
  drop_record(e)
  local is_success = e.status == 'finished'
  local f = read_for_end(e)
  if not f[1] then return 'ok' end -- deleted while it ran
  local dependencies = f[8] and PREFIX .. ':job::' .. e.id .. ':dependencies'
  local is_plain = not (f[3] or f[5] or f[6])
  if is_plain or e.result_ttl == '0' then -- nobody settles it
    metrics.count_end(e.queue, e.status, math.max(0, tonumber(e.ended_ts) - tonumber(e.started_ts)))
  end
  if e.result_ttl == '0' then
    redis.call('DEL', e.key, PREFIX .. ':results:' .. e.id)
    if dependencies then redis.call('DEL', dependencies) end
    return 'ok'
  end
  local is_awaited = write_end(e, f)
  if e.printed and f[6] then
    printed.keep(f[6], e.id, e.printed, not is_success, string.find(e.marks, 'r', 1, true))
  end
  keep_result(e, f[9] and f[9] ~= '')
  local ttl = e.result_ttl
  if not is_success and ttl == '-' then ttl = '31536000' end -- as RQ: a year for failures
  local score = ttl == '-1' and '+inf' or math.floor(TS) + tonumber(ttl)
  turn.register(PREFIX .. (is_success and ':finished:' or ':failed:') .. e.queue, score, e.id)
  -- A future job's own keys are needed until its blockers are retired (retention.lua).
  if ttl ~= '-1' then
    redis.call('EXPIRE', e.key, ttl)
    if dependencies then redis.call('EXPIRE', dependencies, ttl) end
  end
  e.value, e.view, e.printed = nil, nil, nil -- they may be long, and a function of a library keeps its tables
  if is_awaited then settling.add(e.id, e.status, nil, e) end
  return 'ok'
end

-- Ends what has ended; returns the answers.
function turn_ends.end_all()
  ends_by_wip, job_keys, records = {}, {}, {}
  printed.reset()
  local answers, ends = {}, {}
  for i = 1, tonumber(turn.take()) do ends[i] = take_end() end
  if #ends == 0 then return answers end
  find_held()
  local has_dependents = redis.call('EXISTS', unpack(job_keys)) > 0
  for i, e in ipairs(ends) do answers[i] = finish(e, has_dependents) end
  drop_executions()
  turn.register_all() -- before the settling, which may move some of them
  settling.settle_all()
  return answers
end
