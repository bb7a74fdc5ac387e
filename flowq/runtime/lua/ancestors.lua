-- ancestors.lua: what went wrong above a future job: its end is told together with the kinds of that,
-- so success() and failure() ask two counts instead of all jobs before.
--
-- Where nothing went wrong nothing of this is written. Else the hash of a future job F has
--   failed, canceled   how many of its blockers ended like that, or have such an end above them
--   above              a job that went wrong above one of its blockers, and how
-- and above:F the kinds of what is above each blocker: "failed", "canceled", or "failed canceled".
-- An edge that ignores failures passes nothing on. flowq_success in the hash of a job of a workflow:
-- "1" where it runs only if nothing above it went wrong (flowq/runtime/planned.py).

local KINDS = { failed = 'failed', stopped = 'failed', expired = 'failed', deleted = 'failed',
  canceled = 'canceled' }
local BOTH = 'failed canceled'

local function join(one, other)
  if not one or not other or one == other then return one or other end
  return BOTH
end

-- What went wrong at the blocker of an edge, or above it; nil where nothing did, as far as is known.
local function kinds_of(outcome, above)
  if outcome == 'pending' or string.sub(outcome, -1) == '!' then return nil end
  if outcome == 'skipped' and not above then return 'failed' end -- by an older version
  return join(KINDS[outcome], above)
end

local function count(change, kinds, by)
  for kind in string.gmatch(kinds or '', '%a+') do change[kind] = (change[kind] or 0) + by end
end

local function put(future, kept, dropped, culprit)
  if #kept > 0 then
    redis.call('HSET', keys.above(future), unpack(kept))
    redis.call('HSET', keys.future(future), 'above', culprit)
  end
  if #dropped > 0 then redis.call('HDEL', keys.above(future), unpack(dropped)) end
end

-- Returns what went wrong above a job that ends, {kinds, culprit}; nil where nothing did. `f` is what
-- futures.read_for_end has read.
function ancestors.find(id, outcome, f)
  local kinds = int(f[3]) > 0 and 'failed' or nil
  if int(f[4]) > 0 then kinds = join(kinds, 'canceled') end
  local start = nested.start_id(id)
  if kinds and outcome == 'tolerated' and redis.call('HEXISTS', keys.edges(id), start) == 1 then
    kinds = redis.call('HGET', keys.above(id), start) -- not what is inside of the nested workflow
  end
  if not kinds then return nil end
  local c = redis.call('HMGET', keys.future(id), 'culprit', 'above')
  local is_last = c[1] and not (c[2] and string.match(c[1], ' skipped$'))
  return { kinds = kinds, culprit = is_last and c[1] or c[2] or c[1] or '' }
end

-- Adds to `change` how the counts of a future job change with what edges.lua tells it.
function ancestors.note(future, f, change, news, olds)
  local has_some = int(f[9]) + int(f[10]) > 0
  local before = has_some and redis.call('HMGET', keys.above(future), unpack(news.blockers)) or {}
  local last, kept, dropped, culprit = {}, {}, {}, nil
  for i, blocker in ipairs(news.blockers) do last[blocker] = i end
  for i, blocker in ipairs(news.blockers) do
    if olds[i] and last[blocker] == i then
      local mark, above = string.sub(olds[i], -1) == '!' and '!' or '', news.above[i]
      count(change, kinds_of(olds[i], before[i]), -1)
      count(change, kinds_of(news.outcomes[i] .. mark, above and above.kinds), 1)
      if above and mark == '' then
        kept[#kept + 1] = blocker
        kept[#kept + 1] = above.kinds
        culprit = above.culprit
      elseif before[i] then
        dropped[#dropped + 1] = blocker
      end
    end
  end
  put(future, kept, dropped, culprit)
end

-- The same for one edge, also where it holds again.
function ancestors.move(future, blocker, old, new, above)
  local before, change = redis.call('HGET', keys.above(future), blocker), {}
  local is_kept = above and string.sub(new, -1) ~= '!'
  count(change, kinds_of(old, before), -1)
  count(change, kinds_of(new, above and above.kinds), 1)
  for kind, by in pairs(change) do
    if by ~= 0 then redis.call('HINCRBY', keys.future(future), kind, by) end
  end
  put(future, is_kept and { blocker, above.kinds } or {}, before and not is_kept and { blocker } or {},
    above and above.culprit)
end

-- Whether a future job none of whose blockers counts against it must not run nevertheless: because of
-- what is above them. Counts that an older version did not keep are forgotten.
function ancestors.forbid(id, f)
  if int(f[9]) + int(f[10]) <= 0 then return false end
  if not redis.call('HGET', keys.job(id), 'flowq_success') then return false end
  if redis.call('EXISTS', keys.above(id)) == 1 then return true end
  redis.call('HDEL', keys.future(id), 'failed', 'canceled', 'above')
  return false
end
