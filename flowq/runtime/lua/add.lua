-- add.lua: enqueues jobs with holds, all of them or none.
--
-- ARGV   4 number of jobs, then for each part of them that has this in common, its shape:
--          queue, future ("" or "policy if_empty expires_in": the first "-" for the default, the
--          last in seconds or "-"), at ("" or seconds), run, id ("new": never used before,
--          "unique": an error if it is used, or ""), number of fields, field, value, field, value …
--          number of these jobs, and for each of them
--            id, blocks ("a b! c"), name, created_at, data, description
-- Returns {"existing", id, …, {id, queue}, …} if all jobs are enqueued. Each id is that of a job which
-- existed before (often none), as a blocker of the same future jobs, or in the same run without blocking
-- anything. Each {id, queue} is a job that went to its run's own queue instead of the queue given.
-- Otherwise returns the reason, and writes nothing:
--   {"missing", future}            there is no such job
--   {"closed", future, name}       a job of a run, and its workflow does not declare it as open
--   {"plain", future}              the job is not a future job
--   {"started", future}            it has been queued already
--   {"ended", future, state}       it is over
--   {"self", id}                   it would block itself
--   {"taken", id, by}              the id belongs to a job that has not ended, or is needed
--   {"queue", id}                  the id is the name of a queue
--   {"future", queue}              the queue has the name of a future job
--   {"duplicate", id}              unique, and the id exists
--   {"norun", run, state}          the run is gone (""), has ended, or is being canceled ("canceling");
--                                  then jobs that run nevertheless may add others, which do so too
--   {"busy", id}                   an earlier job of that id has steps left (abandon:, retire:)
-- O(1) for each job, in the number of blockers of its future jobs.

-- Of this call:
local argv, at -- the arguments, and how far they have been read
local asked, hashes -- the jobs, and the keys of their hashes
local fresh, seen, queues -- its new future jobs by id, all its ids, all its queues
local answered -- by functions that are made by `once`
local has_steps -- whether any steps are left to make
local is_any_there -- whether one of the hashes exists: most often none does
local existing -- the jobs that were added before
local known_blockers -- ids that may have been used before, by the future job that each blocks
local blocked -- the future jobs that get blockers
local decided -- future jobs that have started already (firsts.lua): they get no edges any more
local deferred, members_of_run, unended_of_run -- lists by queue, and by run

local function begin(arguments)
  argv, at = arguments, 3
  asked, hashes, fresh, seen, queues, answered = {}, {}, {}, {}, {}, {}
  has_steps, is_any_there = redis.call('EXISTS', TODO) == 1, false
  existing, known_blockers, blocked, decided = {}, {}, {}, {}
  deferred, members_of_run, unended_of_run = {}, {}, {}
end

local function take()
  at = at + 1
  return argv[at]
end

