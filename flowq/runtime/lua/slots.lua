-- slots.lua: Limits on how much is executed at the same time, or starts within a time: who has a slot of
-- one, and who waits for it.
--
-- Within a run a limit is `group:G`, `future:J` or `run:R`; its maximum is the field max_parallel of a hash
-- of that name. Across runs it is `shared:NAME` (`concurrency` of jobs) or `rate:NAME`. The maximum of those
-- is what each job says (flowq_most, "shared:NAME=3 rate:NAME=10/60", the period in seconds), and nobody
-- overtakes: whoever comes later waits behind those that wait, also if its own maximum is higher.
--
-- Beside each limit L: slots:L (ids of those that have one) and waiting:L (ids by turn). Beside a join
-- J that has places for others: behind:J (ids of those that wait with it). Beside a limit across runs:
--   L         HASH: max_parallel, the maximum of whoever took a slot last, which older versions read; looked,
--             how far a look at those that have slots has come (holders.lua)
--   spent:L   of a rate: what has started, by the instant at which its slot is free again. It is in slots:L
--             as well, as "<id> <instant>"
-- A job that waits for limits across runs has one turn for all of them (flowq_turn), the next number of
-- `turn`, from when it first has to wait until it has all its slots. It stands in the lines of all that are
-- full, and in that of its rate also while it only waits for its group: the rate does not go past it, and
-- then the group does not either. While its rate has no start for it, the group goes on with the next one.
-- A job inside of a workflow that has a slot stands before all others, and nothing stops for it: others may
-- wait for the slot of its workflow.
-- limits:R has the limits across runs in which jobs of the run R have had slots, or have waited: where the
-- hash of such a job is gone, nothing else says so.
-- The sorted set `rates` has the rates by the instant at which somebody has to look at them.

local MANY = 100 -- turns for one call
local INSIDE = -2 ^ 50 -- before all turns of those that are not inside of a workflow with a slot

local to_fill -- limits that have room for others now; settling.settle_all gives them their turns
local times -- how often this call did that

function slots.reset() to_fill, times = {}, 0 end

function slots.has_room_for_others() return #to_fill > 0 end

