-- metrics.lua: Counts what has happened, for metrics (flowq/metrics.py), and reads them all at once.
--
-- One hash, `metrics`, with whole numbers that only grow:
--   ended:STATE:QUEUE   jobs that have ended      run:STATE   runs that have
--   lost                jobs that were lost with their worker, or nowhere to be found
--   job:BOUND, join:BOUND   durations up to so many seconds, and above the bound before; inf for others
--   job_us, join_us     the sums of these durations, in microseconds
--   queue:NAME          the queues that are counted by name; queues: how many these are
-- A call sums up first what it has to add, and writes each field once, at its end.

local MOST_QUEUES, MOST_BYTES = 100, 100 -- that have a name in the metrics
local MOST_LISTED = 1000 -- queues of RQ's list that are looked at
local WAITING = 5 -- among so many jobs at the front of a queue the oldest is looked for
local OTHER, OWN = 'other', 'run.*' -- queues that have none; those that runs have for themselves

-- flowq/metrics.py has the same bounds; a test compares them.
local BOUNDS = {
  job = { 0.005, 0.025, 0.1, 0.5, 2.5, 10, 30, 60, 300, 1800, 3600 },
  join = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30 },
}

local fields, ends, durations -- of this call: by field; by queue and state; by kind and bound

function metrics.reset() fields, ends, durations = {}, {}, {} end

function metrics.add(field) fields[field] = (fields[field] or 0) + 1 end

-- `kind`: "job" or "join".
local function observe(kind, seconds)
  local of, bounds = durations[kind], BOUNDS[kind]
  if not of then
    of = { us = 0 }
    durations[kind] = of
  end
  local i = 1
  while bounds[i] and seconds > bounds[i] do i = i + 1 end
  local bound = bounds[i] or 'inf'
  of[bound] = (of[bound] or 0) + 1
  of.us = of.us + math.max(0, math.floor(seconds * 1e6 + 0.5))
end

-- A job has ended; `seconds` that its execution took, if there was one and that is known.
function metrics.count_end(queue, state, seconds)
  queue = queue or ''
  local of = ends[queue]
  if not of then
    of = {}
    ends[queue] = of
  end
  of[state] = (of[state] or 0) + 1
  if seconds then observe('job', seconds) end
end

-- A worker takes a future job for the first time; `enqueued_at`: when nothing held it any more.
function metrics.count_join(enqueued_at)
  local microseconds = enqueued_at and parse_instant(enqueued_at)
  if microseconds then observe('join', math.max(0, TS - microseconds / 1e6)) end
end

-- The name of a queue in the metrics: there is a limit of these.
local function find_label(key, queue)
  if string.sub(queue, 1, 4) == 'run.' then return OWN end
  if queue == '' or #queue > MOST_BYTES then return OTHER end
  if redis.call('HEXISTS', key, 'queue:' .. queue) == 1 then return queue end
  if int(redis.call('HGET', key, 'queues')) >= MOST_QUEUES then return OTHER end
  redis.call('HSET', key, 'queue:' .. queue, 1)
  redis.call('HINCRBY', key, 'queues', 1)
  return queue
end

-- At the end of each call (end_call). A sum is written as text: large numbers would become 1e+15.
function metrics.flush()
  local key = OURS .. 'metrics'
  for field, count in pairs(fields) do redis.call('HINCRBY', key, field, count) end
  for queue, of in pairs(ends) do
    local label = find_label(key, queue)
    for state, count in pairs(of) do redis.call('HINCRBY', key, 'ended:' .. state .. ':' .. label, count) end
  end
  for kind, of in pairs(durations) do
    for bound, count in pairs(of) do
      if bound == 'us' then redis.call('HINCRBY', key, kind .. '_us', string.format('%.0f', count))
      else redis.call('HINCRBY', key, kind .. ':' .. bound, count) end
    end
  end
  metrics.reset()
end

-- The instant since when the oldest of the jobs at the front of a queue has waited, as RQ writes it.
local function find_oldest(list)
  local oldest = ''
  for _, id in ipairs(redis.call('LRANGE', list, 0, WAITING - 1)) do
    local at = redis.call('HGET', keys.job(id), 'enqueued_at')
    if at and at ~= '' and (oldest == '' or at < oldest) then oldest = at end
  end
  return oldest
end

-- The number of members of a registry; 0 where something else has that name.
local function count_members(command, key)
  local count = redis.pcall(command, key)
  return type(count) == 'number' and count or 0
end

-- Reads everything that metrics are made of. It changes nothing.
-- Returns {now, {field, count…}, {state of runs, how many…}, {queue, queued, started, deferred, scheduled,
--   workers, since when the oldest one waits, …}}: the last of all queues that RQ lists, or as many as are
-- looked at; those that have no name in the counts are "other". O(1) in the number of jobs and runs.
-- ARGV   none
function metrics.read()
  local key, told = OURS .. 'metrics', {}
  local queues = redis.call('SMEMBERS', PREFIX .. ':queues')
  table.sort(queues) -- so that the same ones have a name each time
  local room = MOST_QUEUES - int(redis.call('HGET', key, 'queues'))
  for i = 1, math.min(#queues, MOST_LISTED) do
    local queue = string.sub(queues[i], #PREFIX + 8)
    local label = string.sub(queue, 1, 4) == 'run.' and OWN or #queue <= MOST_BYTES and queue or OTHER
    if label == queue and redis.call('HEXISTS', key, 'queue:' .. queue) == 0 then
      if room > 0 then room = room - 1 else label = OTHER end
    end
    local list = PREFIX .. ':queue:' .. queue
    for _, value in ipairs({ label, count_members('LLEN', list),
      count_members('ZCARD', PREFIX .. ':wip:' .. queue),
      count_members('ZCARD', PREFIX .. ':deferred:' .. queue),
      count_members('ZCARD', PREFIX .. ':scheduled:' .. queue),
      count_members('SCARD', PREFIX .. ':workers:' .. queue), find_oldest(list) }) do
      told[#told + 1] = value
    end
  end
  local of_runs = {}
  for _, state in ipairs(runs.STATES) do
    of_runs[#of_runs + 1] = state
    of_runs[#of_runs + 1] = redis.call('ZCARD', OURS .. 'runs_in:' .. state)
  end
  return { NOW, redis.call('HGETALL', key), of_runs, told }
end
