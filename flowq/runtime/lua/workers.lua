-- workers.lua: Which workers are alive: heartbeats, leases, and lost workers.

local is_there_by_name -- of this call

function workers.begin() is_there_by_name = {} end

-- When the lease of one of our workers is over, in epoch seconds; nil for those of RQ's.
local function lease_of(name)
  return tonumber(redis.call('ZSCORE', OURS .. 'workers', name) or nil)
end

-- Whether a worker is connected, and listens to commands. In a cluster others may hear it, too.
local function listens(name)
  if string.find(PREFIX, '{', 1, true) then return true end
  local ok, answer = pcall(redis.call, 'PUBSUB', 'NUMSUB', PREFIX .. ':pubsub:' .. name)
  return not ok or int(answer[2]) > 0
end

-- Whether a worker is there: one of ours until its lease is over, as long as it listens; one of RQ's as
-- long as its hash is, and it has not ended.
function workers.is_there(name)
  if is_there_by_name[name] == nil then
    local lease = lease_of(name)
    local is_there
    if lease then
      is_there = lease > TS and listens(name)
    else -- the hash of one that has ended stays for a minute
      is_there = redis.call('EXISTS', keys.worker(name)) == 1
        and redis.call('HEXISTS', keys.worker(name), 'death') == 0
    end
    is_there_by_name[name] = is_there
  end
  return is_there_by_name[name]
end

-- Which of these workers are there. It changes nothing.
-- ARGV   4 the names of workers…
-- Returns those that are, in the order given.
function workers.are_there(argv)
  workers.begin()
  local there = {}
  for i = 4, #argv do
    if workers.is_there(argv[i]) then there[#there + 1] = argv[i] end
  end
  return there
end

-- A worker ends, and gives back what it holds for as long as it lives.
-- ARGV   4 name of the worker   then the names of its queues
-- The lock of a queue's schedule is shared by all flowq workers (due.lua), so the last one that
-- serves the queue gives it back. RQ's scheduler tries to get it only every ten minutes, or when it
-- starts. Returns 1. Idempotent.
function workers.leave(argv)
  local worker = argv[4]

  -- Whether another one of ours is there for the queue.
  local function is_served(queue)
    local start = #(PREFIX .. ':worker:') + 1
    for _, key in ipairs(redis.call('SMEMBERS', PREFIX .. ':workers:' .. queue)) do
      local name = string.sub(key, start)
      if name ~= worker and lease_of(name) and workers.is_there(name) then return true end
    end
    return false
  end

  workers.begin()
  redis.call('ZREM', OURS .. 'workers', worker)
  for i = 5, #argv do
    local lock = PREFIX .. ':scheduler-lock:' .. argv[i]
    if redis.call('GET', lock) == 'flowq' and not is_served(argv[i]) then redis.call('DEL', lock) end
  end
  return 1
end

-- A worker says that it is alive, and that its executions are.
-- ARGV   4 name of the worker   5 seconds after which it counts as lost
--        6 ttl of the worker's hash   7 seconds between heartbeats
--        8 number of executions, then for each: job, execution, queue, "1" when it was handed over
--          and has not begun, when it began, or else was claimed (epoch seconds),
--          the process that executes it, "" when that is not known
-- Returns {ids of executions that somebody took away…}.
-- It makes the records of executions that were claimed without them, and tells runs of those that have
-- begun since they were handed over.
function workers.beat(argv)
  local worker = argv[4]
  local worker_key = PREFIX .. ':worker:' .. worker
  redis.call('ZADD', OURS .. 'workers', TS + tonumber(argv[5]), worker)
  redis.call('HSET', worker_key, 'last_heartbeat', NOW)
  redis.call('EXPIRE', worker_key, argv[6])

  local lost = {}
  local ttl = tonumber(argv[7]) + 60
  for i = 9, 8 + 6 * tonumber(argv[8]), 6 do
    local id, execution, queue, handed = argv[i], argv[i + 1], argv[i + 2], argv[i + 3]
    local member = id .. ':' .. execution
    if redis.call('ZSCORE', PREFIX .. ':wip:' .. queue, member) then
      local key = PREFIX .. ':execution:' .. member
      redis.call('HSET', key, 'id', execution, 'job_id', id, 'worker_name', worker,
        'last_heartbeat', TS, 'flowq_pid', argv[i + 5])
      local is_new = redis.call('HSETNX', key, 'created_at', argv[i + 4]) == 1
      if handed == '1' then
        redis.call('HSET', key, 'flowq_handed', '1')
      elseif redis.call('HDEL', key, 'flowq_handed') == 1 or is_new then
        redis.call('HSET', key, 'created_at', argv[i + 4])
        local f = redis.call('HMGET', keys.job(id), 'flowq_run', 'flowq_name', 'flowq_pause_events')
        if f[1] then runs.note_event(id, f[3], runs.log_start(f[1], id, f[2], 'started', worker)) end
      end
      redis.call('EXPIRE', key, ttl)
      redis.call('ZADD', PREFIX .. ':wip:' .. queue, 'XX', math.floor(TS) + jobs.WIP_S, member)
      redis.call('ZADD', PREFIX .. ':executions:' .. id, math.floor(TS) + ttl + 60, execution)
      redis.call('EXPIRE', PREFIX .. ':executions:' .. id, ttl + 60)
      if redis.call('EXISTS', keys.job(id)) == 1 then
        redis.call('HSET', keys.job(id), 'last_heartbeat', NOW)
      end
    elseif redis.call('HGET', keys.job(id), 'status') ~= 'canceled'
      or redis.call('SISMEMBER', worker_key .. ':executions', member) == 0 then
      lost[#lost + 1] = execution -- a canceled one runs to its end, as with RQ
    end
  end
  return lost
end

-- Marks that the server accepts writes, and finds the workers that are lost.
-- ARGV   4 after how many seconds of silence a worker is lost: its lease and some more
--        5 seconds of a lease   6 the longest gap between two marks
--        7 "1" when the server has refused the caller something since its last mark
-- Returns {1 when the marks go back further than a worker may be silent else 0, the server's clock,
--   names of workers…}.
-- A worker is lost if it was silent while the server accepted writes. Each call makes a mark, and a gap
-- between two marks (a refusal, a restart, a fail-over, no call) starts the series again: then each
-- worker has the whole time again to send a heartbeat. A fail-over loses marks and heartbeats alike.
function workers.find_lost(argv)
  local SILENCE_S, LEASE_S, GAP_S = tonumber(argv[4]), tonumber(argv[5]), tonumber(argv[6])
  local OFTEN_S = GAP_S / 8 -- one mark is enough for all who look at about the same time
  local NAMES = 20

  local key = OURS .. 'marks'
  local f = redis.call('HMGET', key, 'since', 'last')
  local since, last = tonumber(f[1] or ''), tonumber(f[2] or '')
  if not since or not last or argv[7] == '1' or TS - last > GAP_S or TS < last then
    since, last = TS, 0
    redis.call('HSET', key, 'since', TS)
  end
  if TS - last > OFTEN_S then
    redis.call('HSET', key, 'last', TS)
    redis.call('EXPIRE', key, 60) -- without further searches, the marks mean nothing
  end
  local clock = string.format('%.6f', TS)
  if TS - since < SILENCE_S then return { 0, clock } end
  -- The score is the end of the lease, so its last heartbeat was a lease before.
  return { 1, clock, unpack(redis.call('ZRANGEBYSCORE', OURS .. 'workers', '-inf',
    TS - SILENCE_S + LEASE_S, 'LIMIT', 0, NAMES)) }
end
