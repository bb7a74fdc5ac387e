-- slots.lua: the slots of `max_parallel`, and who waits for one.
--
-- Beside each limit L: slots:L (ids of those that have one) and waiting:L (ids by turn). Beside a join
-- J that has places for others: behind:J (ids of those that wait with it).

-- Yields each limit, and the join that has the place in it or ''. `limits` nil or false: none.
local function each_limit(limits) return string.gmatch(limits or '', '([^%s=]+)=?(%S*)') end

local function holder_of(id, join) return join ~= '' and join or id end

local function is_full(limit, id)
  local max = redis.call('HGET', OURS .. limit, 'max_parallel')
  if not max or redis.call('SISMEMBER', keys.slots(limit), id) == 1 then return false end
  return redis.call('SCARD', keys.slots(limit)) >= tonumber(max)
end

-- A join that has ended has no place any more; a job of its workflow may run again nevertheless.
local function can_have_place(join)
  return join == '' or redis.call('HEXISTS', keys.job(join), 'flowq_outcome') == 0
end

local function add_waiting(key, id)
  local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  redis.call('ZADD', key, 'NX', int(last[2]) + 1, id)
end

function slots.take(id, limits)
  for limit, join in each_limit(limits) do
    if can_have_place(join) and is_full(limit, holder_of(id, join)) then
      add_waiting(keys.waiting(limit), holder_of(id, join))
      if join ~= '' then add_waiting(keys.behind(join), id) end
      return false
    end
  end
  slots.hold(id, limits)
  return true
end

function slots.leave_turn(id, limits)
  for limit, join in each_limit(limits) do
    redis.call('ZREM', join ~= '' and keys.behind(join) or keys.waiting(limit), id)
  end
end

function slots.hold(id, limits)
  for limit, join in each_limit(limits) do
    if can_have_place(join) then redis.call('SADD', keys.slots(limit), holder_of(id, join)) end
    redis.call('ZREM', keys.waiting(limit), holder_of(id, join))
  end
  slots.leave_turn(id, limits)
end

-- Lets jobs that wait with a join have their turn; a workflow goes on by itself after so many, as
-- each end in it calls this again.
local function queue_jobs_behind(join)
  local ids = redis.call('ZPOPMIN', keys.behind(join), 100)
  for at = 1, #ids, 2 do jobs.queue_waiting(ids[at]) end
end

local function fill_free_slots(limit)
  while not is_full(limit, '') do
    local next = redis.call('ZPOPMIN', keys.waiting(limit))
    if not next[1] then return end
    jobs.queue_waiting(next[1])
    queue_jobs_behind(next[1])
  end
end

function slots.give(id, limits)
  slots.leave_turn(id, limits)
  for limit, join in each_limit(limits) do
    if join == '' then redis.call('SREM', keys.slots(limit), id) end
  end
  for limit, join in each_limit(limits) do
    if join == '' then
      fill_free_slots(limit)
    elseif not is_full(limit, join) then
      queue_jobs_behind(join)
    end
  end
end
