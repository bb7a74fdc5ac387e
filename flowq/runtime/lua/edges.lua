-- edges.lua: tells future jobs how their blockers end. It takes no ARGV.
--
-- edges:F has the outcome of each blocker of the future job F, or "pending", with "!" behind it where
-- a failure is ignored; F's hash has the counts of them.

-- `above`: what ancestors.find has found above the blocker.
function edges.move(future, blocker, old, new, policy, above)
  local before, after = outcomes.class(old, policy), outcomes.class(new, policy)
  if before ~= after then
    if before then redis.call('HINCRBY', keys.future(future), before, -1) end
    if after then redis.call('HINCRBY', keys.future(future), after, 1) end
    if after == 'bad' or after == 'lost' then
      local culprit = redis.call('HGET', keys.future(future), 'culprit')
      culprit = outcomes.worse(culprit, blocker .. ' ' .. new)
      redis.call('HSET', keys.future(future), 'culprit', culprit)
    elseif before == 'bad' or before == 'lost' then
      redis.call('HDEL', keys.future(future), 'culprit')
    end
    if before == 'won' or after == 'won' then firsts.note_winner(future, blocker, new, before, after) end
  end
  redis.call('HSET', keys.edges(future), blocker, new)
  ancestors.move(future, blocker, old, new, above)
end

local updates, last_mention, mentions -- news by future job, and the order of the last of them

function edges.reset() updates, last_mention, mentions = {}, {}, {} end

function edges.has_updates() return #mentions > 0 end

-- `expands`: the blocker has made the list of a group.
function edges.add(future, blocker, outcome, above, expands)
  local ends = updates[future] or { blockers = {}, outcomes = {}, above = {} }
  updates[future] = ends
  ends.blockers[#ends.blockers + 1] = blocker
  ends.outcomes[#ends.outcomes + 1] = outcome
  if above then
    ends.above[#ends.outcomes] = above
    ends.is_marked = true
  end
  if expands then
    ends.lists = ends.lists or {}
    ends.lists[#ends.outcomes] = true
  end
  mentions[#mentions + 1] = future
  last_mention[future] = #mentions
end

local GONE = { deleted = true, expired = true }

-- A job of a run that was called off hears of what has ended after that when it is to run again, from
-- the hashes of these jobs (rerun.lua). Those that are gone are noted now.
local function note_gone(future, ends, policy)
  for i, blocker in ipairs(ends.blockers) do
    local old = GONE[ends.outcomes[i]] and redis.call('HGET', keys.edges(future), blocker)
    local is_pending = old and outcomes.class(old, policy) == 'pending'
    if is_pending and redis.call('HEXISTS', keys.job(future), 'flowq_run') == 1 then
      local new = ends.outcomes[i] .. (string.sub(old, -1) == '!' and '!' or '')
      edges.move(future, blocker, old, new, policy, ends.above[i])
    end
  end
end

-- In what futures.read_for_decision reads.
local COUNTED_AT = { pending = 3, bad = 4, lost = 5, failed = 9, canceled = 10, won = 11 }

-- Tells a future job how blockers of it ended, all that is known at once, then decides.
-- The last outcome before the decision counts, each blocker at most once; then it is frozen.
local function update(future, ends)
  local key = keys.future(future)
  local f = futures.read_for_decision(future)
  if CALLED_OFF[f[1]] then return note_gone(future, ends, f[2]) end
  if not UNDECIDED[f[1]] and f[1] ~= 'met' or f[12] then return end
  if firsts.is_one(f[2]) then ends = firsts.translate(ends) end
  local olds = redis.call('HMGET', keys.edges(future), unpack(ends.blockers))
  local latest, change, written = {}, {}, {}
  for i, blocker in ipairs(ends.blockers) do
    local old = latest[blocker] or olds[i]
    if old then
      local new = ends.outcomes[i] .. (string.sub(old, -1) == '!' and '!' or '')
      local before, after = outcomes.class(old, f[2]), outcomes.class(new, f[2])
      if before ~= after then
        if before then change[before] = (change[before] or 0) - 1 end
        if after then change[after] = (change[after] or 0) + 1 end
        if after == 'bad' or after == 'lost' then
          f[8] = outcomes.worse(f[8], blocker .. ' ' .. new)
        elseif before == 'bad' or before == 'lost' then
          f[8] = false
        end
        if before == 'won' or after == 'won' then firsts.note_winner(future, blocker, new, before, after) end
        f.is_moved = f.is_moved or after ~= nil or before ~= 'pending'
      end
      -- Where the policy is to wait it counts for nothing, but for what follows it has gone wrong.
      if new == 'deleted' then ends.is_marked = true end
      latest[blocker] = new
      written[#written + 1] = blocker
      written[#written + 1] = new
    end
  end
  if #written == 0 then return end
  if f[1] == 'met' then
    if not futures.take_back(future) then return end
    f[1] = 'released'
  end
  redis.call('HSET', keys.edges(future), unpack(written))
  if f.is_moved or ends.is_marked or f[9] or f[10] then
    ancestors.note(future, f, change, ends, olds)
  end
  for class, by in pairs(change) do f[COUNTED_AT[class]] = redis.call('HINCRBY', key, class, by) end
  if f.is_moved and f[8] then redis.call('HSET', key, 'culprit', f[8]) end
  if f.is_moved and not f[8] then redis.call('HDEL', key, 'culprit') end
  futures.decide(future, f)
end

function edges.update_all()
  local old_updates, old_last, old_mentions, failure = updates, last_mention, mentions, nil
  edges.reset()
  for i, future in ipairs(old_mentions) do
    if old_last[future] == i then
      local ends = old_updates[future]
      local ok, problem = pcall(update, future, ends)
      if not ok then
        settling.postpone(ends.blockers, ends.outcomes)
        failure = failure or text_of(problem)
      end
    end
  end
  return failure
end