local function note_room(limit) to_fill[#to_fill + 1] = limit end

-- Yields each limit, and the join that has the place in it or ''. `limits` nil or false: none.
local function each_limit(limits) return string.gmatch(limits or '', '([^%s=]+)=?(%S*)') end

local function holder_of(id, join) return join ~= '' and join or id end

function slots.is_rate(limit) return string.sub(limit, 1, 5) == 'rate:' end

local is_rate = slots.is_rate

local function is_across_runs(limit) return string.sub(limit, 1, 7) == 'shared:' or is_rate(limit) end

-- Whether some of these limits are across runs.
function slots.are_across_runs(limits)
  return string.find(' ' .. limits, ' shared:', 1, true) or string.find(' ' .. limits, ' rate:', 1, true)
end

-- The name of a group, as it was declared.
function slots.name_group(limit)
  local name = string.gsub(string.match(limit, ':(.*)$'), '%%(%x%x)', function(code)
    return string.char(tonumber(code, 16))
  end)
  return name
end

-- What a job says about a limit across runs: the maximum, and the period of a rate; nil where it is gone.
-- And its run.
function slots.read_most(limit, id)
  local f = redis.call('HMGET', keys.job(id), 'flowq_most', 'flowq_run')
  for name, most, period in string.gmatch(f[1] or '', '([^%s=]+)=(%d+)/?(%S*)') do
    if name == limit then return tonumber(most), tonumber(period), f[2] end
  end
end

-- The slots of a rate whose time is over are free again.
local function free_spent(limit)
  local spent = redis.call('ZRANGEBYSCORE', keys.spent(limit), '-inf', string.format('%.6f', TS), 'LIMIT', 0, 1000)
  if not spent[1] then return end
  redis.call('ZREM', keys.spent(limit), unpack(spent))
  redis.call('SREM', keys.slots(limit), unpack(spent))
end

-- When somebody has to look at a rate: as soon as a slot is free for whoever waits, else once all are.
local function note_next(limit)
  local at = redis.call('EXISTS', keys.waiting(limit)) == 1 and 0 or -1
  local next = redis.call('ZRANGE', keys.spent(limit), at, at, 'WITHSCORES')
  if next[2] then redis.call('ZADD', OURS .. 'rates', next[2], limit) end
end

-- Returns whether `id` has to wait, and whether it, or its join `holder`, has a slot already.
local function is_full_across_runs(limit, holder, id)
  if redis.call('SISMEMBER', keys.slots(limit), holder) == 1 then return false, true end
  local most = slots.read_most(limit, id)
  if not most then return false end
  if is_rate(limit) then free_spent(limit) end
  if redis.call('SCARD', keys.slots(limit)) >= most then return true end
  local first = redis.call('ZRANGE', keys.waiting(limit), 0, 0, 'WITHSCORES')
  if not first[1] or first[1] == holder then return false end
  local since = redis.call('HGET', keys.job(id), 'flowq_turn')
  if since and tonumber(since) <= tonumber(first[2]) then return false end
  note_room(limit) -- whoever is first may be gone
  return true
end

-- `id` has the place for itself, or wants it for the join `holder`.
local function is_full(limit, holder, id)
  if is_across_runs(limit) then return is_full_across_runs(limit, holder, id) end
  local max = redis.call('HGET', OURS .. limit, 'max_parallel')
  if not max or redis.call('SISMEMBER', keys.slots(limit), holder) == 1 then return false end
  return redis.call('SCARD', keys.slots(limit)) >= tonumber(max)
end

-- A join that has ended has no place any more; a job of its workflow may run again nevertheless.
local function can_have_place(join)
  return join == '' or redis.call('HEXISTS', keys.job(join), 'flowq_outcome') == 0
end

local function find_next_place(key)
  local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  return int(last[2]) + 1
end

-- The turn of a job for limits across runs; its first wait gives it one.
local function find_turn(id, is_inside)
  local since = redis.call('HGET', keys.job(id), 'flowq_turn')
  if since then return since end
  since = string.format('%.0f', redis.call('INCR', OURS .. 'turn') + (is_inside and INSIDE or 0))
  redis.call('HSET', keys.job(id), 'flowq_turn', since)
  return since
end

local function add_waiting_across_runs(limit, holder, id, is_inside)
  local key = keys.waiting(limit)
  if redis.call('ZADD', key, 'NX', find_turn(id, is_inside), holder) == 1 then
    local run = redis.call('HGET', keys.job(id), 'flowq_run')
    if run then redis.call('SADD', keys.limits(run), limit) end
    if redis.call('ZCARD', key) == 1 then later('holders:' .. limit) end -- they may be gone
    if redis.call('HEXISTS', keys.job(holder), 'flowq_supplants') == 1 then later('supplant:' .. holder) end
  end
  if is_rate(limit) then note_next(limit) end
end

local function add_waiting(limit, holder)
  redis.call('ZADD', keys.waiting(limit), 'NX', find_next_place(keys.waiting(limit)), holder)
end

local function wait_behind(join, id)
  local key = keys.behind(join)
  redis.call('ZADD', key, 'NX', (find_next_place(key)), id)
end

-- Whether a job has to wait for limits across runs. Then it stands in their lines, and has given back what
-- it had: an attempt before, or a worker that was lost, may have left it slots.
local function waits_across_runs(id, limits)
  local is_full_by_limit, is_inside, lacks_group, must_wait = {}, false, false, false
  for limit, join in each_limit(limits) do
    if is_across_runs(limit) and can_have_place(join) then
      local is_now_full, has = is_full(limit, holder_of(id, join), id)
      is_full_by_limit[limit] = is_now_full
      is_inside = is_inside or has and join ~= ''
      must_wait = must_wait or is_now_full
      lacks_group = lacks_group or is_now_full and not is_rate(limit)
    end
  end
  if not must_wait then return false end
  for limit, join in each_limit(limits) do
    local is_first_of_rate = is_rate(limit) and lacks_group and not is_inside
    if is_full_by_limit[limit] or is_first_of_rate then
      add_waiting_across_runs(limit, holder_of(id, join), id, is_inside)
      if join ~= '' then wait_behind(join, id) end
    end
    if join == '' and redis.call('SREM', keys.slots(limit), id) == 1 then note_room(limit) end
  end
  return true
end

function slots.take(id, limits)
  if slots.are_across_runs(limits) and waits_across_runs(id, limits) then return false end
  for limit, join in each_limit(limits) do
    local is_in_run = not is_across_runs(limit) and can_have_place(join)
    if is_in_run and is_full(limit, holder_of(id, join), id) then
      add_waiting(limit, holder_of(id, join))
      if join ~= '' then wait_behind(join, id) end
      return false
    end
  end
  slots.hold(id, limits)
  return true
end

local function leave_line(limit, holder)
  local has_left = redis.call('ZREM', keys.waiting(limit), holder) == 1
  if has_left and is_across_runs(limit) then note_room(limit) end -- it may have kept others waiting
end

function slots.leave_turn(id, limits)
  for limit, join in each_limit(limits) do
    if join ~= '' then redis.call('ZREM', keys.behind(join), id) else leave_line(limit, id) end
  end
  if limits and slots.are_across_runs(limits) then redis.call('HDEL', keys.job(id), 'flowq_turn') end
end

function slots.hold(id, limits)
  for limit, join in each_limit(limits) do
    if can_have_place(join) then
      redis.call('SADD', keys.slots(limit), holder_of(id, join))
      if is_across_runs(limit) then
        local most, _, run = slots.read_most(limit, id)
        redis.call('HSET', OURS .. limit, 'max_parallel', most or 1)
        if run then redis.call('SADD', keys.limits(run), limit) end
      end
    end
    leave_line(limit, holder_of(id, join))
  end
  slots.leave_turn(id, limits)
end

-- The job starts to be executed: the slots that it has of rates are free again only after their period,
-- however soon it ends, and its next start needs others.
function slots.spend(id, limits)
  for limit in each_limit(limits) do
    local _, period = nil, nil
    if is_rate(limit) then _, period = slots.read_most(limit, id) end
    if period then
      local start = id .. ' ' .. string.format('%.6f', TS)
      redis.call('SREM', keys.slots(limit), id)
      redis.call('SADD', keys.slots(limit), start)
      redis.call('ZADD', keys.spent(limit), string.format('%.6f', TS + period), start)
      note_next(limit)
    end
  end
end

-- Lets jobs that wait with a join have their turn; a workflow goes on by itself after so many, as
-- each end in it calls this again.
local function queue_jobs_behind(join)
  local ids = redis.call('ZPOPMIN', keys.behind(join), 100)
  for at = 1, #ids, 2 do jobs.queue_waiting(ids[at]) end
end

-- Nobody has a slot of a limit across runs, nor waits for one.
local function forget_unused(limit)
  if redis.call('EXISTS', keys.slots(limit), keys.waiting(limit)) > 0 then return end
  redis.call('DEL', OURS .. limit, keys.spent(limit))
  redis.call('ZREM', OURS .. 'rates', limit)
end

local function fill_across_runs(limit)
  if is_rate(limit) then free_spent(limit) end
  for _ = 1, MANY do
    local first, since = unpack(redis.call('ZRANGE', keys.waiting(limit), 0, 0, 'WITHSCORES'))
    if not first then return forget_unused(limit) end
    local most = slots.read_most(limit, first) -- nil where it is gone
    if most and redis.call('SCARD', keys.slots(limit)) >= most then return end
    redis.call('ZREM', keys.waiting(limit), first)
    jobs.queue_waiting(first)
    queue_jobs_behind(first)
    if redis.call('ZSCORE', keys.waiting(limit), first) == since then return end -- it waits for its group
  end
  later('fill:' .. limit)
end

-- Lets those have their turn for which there are slots.
function slots.fill(limit)
  if is_across_runs(limit) then
    fill_across_runs(limit)
    return is_rate(limit) and note_next(limit)
  end
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
      slots.fill(limit)
    elseif not is_full(limit, join, id) then
      queue_jobs_behind(join)
    end
  end
end

-- Lets those have their turn for which there is room now. May end jobs.
function slots.fill_noted()
  local noted = to_fill
  to_fill, times = {}, times + 1
  for _, limit in ipairs(noted) do
    if not noted[limit] then
      noted[limit] = true
      if times > MANY or not pcall(slots.fill, limit) then pcall(later, 'fill:' .. limit) end
    end
  end
end

-- A job gives its slots back, and waits for new ones behind all others.
function slots.wait_again(id, limits)
  redis.call('HDEL', keys.job(id), 'flowq_turn')
  for limit, join in each_limit(limits) do
    if join == '' or is_across_runs(limit) then
      redis.call('SREM', keys.slots(limit), holder_of(id, join))
    end
    if is_across_runs(limit) then add_waiting_across_runs(limit, holder_of(id, join), id) end
    if join ~= '' then wait_behind(join, id) end
  end
  for limit in each_limit(limits) do slots.fill(limit) end
end

-- The slots that a workflow has across runs, and its turns: it waits for its back-off.
function slots.give_across_runs(join, limits)
  for limit in each_limit(limits) do
    if is_across_runs(limit) then slots.give(join, limit) end
  end
end

-- A run is removed, and its jobs are gone: what those of them had whose hashes somebody else deleted is free.
-- Looks at so many limits; returns true once that were all.
function slots.forget_run(run, count)
  local limits = redis.call('SPOP', keys.limits(run), count)
  for _, limit in ipairs(limits) do
    if redis.call('SCARD', keys.slots(limit)) > MANY then
      later('holders:' .. limit)
    else
      for _, id in ipairs(redis.call('SMEMBERS', keys.slots(limit))) do
        local is_start = string.find(id, ' ', 1, true)
        if not is_start and redis.call('EXISTS', keys.job(id)) == 0 then
          redis.call('SREM', keys.slots(limit), id)
        end
      end
      note_room(limit)
    end
  end
  return #limits == 0
end

-- The job, or the join `holder` that it waits with, goes to the end of the line of a limit.
function slots.stand_behind(limit, holder, id)
  redis.call('HDEL', keys.job(id), 'flowq_turn')
  redis.call('ZADD', keys.waiting(limit), 'XX', find_turn(id), holder)
end

-- Looks at the rates whose time has come. Returns when the next one is to be looked at, or nil.
function slots.refill_rates()
  for _ = 1, MANY do
    local next = redis.call('ZRANGE', OURS .. 'rates', 0, 0, 'WITHSCORES')
    if not next[1] then return nil end
    if tonumber(next[2]) > TS then return tonumber(next[2]) end
    redis.call('ZREM', OURS .. 'rates', next[1])
    slots.fill(next[1])
  end
  return TS
end

-- Which limits across runs a job waits for, it or the join that it waits with.
function slots.find_awaited(id, limits)
  local found = {}
  for limit, join in each_limit(limits) do
    if is_across_runs(limit) and redis.call('ZSCORE', keys.waiting(limit), holder_of(id, join)) then
      found[#found + 1] = limit
    end
  end
  return found
end
