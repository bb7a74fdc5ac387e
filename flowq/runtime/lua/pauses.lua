-- pauses.lua: jobs that wait between two of their executions, without a worker: `sleep` and `poll`. Such a
-- job is on RQ's schedule, as one that waits for its back-off; the execution before is no attempt.
--
-- Fields of its hash: flowq_due (epoch seconds until which it sleeps), flowq_polls (JSON: count, since when
-- in epoch seconds, and last: the newest of them, each the instant and what is shown of the result), and
-- flowq_pause_events (the ids of the events about its last pause, which the next one replaces).

local MOST_POLLS = 10

-- When a job that sleeps has slept enough: known since its first execution, also if that was lost.
-- ARGV   4 job id   5 seconds to sleep, or ""   6 epoch seconds until which it sleeps, or ""
-- Returns the seconds that are left; "0" when it has slept enough.
function pauses.sleep(argv)
  local key = keys.job(argv[4])
  local f = redis.call('HMGET', key, 'status', 'flowq_due')
  if not f[1] then return '0' end
  local due = tonumber(f[2] or nil)
  if not due then
    due = argv[5] ~= '' and TS + tonumber(argv[5]) or tonumber(argv[6])
    redis.call('HSET', key, 'flowq_due', string.format('%.6f', due))
  end
  return string.format('%.6f', math.max(0, due - TS))
end

-- A poll has not found what its job waits for.
-- ARGV   4 job id   5 seconds until the next one   6 seconds within which it has to be found, or ""
--        7 what is shown of the result   8 seconds since this execution began
-- Returns {how many polls there were, 1 if there is time for another one, else 0}.
function pauses.poll(argv)
  local key = keys.job(argv[4])
  local f = redis.call('HMGET', key, 'status', 'flowq_polls')
  local polls = read_json(f[2])
  if type(polls) ~= 'table' or type(polls.last) ~= 'table' then
    polls = { count = 0, since = TS - tonumber(argv[8]), last = {} }
  end
  polls.count = int(polls.count) + 1
  polls.last[#polls.last + 1] = { TS, argv[7] }
  while #polls.last > MOST_POLLS do table.remove(polls.last, 1) end
  if f[1] then redis.call('HSET', key, 'flowq_polls', cjson.encode(polls)) end
  -- At least as much as the pauses so far: a test may have left them out (flowq/testing/worker.py).
  local used = math.max(TS - (tonumber(polls.since or nil) or TS), (polls.count - 1) * tonumber(argv[5]))
  return { polls.count, argv[6] ~= '' and used + tonumber(argv[5]) > tonumber(argv[6]) and 0 or 1 }
end

-- The execution of a job ends after which it pauses. Runs inside RQ's transaction that ends it.
-- ARGV   4 job id   5 seconds until it is executed again   6 why it waits
-- A job that was canceled meanwhile, or whose group is closed, ends instead. Returns OK, or the text of an
-- error; it never raises.
function pauses.begin(argv)
  local ok, answer = pcall(function()
    local id = argv[4]
    local key = keys.job(id)
    local f = redis.call('HMGET', key, 'status', 'origin', 'flowq_judging', 'flowq_slots', 'flowq_run',
      'flowq_name', 'flowq_pause_events', 'flowq_progress_at')
    if f[1] ~= 'started' then return redis.status_reply('OK') end
    redis.call('HSET', key, 'status', 'scheduled', 'started_at', '', 'worker_name', '')
    if f[3] then redis.call('HSET', key, 'flowq_judging', 'done') end
    redis.call('HINCRBY', key, 'flowq_attempts', -1) -- that was none
    redis.call('ZADD', PREFIX .. ':scheduled:' .. f[2], string.format('%.6f', TS + tonumber(argv[5])), id)
    if f[5] then
      runs.forget(f[5], (f[7] or '') .. ' ' .. (f[8] or ''))
      redis.call('HSET', key, 'flowq_pause_events', runs.log(f[5], id, f[6], 'scheduled', argv[6]))
    end
    if not jobs.begin_again(id) and f[4] then slots.give(id, f[4]) end
    return settling.settle_all() or redis.status_reply('OK')
  end)
  if ok then return answer end
  return text_of(answer)
end
