-- firsts.lua: Future jobs that start at the first success of a blocker, or at the first failure.
--
-- Their policy is "one_success" or "one_failed", and flowq_first in the job's hash is "keep", or "cancel"
-- where what they have not waited for is to end. The future hash of such a job also has
--   won       how many blockers have ended in the way that starts it
--   winner    the first of these, and how it ended
--   decided   the same, from the start on: nothing of its edges changes any more
--   goes      "1" once nothing keeps it any more, no `if`, approval or slot: then `cancel_rest` acts
--   rested    how far needless.lua has come with its blockers; stops: "1" once it has stopped some
-- Its `pending` is one too many: so scripts of older versions, which do not know these policies, note how
-- its blockers end, and never start or skip it.
--
-- flowq_ends_as in the hash of a job that is not to run any more: as what it ends, and why, unless it
-- finishes before it can be stopped.

local RULES = { one_success = true, one_failed = true }

function firsts.is_one(policy) return RULES[policy] or false end

local STARTS = { one_success = { finished = true },
  one_failed = { failed = true, stopped = true, expired = true, deleted = true, skipped = true } }
local NEUTRAL = { finished = true, passed = true, tolerated = true }

-- As outcomes.class, for an edge that has ended.
function firsts.class(outcome, policy)
  local is_ignored = string.sub(outcome, -1) == '!'
  local ended = is_ignored and string.sub(outcome, 1, -2) or outcome
  if STARTS[policy][ended] and (policy == 'one_success' or not is_ignored) then return 'won' end
  if is_ignored or NEUTRAL[ended] then return nil end
  return ended == 'expired' and 'lost' or 'bad'
end

-- What the end of a blocker counts for at its edge. To have made the list of a group is no success of the
-- group, and what is skipped after a cancel has not failed.
function firsts.at_edge(outcome, above, expands)
  if outcome == 'finished' and expands then return 'passed' end
  if outcome == 'skipped' and above and not string.find(above.kinds, 'failed', 1, true) then
    return 'canceled'
  end
  return outcome
end

-- The same for all that edges.lua tells a future job at once.
function firsts.translate(news)
  local outcomes_at_edges = {}
  for i, outcome in ipairs(news.outcomes) do
    outcomes_at_edges[i] = firsts.at_edge(outcome, news.above[i], news.lists and news.lists[i])
  end
  return { blockers = news.blockers, outcomes = outcomes_at_edges, above = news.above,
    is_marked = news.is_marked }
end

-- Notes which blocker starts the job; `before`, `after`: the classes of its edge.
function firsts.note_winner(future, blocker, outcome, before, after)
  if before == after then return end
  if after == 'won' then
    redis.call('HSETNX', keys.future(future), 'winner', blocker .. ' ' .. outcome)
  elseif before == 'won' then
    redis.call('HDEL', keys.future(future), 'winner')
  end
end

-- Whether a job other than this future job still waits for a blocker. That its workflow does is no reason,
-- and what is under `finally` only waits for an end.
local function is_needed(blocks, inside, future)
  for other, mark in each_future(blocks) do
    if other ~= future and other ~= inside then
      local s = redis.call('HMGET', keys.future(other), 'state', 'decided')
      local is_waiting = UNDECIDED[s[1]] or s[1] == 'met' and not s[2]
      local is_final = is_waiting and mark == '!' and redis.call('HEXISTS', keys.job(other), 'flowq_final') == 1
      if is_waiting and not is_final then return true end
    end
  end
  return false
end

-- Ends a job that is not needed any more, as `word`. What runs is left to `stop`, where there is one.
-- `future`: who does not need it; nil where it ends whoever waits.
function firsts.end_one(id, word, why, future, stop)
  local f = redis.call('HMGET', keys.job(id), 'status', 'flowq_outcome', 'flowq_blocks', 'flowq_inside',
    'flowq_group', 'flowq_expands', 'flowq_nested')
  if f[2] or not (NOT_STARTED[f[1]] or f[1] == 'started') then return end
  if future and is_needed(f[3], f[4], future) then return end
  redis.call('HSET', keys.job(id), 'flowq_ends_as', word .. ' ' .. why)
  local group = future and (f[6] and redis.call('EXISTS', keys.group(id)) == 1 and id or f[5])
  if group then
    groups.close(group, word, why)
    redis.call('HSET', keys.group(group), 'needless', 1)
  end
  if f[7] and nested.has_begun(id) then
    if not nested.end_round(id, word, why) and stop then stop(id, f[1], true) end
  elseif f[1] == 'started' then
    if stop then stop(id, f[1], false) end
  else
    jobs.call_off(id, word, why)
    if f[7] then jobs.call_off(nested.start_id(id), word, why) end
  end
