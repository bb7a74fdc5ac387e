-- holders.lua: The steps that look after those that have slots across runs (slots.lua): one may be gone with
-- its run, or wait in a queue that no worker serves.

local PATIENCE_S = 10 -- how long a job may be queued where nobody listens, while others wait for its slot

local looked_at, is_served_by_queue -- of this step

function holders.begin() looked_at, is_served_by_queue = {}, {} end

local function is_served(queue)
  if is_served_by_queue[queue] == nil then
    local start, found = #(PREFIX .. ':worker:') + 1, false
    for _, key in ipairs(redis.call('SMEMBERS', PREFIX .. ':workers:' .. queue)) do
      found = found or workers.is_there(string.sub(key, start))
    end
    is_served_by_queue[queue] = found
  end
  return is_served_by_queue[queue]
end

local ENDED_STATUS = { finished = true, failed = true, stopped = true, canceled = true }

-- A job that nobody starts gives its slots to those that wait, and waits behind them.
local function pass_on(id, f)
  redis.call('LREM', PREFIX .. ':queue:' .. f[3], 1, id)
  redis.call('HSET', keys.job(id), 'status', 'deferred')
  redis.call('ZADD', PREFIX .. ':deferred:' .. f[3], '+inf', id)
  if f[6] then redis.call('HSET', keys.future(id), 'state', 'met') end
  runs.log(f[5], id, f[7], 'deferred', 'waits for a slot: others have it while no worker serves its queue')
  slots.wait_again(id, f[8])
end

local FIELDS = { 'status', 'flowq_outcome', 'origin', 'enqueued_at', 'flowq_run', 'flowq_future',
  'flowq_name', 'flowq_slots', 'flowq_nested' }

-- The job with whose queue a holder is served: of a workflow, the one that begins it.
local function begins_with(id)
  return redis.call('HEXISTS', keys.job(id), 'flowq_nested') == 1 and nested.start_id(id) or id
end

-- Of those that wait, those before the first one whose queue is served line up again, too: each of them
-- would keep the slot for as long.
local function let_go_ahead(limit)
  local unserved = {}
  for _, id in ipairs(redis.call('ZRANGE', keys.waiting(limit), 0, step.limit - 1)) do
    local queue = redis.call('HGET', keys.job(begins_with(id)), 'origin')
    if queue and is_served(queue) then
      for _, other in ipairs(unserved) do slots.stand_behind(limit, other, begins_with(other)) end
      return
    end
    unserved[#unserved + 1] = id
  end
end

-- Frees the slot of one that is gone.
local function look_at_holder(limit, id)
  local f = redis.call('HMGET', keys.job(id), unpack(FIELDS))
  local is_idle = f[1] == 'deferred' and not f[9]
  if not f[1] or is_idle or ENDED_STATUS[f[1]] and f[2] then
    redis.call('SREM', keys.slots(limit), id)
    return
  end
  if ENDED_STATUS[f[1]] and f[5] then -- by others, and its run has not noticed
    local blocks = redis.call('HGET', keys.unended(f[5]), id)
    if blocks then watching.look_at(id, f[5], blocks) end
    return
  end
  if f[9] then -- a workflow has them, and may not have begun
    id = nested.start_id(id)
    f = redis.call('HMGET', keys.job(id), unpack(FIELDS))
  end
  local second = math.floor(TS) - PATIENCE_S
  local is_left = f[1] == 'queued' and f[5] and (f[4] or '') < format_instant(second, 0) and not is_served(f[3])
  if is_left and redis.call('EXISTS', keys.waiting(limit)) == 1 then
    let_go_ahead(limit)
    pass_on(id, f)
  end
end

-- Looks at so many of those that have slots of a limit, and lets those have their turn for which there is
-- room. Returns true once it has seen all.
function holders.look_at(limit)
  if looked_at[limit] then return looked_at[limit] == 'all' end
  local from = redis.call('HGET', OURS .. limit, 'looked') or '0'
  local cursor, ids = unpack(redis.call('SSCAN', keys.slots(limit), from, 'COUNT', step.limit))
  for _, id in ipairs(ids) do
    -- One with an instant is a start that counts in a rate.
    if not string.find(id, ' ', 1, true) then look_at_holder(limit, id) end
    step.budget = step.budget - 1
  end
  if cursor ~= '0' then redis.call('HSET', OURS .. limit, 'looked', cursor)
  elseif from ~= '0' then redis.call('HDEL', OURS .. limit, 'looked') end
  looked_at[limit] = cursor == '0' and 'all' or 'some'
  slots.fill(limit)
  return cursor == '0'
end

-- Does that for what a job waits for.
function holders.look_for(id, limits)
  for _, limit in ipairs(slots.find_awaited(id, limits)) do
    if not holders.look_at(limit) then later('holders:' .. limit) end
  end
  if redis.call('HEXISTS', keys.job(id), 'flowq_supplants') == 1 then later('supplant:' .. id) end
end

-- Those that have slots of a limit, the oldest first.
local function list_by_age(limit)
  local list = {}
  for _, id in ipairs(redis.call('SMEMBERS', keys.slots(limit))) do
    list[#list + 1] = { id, redis.call('HGET', keys.job(begins_with(id)), 'enqueued_at') or '' }
  end
  table.sort(list, function(a, b) return a[2] < b[2] or a[2] == b[2] and a[1] < b[1] end)
  return list
end

-- Cancels those that keep a job waiting, or the workflow of this join: what has a slot, and what waits
-- before it, the oldest first, but for as many as there is room for beside it.
function holders.supplant(id)
  local f = redis.call('HMGET', keys.job(id), 'flowq_slots', 'flowq_run', 'flowq_name')
  for _, limit in ipairs(slots.find_awaited(id, f[1])) do
    if not slots.is_rate(limit) then
      local older = list_by_age(limit)
      local place = redis.call('ZSCORE', keys.waiting(limit), id)
      for _, other in ipairs(redis.call('ZRANGEBYSCORE', keys.waiting(limit), '-inf', '(' .. place)) do
        older[#older + 1] = { other }
      end
      local why = string.format('the newer %s of run %s takes its place in the `concurrency` group %s',
        f[3], f[2], slots.name_group(limit))
      for at = 1, #older - (slots.read_most(limit, id) or 1) + 1 do deadlines.supplant(older[at][1], why) end
    end
  end
  return true
end
