-- step_futures.lua: the steps for future jobs and their blockers; a part of step.lua, in front of it,
-- with its ARGV, which begin_step reads.

local what, limit, extra, budget -- of the step; `budget`: how many items it may still look at
local running, found -- what it has to tell

-- Goes on through a list from where a field of a hash says, as far as the budget of this step
-- allows (a nested walk uses the same budget); returns true at the end of the list.
local function each_item(list, hash, field, visit)
  local from = int(redis.call('HGET', hash, field))
  local at = from
  while budget > 0 do
    local items = redis.call('LRANGE', list, at, at + math.min(budget, 100) - 1)
    for _, item in ipairs(items) do
      if budget <= 0 then break end
      budget = budget - 1
      visit(item, at)
      at = at + 1
    end
    if #items == 0 then break end
  end
  if at > from then redis.call('HSET', hash, field, at) end
  return at >= redis.call('LLEN', list)
end

local function names(blocks, future)
  if blocks == future then return true end -- most name one
  for target in each_future(blocks) do
    if target == future then return true end
  end
  return false
end

-- Returns what read_for_enqueue does, with one gate less; nil when the job does not stand in front
-- of it: the id may have been used again.
local function find_gate(job, future)
  local f = read_for_enqueue(job)
  if not f[13] or not names(f[9], future) then return nil end
  f[13] = int(f[13]) - 1
  return f
end

-- Takes the gate away; the script that queues the job writes that it has none.
local function lower_gate(job, f)
  if f[13] == 0 and f[12] == 'deferred' and not f[10] and enqueue(job, f) then return end
  redis.call('HSET', job_key(job), 'flowq_gates', f[13])
  if f[10] then lift(job, f) end
end

local WATCH_S = 60 -- how soon, and how often, the blockers of a released future job are looked at

-- Begins the release of an open future job among the blockers, and of those in front of it.
local function close(blocker)
  if redis.call('HGET', future_key(blocker), 'state') ~= 'open' then return end
  redis.call('HSET', future_key(blocker), 'state', 'releasing', 'cascade', 1)
  redis.call('ZREM', OURS .. 'expiring', blocker)
  later('free:' .. blocker)
end

local function free(future)
  local key = future_key(future)
  if redis.call('HGET', key, 'state') ~= 'releasing' then return true end
  local cascade = redis.call('HGET', key, 'cascade')
  local done = each_item(blockers_key(future), key, 'freed', function(blocker)
    if cascade then close(blocker) end
    local f = find_gate(blocker, future)
    if f then lower_gate(blocker, f) end
  end)
  if done then
    redis.call('HSET', key, 'state', 'released')
    redis.call('ZADD', OURS .. 'watched', TS + WATCH_S, future)
    local expires = redis.call('HGET', job_key(future), 'flowq_expires')
    if expires then redis.call('ZADD', OURS .. 'expiring', TS + tonumber(expires), future) end
    decide(future, read_for_decision(future))
  end
  return done
end

local function blocks_something(job)
  for future in each_future(redis.call('HGET', job_key(job), 'flowq_blocks')) do
    local state = redis.call('HGET', future_key(future), 'state')
    if state and not CALLED_OFF[state] then return true end
  end
  return false
end

local function abandon(future)
  local key = future_key(future)
  if redis.call('EXISTS', key) == 0 then return true end
  local freed = int(redis.call('HGET', key, 'freed'))
  return each_item(blockers_key(future), key, 'dropped', function(blocker, index)
    local f = index >= freed and find_gate(blocker, future)
    if not f then return end
    if blocks_something(blocker) then return lower_gate(blocker, f) end
    redis.call('HSET', job_key(blocker), 'flowq_gates', f[13])
    if redis.call('HGET', job_key(blocker), 'status') == 'deferred' then
      call_off(blocker, 'canceled', 'its future job was canceled')
    end
  end)
end

-- Its owner does not want the blockers either: what has not started, and blocks nothing else, ends.
local function recall(future)
  local key = future_key(future)
  if redis.call('EXISTS', key) == 0 then return true end
  return each_item(blockers_key(future), key, 'recalled', function(blocker)
    if blocks_something(blocker) then return end
    if NOT_STARTED[redis.call('HGET', job_key(blocker), 'status')] then
      call_off(blocker, 'canceled', 'its future job was canceled')
      if redis.call('EXISTS', future_key(blocker)) == 1 then later('recall:' .. blocker) end
    end
  end)