local function take_shape()
  local shape = { queue = take(), future = take(), at = take(), run = take(), id = take() }
  local fields, given = {}, {}
  for _ = 1, tonumber(take()) do
    local field, value = take(), take()
    fields[#fields + 1] = field
    fields[#fields + 1] = value
    given[field] = value
  end
  shape.fields, shape.count, shape.given = fields, #fields, given
  queues[shape.queue] = true
  return shape
end

-- What is asked for each job, and the answer holds for the whole call: nothing is written before.
local function once(ask)
  return function(name, job)
    local answers = answered[ask]
    if not answers then
      answers = {}
      answered[ask] = answers
    end
    if answers[name] == nil then answers[name] = ask(name, job) or false end
    return answers[name]
  end
end

local edges_of = once(function(blocks)
  local list = {}
  for future, mark in each_future(blocks) do list[#list + 1] = { future = future, mark = mark } end
  return list
end)

local function read()
  local total = tonumber(take())
  while #asked < total do
    local shape = take_shape()
    for _ = 1, tonumber(take()) do
      local id, blocks = take(), take()
      local key = keys.job(id)
      hashes[#hashes + 1] = key
      asked[#asked + 1] = { shape = shape, id = id, key = key, blocks = blocks, run = shape.run,
        queue = shape.queue,
        edges = edges_of(blocks), name = take(), created_at = take(), data = take(),
        description = take() }
    end
  end
end

-- For each part of a list that is short enough for `unpack`, which ends at some 8,000 values.
local function in_parts(list, call)
  for first = 1, #list, 2000 do call(unpack(list, first, math.min(first + 1999, #list))) end
end

local refused_as_future = once(function(future)
  if redis.call('TYPE', keys.blockers(future)).ok == 'zset' then return { 'queue', future } end
  local f = redis.call('HMGET', keys.future(future), 'state', 'decided')
  local state, status = f[1], redis.call('HGET', keys.job(future), 'status')
  if not status then return { 'missing', future } end
  if not state then return { 'plain', future } end
  if f[2] and not CALLED_OFF[state] then
    decided[future] = true
    return nil
  end
  local is_open = UNDECIDED[state] or state == 'met'
  if is_open and status == 'canceled' then return { 'ended', future, status } end -- by RQ's own Job
  if is_open and status ~= 'deferred' or state == 'queued' then return { 'started', future } end
  if not is_open then return { 'ended', future, state } end
end)

-- What holds for these edges holds for those of each job that has the same.
local function refused_edges(job)
  if job.edges.are_fine then return nil end
  for _, edge in ipairs(job.edges) do
    local future = edge.future
    if future == job.id then return { 'self', future } end
    local reason = not fresh[future] and refused_as_future(future)
    if reason then return reason end
  end
  job.edges.are_fine = true
end

local refused_queue = once(function(queue)
  if redis.call('TYPE', PREFIX .. ':deferred:' .. queue).ok == 'list'
    or redis.call('EXISTS', keys.future(queue)) == 1 then
    return { 'future', queue }
  end
end)

-- Whether a job was added to a future job that had started already.
local function was_added_later(id, future)
  if redis.call('HEXISTS', keys.future(future), 'decided') == 0 then return false end
  for other in each_future(redis.call('HGET', keys.job(id), 'flowq_blocks')) do
    if other == future then return true end
  end
  return false
end

local function blocks_already(job)
  if job.blocks == '' then
    return job.run ~= '' and redis.call('HGET', keys.job(job.id), 'flowq_run') == job.run
  end
  for _, edge in ipairs(job.edges) do
    local is_known = redis.call('HEXISTS', keys.edges(edge.future), job.id) == 1
    if not is_known and not was_added_later(job.id, edge.future) then return false end
  end
  return true
end

local HAS_ENDED = { finished = true, failed = true, stopped = true, canceled = true }

-- Whether this very call has been made before, and its reply was lost: clients then send it again.
local function is_resent(job, status, created_at)
  return status and not HAS_ENDED[status] and created_at == job.created_at
end

local function refused_id(job)
  if seen[job.id] then return { 'taken', job.id, 'another job of this call' } end
  seen[job.id] = true
  local f = is_any_there and redis.call('HMGET', keys.job(job.id), 'status', 'created_at') or {}
  local status = f[1]
  if is_resent(job, status, f[2]) then
    job.exists = true
    return nil
  end
  if has_steps and job.shape.id ~= 'new' and HAS_ENDED[status or 'canceled'] then
    for _, operation in ipairs({ 'abandon:', 'retire:' }) do
      if redis.call('ZSCORE', TODO, operation .. job.id) then return { 'busy', job.id } end
    end
  end
  if not status then return nil end
  if job.shape.id == 'unique' then return { 'duplicate', job.id } end
  if blocks_already(job) then
    job.exists = true
    existing[#existing + 1] = job.id
    return nil
  end
  if not HAS_ENDED[status] then
    return { 'taken', job.id, 'a job that is ' .. status }
  end
  for future in each_future(redis.call('HGET', keys.job(job.id), 'flowq_blocks')) do
    if UNDECIDED[redis.call('HGET', keys.future(future), 'state')]
      and redis.call('HEXISTS', keys.edges(future), job.id) == 1 then
      return { 'taken', job.id, 'a blocker of ' .. future }
    end
  end
end

-- The run of the first of these future jobs that is part of one; `closed` is why the job cannot be added.
local function find_run(list)
  local run
  for _, edge in ipairs(list) do
    local added, f = fresh[edge.future], {}
    if added then -- in this very call, so it has no hash yet
      if added.run ~= '' and not run then run = { id = added.run, inside = added.inside } end
    else
      f = redis.call('HMGET', keys.job(edge.future), 'flowq_run', 'flowq_open', 'flowq_name')
    end
    if f[1] and not run then
      run = { id = f[1], inside = nested.find_inside_before(edge.future) }
    end
    if f[1] and not f[2] and redis.call('HEXISTS', keys.run(f[1]), 'declares_open') == 1 then
      run.closed = run.closed or { 'closed', edge.future, f[3] or '' }
    end
  end
  return run
end

-- A blocker of a run's future job belongs to that run, whoever adds it.
local function inherit_run(job)
  if job.edges.run == nil then job.edges.run = find_run(job.edges) or false end
  local run = job.edges.run
  if not run then return end
  job.run, job.inside, job.is_added = run.id, run.inside, true
  job.name = runs.name_of(job.id, run.id)
end

local read_run = once(function(run)
  return redis.call('HMGET', keys.run(run), 'state', 'canceling', 'max_parallel', 'queue')
end)

local read_always = once(function(adder) return redis.call('HGET', keys.job(adder), 'flowq_always') end)

-- What a job adds runs in a canceled run when that job does. What the start of a workflow adds does so
-- because of what is outside of that workflow, which does not count when the workflow itself is late.
local function inherit_always(job, adder)
  local always = adder and read_always(adder)
  if not always then return false end
  local inside = job.inside or job.shape.given.flowq_inside
  return inside and adder == nested.start_id(inside) and 'outside' or always
end

-- Returns why a job cannot be added to its run, or nil.
local function refused_by_run(job)
  local run, adder = read_run(job.run), job.shape.given.flowq_by
  job.always = inherit_always(job, adder)
  if run[1] ~= 'staged' and run[1] ~= 'running' then return { 'norun', job.run, run[1] or '' } end
  if run[2] and (run[2] == 'now' or not job.always) then
    return { 'norun', job.run, 'canceling' }
  end
  job.late, job.is_limited = run[1] == 'running', run[3]
  job.queue = run[4] or job.queue -- whatever queue was meant
end

-- The list of a future job's blockers, or of another kind where a queue has that name.
local function type_of_blockers(job)
  job.type_of_blockers = job.type_of_blockers or redis.call('TYPE', keys.blockers(job.id)).ok
  return job.type_of_blockers
end

local function refused(job)
  local future = job.shape.future
  if job.run == '' then inherit_run(job) end
  if future ~= '' and (queues[job.id] or redis.call('SISMEMBER', PREFIX .. ':queues',
    PREFIX .. ':queue:' .. job.id) == 1
    or type_of_blockers(job) == 'zset') then
    return { 'queue', job.id }
  end
  local reason = refused_queue(job.shape.queue) or refused_id(job)
  if reason or job.exists then return reason end
  reason = refused_edges(job) or job.is_added and job.edges.run.closed
    or job.run ~= '' and refused_by_run(job)
  if reason then return reason end
  if future ~= '' then fresh[job.id] = job end
end

-- Writing ---------------------------------------------------------------------------------------

local function list_in(lists, name)
  lists[name] = lists[name] or {}
  return lists[name]
end

-- How the edges to a future job are that are there already, by blocker.
local function read_edges(future)
  local old_by_id = {}
  in_parts(known_blockers[future] or {}, function(...)
    local olds, ids = redis.call('HMGET', keys.edges(future), ...), { ... }
    for i, id in ipairs(ids) do old_by_id[id] = olds[i] end
  end)
  return old_by_id
end

-- The future jobs that get blockers, as they are before the first; what is added to each goes into
-- its keys together, at the end.
local read_future = once(function(future)
  local f = redis.call('HMGET', keys.future(future), 'state', 'policy', 'freed')
  if f[1] == 'met' then futures.take_back(future) end
  return { key = keys.future(future), policy = f[2], freed = int(f[3]), blockers = {}, edges = {},
    olds = read_edges(future), counted = 0, is_releasing = f[1] == 'releasing',
    is_held = f[1] == 'open' or f[1] == 'releasing' }
end)

-- An edge that is there already holds again. The id of a blocker that is gone keeps its place.
local function renew_edge(job, future, f, old, mark)
  edges.move(future, job.id, old, 'pending' .. mark, f.policy)
  local place = f.is_releasing and redis.call('LPOS', keys.blockers(future), job.id)
  return f.is_held and not (place and place < f.freed) and 1 or 0
end

-- Returns how many gates the edge adds to the job.
local function add_edge(job, future, mark)
  local f = read_future(future)
  local old = f.olds[job.id]
  if old then return renew_edge(job, future, f, old, mark) end
  if #f.blockers == 0 then blocked[#blocked + 1] = future end
  f.blockers[#f.blockers + 1] = job.id
  f.edges[#f.edges + 1] = job.id
  f.edges[#f.edges + 1] = 'pending' .. mark
  if not job.shape.given.flowq_expands then f.counted = f.counted + 1 end
  return f.is_held and 1 or 0
end

local function write_edges(future)
  local f = read_future(future)
  in_parts(f.blockers, function(...) redis.call('RPUSH', keys.blockers(future), ...) end)
  in_parts(f.edges, function(...) redis.call('HSET', keys.edges(future), ...) end)
  redis.call('HINCRBY', f.key, 'pending', #f.blockers)
  if f.counted > 0 then redis.call('HINCRBY', f.key, 'total', f.counted) end
  if not f.is_held then redis.call('HINCRBY', f.key, 'freed', #f.blockers) end
end

local function open_future(job)
  local policy, if_empty, expires = string.match(job.shape.future, '(%S+) (%w+) (%S+)')
  -- As RQ's depends_on; but in a run a future job is skipped, so that every run has an end.
  if policy == '-' then policy = job.run ~= '' and 'skip' or 'wait' end
  redis.call('HSET', keys.future(job.id), 'state', 'open', 'policy', policy, 'if_empty', if_empty)
  if firsts.is_one(policy) then redis.call('HSET', keys.future(job.id), 'pending', 1) end
  if expires ~= '-' then redis.call('ZADD', OURS .. 'expiring', TS + tonumber(expires), job.id) end
end

-- What an earlier job of that id has left.
local function sweep(job)
  local key = keys.job(job.id)
  local swept = redis.call('DEL', key, keys.edges(job.id), keys.above(job.id), keys.future(job.id),
    keys.mortal(job.id),
    PREFIX .. ':results:' .. job.id)
  local may_have_blockers = swept > 0 or job.shape.future ~= ''
  if may_have_blockers and type_of_blockers(job) == 'list' then
    redis.call('DEL', keys.blockers(job.id))
  end
end

local words, count -- field, value … of the hash that is being written

local function set(field, value)
  if not value or value == '' then return end
  words[count + 1], words[count + 2] = field, value
  count = count + 2
end

-- Where the shape's fields stand already, the job's own follow.
local function write_hash(job)
  local shape = job.shape
  words, count = shape.fields, shape.count
  set('created_at', job.created_at)
  set('data', job.data)
  set('description', job.description)
  set('flowq_gates', job.gates)
  set('flowq_blocks', job.blocks)
  set('flowq_future', shape.future ~= '' and '1')
  set('flowq_at', shape.at)
  set('flowq_run', job.run)
  set('flowq_name', job.name)
  set('flowq_inside', job.inside)
  set('flowq_always', not shape.given.flowq_always and job.always)
  set('flowq_open', job.is_added and shape.future ~= '' and '1')
  set('flowq_late', job.late and shape.future ~= '' and '1')
  if job.is_limited then
    local limits = shape.given.flowq_slots
    set('flowq_slots', (limits and limits .. ' ' or '') .. 'run:' .. job.run)
  end
  if job.run ~= '' then set('flowq_retries', shape.given.retries_left) end
  if job.queue ~= shape.queue then
    set('origin', job.queue)
    set('flowq_queue', shape.queue)
  end
  redis.call('HSET', job.key, unpack(words, 1, count))
end

local function write_in_run(job)
  table.insert(list_in(members_of_run, job.run), job.id)
  local unended = list_in(unended_of_run, job.run)
  unended[#unended + 1], unended[#unended + 2] = job.id, job.blocks
  if job.late then runs.log(job.run, job.id, job.name, 'deferred') end
end

local function write(job)
  local shape = job.shape
  local given, is_future = shape.given, shape.future ~= ''
  if shape.id ~= 'new' then sweep(job) end
  if is_future then open_future(job) end
  for _, dependency in ipairs(given.dependency_ids and cjson.decode(given.dependency_ids) or {}) do
    redis.call('SREM', keys.job(dependency) .. ':dependents', job.id) -- of a deleted job of that id
  end
  job.gates = 0
  for _, edge in ipairs(job.edges) do
    if not decided[edge.future] then job.gates = job.gates + add_edge(job, edge.future, edge.mark) end
  end
  write_hash(job)
  local list = list_in(deferred, job.queue)
  list[#list + 1] = '+inf'
  list[#list + 1] = job.id
  if job.run ~= '' then write_in_run(job) end
  if given.flowq_group then groups.count(given.flowq_group, 'new', nil) end
  if given.flowq_by and (is_future or nested.is_start(given.flowq_by, given.flowq_inside)) then
    redis.call('HSET', keys.job(given.flowq_by), 'flowq_adds', 1)
  end
end

local function write_lists()
  for _, future in ipairs(blocked) do write_edges(future) end
  for queue, list in pairs(deferred) do
    redis.call('SADD', PREFIX .. ':queues', PREFIX .. ':queue:' .. queue)
    in_parts(list, function(...) redis.call('ZADD', PREFIX .. ':deferred:' .. queue, ...) end)
  end
  for run, ids in pairs(members_of_run) do
    in_parts(ids, function(...) redis.call('RPUSH', OURS .. 'jobs:' .. run, ...) end)
    redis.call('HINCRBY', keys.run(run), 'left', #ids)
    in_parts(unended_of_run[run], function(...) redis.call('HSET', keys.unended(run), ...) end)
  end
end

-- A group that is closed takes no more: its new items end as the others did.
local function is_closed(job)
  local group = job.shape.given.flowq_group
  local g = group and redis.call('HMGET', keys.group(group), 'closed', 'reason')
  if not g or not g[1] then return false end
  jobs.call_off(job.id, g[1], g[2])
  return true
end

local function add_asked()
  in_parts(hashes, function(...) is_any_there = is_any_there or redis.call('EXISTS', ...) > 0 end)
  for _, job in ipairs(asked) do
    local reason = refused(job)
    if reason then return reason end
  end
  for _, job in ipairs(asked) do
    if not job.exists and job.shape.id ~= 'new' then
      for _, edge in ipairs(job.edges) do table.insert(list_in(known_blockers, edge.future), job.id) end
    end
  end
  for _, job in ipairs(asked) do
    if not job.exists then write(job) end
  end
  write_lists()
  for _, job in ipairs(asked) do
    -- A new future job has not been released, whatever its gates.
    local is_free = job.gates == 0 and job.shape.future == '' and not job.shape.given.flowq_kept
    if not job.exists and not is_closed(job) and is_free then
      jobs.lift(job.id)
    end
  end
  settling.settle_all()
  table.insert(existing, 1, 'existing') -- `unpack` ends at some 8,000 values
  for _, job in ipairs(asked) do
    if job.queue ~= job.shape.queue then existing[#existing + 1] = { job.id, job.queue } end
  end
  return existing
end

function add.add_all(arguments)
  begin(arguments)
  read()
  local answer = add_asked()
  argv, asked, words = nil, nil, nil -- as a function of a library it would keep the data of the jobs
  return answer
end