end

-- As what a job ends that is not to run any more, and why; nil for others. `ends_as`: its flowq_ends_as.
function firsts.read_end(ends_as) return string.match(ends_as or '', '^(%a+) (.*)$') end

local AT_ONCE = 100

-- Why what is left of the blockers is not needed.
function firsts.why_not_needed(future)
  local name = redis.call('HGET', keys.job(future), 'flowq_name')
  return 'not needed: ' .. nested.public_name(name or future) .. ' has started'
end

local function begin_to_end_rest(id)
  local why = firsts.why_not_needed(id)
  for _, blocker in ipairs(redis.call('LRANGE', keys.blockers(id), 0, AT_ONCE - 1)) do
    firsts.end_one(blocker, 'passed', why, id)
  end
  later('rest:' .. id) -- what runs has to be told, and there may be more
end

local function note_decision(id, policy)
  local key = keys.future(id)
  redis.call('HSET', key, 'decided', redis.call('HGET', key, 'winner') or '')
  if policy == 'one_success' then -- whether others failed first is chance: it passes nothing on
    redis.call('HDEL', key, 'bad', 'lost', 'culprit', 'failed', 'canceled', 'above')
    redis.call('DEL', keys.above(id))
  end
  if redis.call('HEXISTS', key, 'goes') == 1 then begin_to_end_rest(id) end
end

-- A job with `cancel_rest` is queued, or goes on after its `if`: nothing can keep it any more. The first time,
-- what is left of its blockers ends; a retry finds them as they are.
function firsts.note_start(id)
  if redis.call('HSETNX', keys.future(id), 'goes', 1) == 0 then return end
  if redis.call('HEXISTS', keys.future(id), 'decided') == 1 then begin_to_end_rest(id) end
end

-- All blockers have ended, and none of them has started it.
local function end_unstarted(id, f)
  if f[2] == 'one_success' and int(f[4]) + int(f[5]) > 0 then
    return jobs.call_off(id, 'skipped', futures.describe_culprit(id, f[8]))
  end
  jobs.call_off(id, 'passed', 'no job before it ' .. (f[2] == 'one_success' and 'succeeded' or 'failed'))
end

local MAX_RECOUNTED = 5000

-- An older version, which knows other classes of edges, may have noted ends: counts them, and decides.
-- Where there are too many, the next end that this version notes decides.
function firsts.look_again(id)
  local key = keys.future(id)
  local f = redis.call('HMGET', key, 'state', 'policy', 'decided')
  if f[1] ~= 'released' or f[3] or not firsts.is_one(f[2]) then return end
  if redis.call('HLEN', keys.edges(id)) > MAX_RECOUNTED then return end
  local count, items = { pending = 1, bad = 0, lost = 0, won = 0 }, redis.call('HGETALL', keys.edges(id))
  for at = 1, #items, 2 do
    local class = outcomes.class(items[at + 1], f[2])
    if class then count[class] = count[class] + 1 end
    if class == 'won' then redis.call('HSETNX', key, 'winner', items[at] .. ' ' .. items[at + 1]) end
  end
  for class, number in pairs(count) do redis.call('HSET', key, class, number) end
  futures.decide(id, futures.read_for_decision(id))
end

-- As futures.decide, for a released one.
function firsts.decide(id, f, job)
  local is_decided = f[12]
  if not is_decided and int(f[11]) <= 0 then
    if int(f[3]) <= 1 then end_unstarted(id, f) end
    return
  end
  if futures.start(id, job) and not is_decided then note_decision(id, f[2]) end
end