end

-- It was not released, approved or started in time: canceled, with its held blockers.
local function lapse(future)
  redis.call('ZREM', OURS .. 'expiring', future)
  local state = redis.call('HGET', future_key(future), 'state')
  local f = redis.call('HMGET', job_key(future), 'flowq_expires', 'status', 'started_at')
  local waits = (f[2] == 'deferred' or f[2] == 'queued') and (f[3] or '') == ''
  if state == 'open' then
    call_off(future, 'canceled', 'it expired before it was released')
  elseif f[1] then
    if waits then call_off(future, 'canceled', 'it expired before it started') end
  elseif state == 'met' then
    call_off(future, 'canceled', 'it expired before it was approved')
  end
  return true
end

-- Looks for blockers that ended behind our back: deleted or ended by something that does not know
-- us, expired, or lost between a queue and a worker. One pass over the edges, a part in each step.
local function note(blocker, what)
  found[#found + 1] = blocker
  found[#found + 1] = what
end

local function is_lost(blocker, job)
  local queue = PREFIX .. ':queue:' .. job[2]
  if redis.call('EXISTS', queue) == 1 or redis.call('EXISTS', queue .. ':intermediate') == 1 then
    return false
  end
  if not job[4] then redis.call('HSET', job_key(blocker), 'flowq_missing', TS) end
  return job[4] and TS - tonumber(job[4]) >= WATCH_S
end

local ENDED_STATUS = { finished = true, failed = true, stopped = true, canceled = true }

-- Accounts in its run, once, for a job whose hash is gone; what is known comes from its id.
local function bury(run, job)
  if not run or redis.call('SADD', OURS .. 'gone:' .. run, job) == 0 then return end
  local group, index = split_item_id(job)
  local group_name = group and redis.call('HGET', group_key(group), 'name')
  local name = group_name and group_name .. '[' .. index .. ']' or name_inside(job)
    or string.sub(job, #run + 2)
  log(run, job, name, 'deleted', 'somebody deleted it')
  if group_name then count_in_group(group, nil, 'deleted') end
  count_in_run(run, nil, 'deleted', job)
  drop_loose(run, job)
  give_slots(job, (group_name and 'group:' .. group .. ' ' or '') .. 'run:' .. run)
end

local function look_after(future, blocker, run)
  local job = redis.call('HMGET', job_key(blocker), 'status', 'origin', 'flowq_outcome',
    'flowq_missing')
  if not job[1] then
    local mortal = redis.call('EXISTS', mortal_key(blocker)) == 1
    note(blocker, mortal and 'expired' or 'deleted')
    if mortal then return will_settle(blocker, 'expired') end
    bury(run or redis.call('HGET', job_key(future), 'flowq_run'), blocker)
    return will_tell(future, blocker, 'deleted')
  end
  if ENDED_STATUS[job[1]] then
    note(blocker, job[1])
    return will_settle(blocker, job[3] or job[1])
  end
  if job[1] == 'queued' and is_lost(blocker, job) then
    note(blocker, 'lost')
    redis.call('HDEL', job_key(blocker), 'flowq_missing')
    redis.call('RPUSH', PREFIX .. ':queue:' .. job[2], blocker)
  end
end

-- A blocker that did not succeed can still be deleted, or requeued and executed, behind our back.
local function look_again(future, blocker, outcome)
  local status = redis.call('HGET', job_key(blocker), 'status')
  if not status and outcome ~= 'deleted' then
    note(blocker, 'deleted')
    return will_tell(future, blocker, 'deleted')
  end
  if status == 'finished' then
    note(blocker, status)
    will_settle(blocker, status)
  end
end

local function watch_run(run)
  local cursor = redis.call('HGET', run_key(run), 'watched') or '0'
  local answer = redis.call('SSCAN', loose_key(run), cursor, 'COUNT', limit)
  for _, job in ipairs(answer[2]) do look_after(run, job, run) end
  redis.call('HSET', run_key(run), 'watched', answer[1])
  if answer[1] ~= '0' then return false end
  if redis.call('EXISTS', loose_key(run)) == 1 then
    redis.call('ZADD', OURS .. 'watched', 'XX', TS + WATCH_S, run)
  else
    redis.call('ZREM', OURS .. 'watched', run)
  end
  return true
end

local function watch(future)
  if redis.call('EXISTS', run_key(future)) == 1 then return watch_run(future) end
  local key = future_key(future)
  if redis.call('HGET', key, 'state') ~= 'released' then
    redis.call('ZREM', OURS .. 'watched', future)
    return true
  end
  local cursor = redis.call('HGET', key, 'watched') or '0'
  local answer = redis.call('HSCAN', edges_key(future), cursor, 'COUNT', limit)
  for at = 1, #answer[2], 2 do
    local blocker, outcome = answer[2][at], answer[2][at + 1]
    local class = class_of(outcome)
    if class == 'pending' then look_after(future, blocker) end
    if class == 'bad' then look_again(future, blocker, outcome) end
  end
  redis.call('HSET', key, 'watched', answer[1])
  local done = answer[1] == '0'
  if done then redis.call('ZADD', OURS .. 'watched', 'XX', TS + WATCH_S, future) end
  return done
end

local CANCELED_TTL_S = 86400 -- RQ never removes a canceled job
local RESULT_TTL_S, FAILURE_TTL_S = 500, 31536000 -- RQ's defaults

local function keys_of_future(id) return future_key(id), edges_key(id), blockers_key(id) end

local function live_for(ttl, ...)
  for _, key in ipairs({ ... }) do
    if ttl < 0 then
      redis.call('PERSIST', key)
    elseif ttl == 0 then
      redis.call('DEL', key)
    else
      redis.call('EXPIRE', key, ttl)
    end
  end
end

local function expire(job)
  local key = job_key(job)
  local f = redis.call('HMGET', key, 'origin', 'status', 'result_ttl', 'failure_ttl',
    'flowq_blocks', 'flowq_future', 'flowq_run')
  if not f[1] or f[7] or is_wanted(f[5]) then return end
  local ttl, registry
  if f[2] == 'finished' then
    ttl, registry = tonumber(f[3] or RESULT_TTL_S), ':finished:'
  elseif f[2] == 'failed' or f[2] == 'stopped' then
    ttl, registry = tonumber(f[4] or FAILURE_TTL_S), ':failed:'
  elseif f[2] == 'canceled' then
    ttl, registry = CANCELED_TTL_S, ':canceled:'
  else
    return
  end
  live_for(ttl, key, PREFIX .. ':results:' .. job, key .. ':dependents',
    PREFIX .. ':job::' .. job .. ':dependencies')
  if f[6] then live_for(ttl, keys_of_future(job)) end
  if f[2] == 'canceled' then
    redis.call('ZADD', OURS .. 'forgotten', TS + ttl, job .. ' ' .. f[1])
  end
  registry = PREFIX .. registry .. f[1]
  if ttl == 0 then
    redis.call('ZREM', registry, job)
  elseif f[2] ~= 'canceled' then -- whose score is the time of its cancellation
    redis.call('ZADD', registry, ttl < 0 and '+inf' or math.floor(TS) + ttl, job)
  end
end

local function expire_some(job)
  expire(job)
  for _, entry in ipairs(redis.call('ZRANGE', TODO, 0, limit)) do -- they come in numbers
    local other = string.match(entry, '^expire:(.+)$')
    if other then
      expire(other)
      redis.call('ZREM', TODO, entry)
    end
  end
  return true
end

local function retire(future)
  if redis.call('ZSCORE', TODO, 'abandon:' .. future) then return false end
  local key = future_key(future)
  if redis.call('EXISTS', key) == 0 then return true end
  local done = each_item(blockers_key(future), key, 'retired', expire)
  if done then
    local ttl = redis.call('TTL', job_key(future))
    live_for(ttl == -2 and 0 or ttl, keys_of_future(future))
  end
  return done
end

local function begin_step(argv)
  what, limit = argv[4], tonumber(argv[5])
  if what == '' then what = redis.call('ZRANGE', TODO, 0, 0)[1] end
  budget, running, found = limit, {}, {}
end
