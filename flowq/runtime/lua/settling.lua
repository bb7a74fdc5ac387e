-- settling.lua: put behind common.lua in front of every other script: what the end of a job means to
-- the future jobs that it blocks. It takes no ARGV.

-- Which of a future's counts an edge's outcome belongs to; nil when it does not hold.
local function class_of(outcome, policy)
  if outcome == 'pending' or outcome == 'pending!' then return 'pending' end
  if string.sub(outcome, -1) == '!' then return nil end
  if outcome == 'finished' or outcome == 'passed' or outcome == 'tolerated' then return nil end
  if outcome == 'expired' then return 'lost' end
  if outcome == 'deleted' and policy == 'wait' then return nil end
  return 'bad'
end

local ends, first_end -- jobs whose end has to be accounted for

-- `facts`: what facts_of would read; with `is_noted` the outcome is in the hash already.
local function will_settle(id, outcome, reason, facts)
  ends[#ends + 1] = { id, outcome, reason, facts }
end

local REGISTRY_BY_STATUS = { deferred = ':deferred:', scheduled = ':scheduled:',
  ready_to_enqueue = ':ready:' }

-- Ends a job that never ran: RQ's status is canceled (it has no other word), ours says why.
local function call_off(id, outcome, reason)
  local key = job_key(id)
  local f = redis.call('HMGET', key, 'origin', 'status')
  if not f[1] or f[2] == 'canceled' then return end
  local queue = f[1]
  if f[2] == 'queued' then
    push_queued()
    redis.call('LREM', PREFIX .. ':queue:' .. queue, 1, id)
  end
  local registry = REGISTRY_BY_STATUS[f[2]]
  if registry then redis.call('ZREM', PREFIX .. registry .. queue, id) end
  redis.call('HSET', key, 'status', 'canceled', 'ended_at', NOW, 'flowq_reason', reason or '')
  redis.call('ZADD', PREFIX .. ':canceled:' .. queue, TS, id)
  will_settle(id, outcome, reason)
end

-- The last one is blamed, but not one that was only skipped where another says why.
local function worse(culprit, news)
  return culprit and string.match(news, ' skipped$') and culprit or news
end

-- Says why a future job is skipped: its last blocker that did not succeed, by name, and how.
local function blame(culprit)
  local id, outcome = string.match(culprit or '', '^(%S+) (%S+)$')
  if not id then return 'a blocker did not succeed' end
  local name = redis.call('HGET', job_key(id), 'flowq_name') or id
  if outcome == 'failed' or outcome == 'expired' then return name .. ' ' .. outcome end
  return name .. ' was ' .. outcome
end

-- Says in its run that a job waits for blockers none of which will succeed by itself any more.
local function say_stuck(id, culprit)
  local f = redis.call('HMGET', job_key(id), 'flowq_run', 'flowq_name', 'status')
  if not f[1] or f[3] ~= 'deferred' then return end
  local why = culprit and ': ' .. blame(culprit) or ''
  log(f[1], id, f[2], 'deferred', 'waits for a blocker to succeed' .. why)
end

local DECIDING_FIELDS = { 'state', 'policy', 'pending', 'bad', 'lost', 'total', 'if_empty',
  'culprit' }

local function read_for_decision(id)
  return redis.call('HMGET', future_key(id), unpack(DECIDING_FIELDS))
end

-- Looks whether a released future job can be queued, or never will be.
-- `f` is what read_for_decision has read, and `job` what read_for_enqueue would.
local function decide(id, f, job)
  if f[1] ~= 'released' or int(f[3]) > 0 then return end
  local bad, lost = int(f[4]), int(f[5])
  if f[2] == 'wait' and lost > 0 then return call_off(id, 'skipped', blame(f[8])) end
  if f[2] == 'wait' and bad > 0 then return say_stuck(id, f[8]) end
  if f[2] == 'skip' and bad + lost > 0 then return call_off(id, 'skipped', blame(f[8])) end
  if int(f[6]) == 0 and f[7] == 'skip' then return call_off(id, 'passed', why_empty(id)) end
  job = job or read_for_enqueue(id)
  if job[12] ~= 'deferred' or int(job[13]) > 0 then return end
  local is_held = job[14] and must_ask(id)
  redis.call('HSET', future_key(id), 'state', not is_held and enqueue(id, job) and 'queued' or 'met')
  redis.call('ZREM', OURS .. 'watched', id)
end

-- Queues a job when the hold that was just lifted was its last one; `f` as for enqueue.
local function lift(id, f)
  f = f or read_for_enqueue(id)
  if f[12] ~= 'deferred' or int(f[13]) > 0 then return end
  if f[10] then return decide(id, read_for_decision(id), f) end
  enqueue(id, f)
end

local function move_edge(future, blocker, old, new, policy)
  local before, after = class_of(old, policy), class_of(new, policy)
  if before ~= after then
    if before then redis.call('HINCRBY', future_key(future), before, -1) end
    if after then redis.call('HINCRBY', future_key(future), after, 1) end
    if after == 'bad' or after == 'lost' then
      local culprit = redis.call('HGET', future_key(future), 'culprit')
      redis.call('HSET', future_key(future), 'culprit', worse(culprit, blocker .. ' ' .. new))
    elseif before == 'bad' or before == 'lost' then
      redis.call('HDEL', future_key(future), 'culprit')
    end
  end
  redis.call('HSET', edges_key(future), blocker, new)
end

-- Only RQ's depends_on held it: it is taken out of RQ's hands again, and waits for us. Returns false
-- when RQ is queueing it already.
local function take_back(future)
  if redis.call('HGET', job_key(future), 'status') ~= 'deferred' then return false end
  local ids = redis.call('HGET', job_key(future), 'dependency_ids')
  for _, dependency in ipairs(cjson.decode(ids or '[]')) do
    redis.call('SREM', job_key(dependency) .. ':dependents', future)
  end
  redis.call('DEL', PREFIX .. ':job::' .. future .. ':dependencies')
  leave_turn(future, redis.call('HGET', job_key(future), 'flowq_slots'))
  redis.call('HSET', future_key(future), 'state', 'released')
  return true
end

local told, told_at, mentions -- news by future job, and the order of the last of them

local function will_tell(future, blocker, outcome)
  local news = told[future] or { blockers = {}, outcomes = {} }
  told[future] = news
  news.blockers[#news.blockers + 1] = blocker
  news.outcomes[#news.outcomes + 1] = outcome
  mentions[#mentions + 1] = future
  told_at[future] = #mentions
end

local COUNTED_AT = { pending = 3, bad = 4, lost = 5 } -- in DECIDING_FIELDS

-- Tells a future job how blockers of it ended, all that is known at once, then decides.
-- The last outcome before the decision counts, each blocker at most once; then it is frozen.
local function tell(future, news)
  local key = future_key(future)
  local f = read_for_decision(future)
  if not UNDECIDED[f[1]] and f[1] ~= 'met' then return end
  local olds = redis.call('HMGET', edges_key(future), unpack(news.blockers))
  local edges, change, written = {}, {}, {}
  for i, blocker in ipairs(news.blockers) do
    local old = edges[blocker] or olds[i]
    if old then
      local new = news.outcomes[i] .. (string.sub(old, -1) == '!' and '!' or '')
      local before, after = class_of(old, f[2]), class_of(new, f[2])
      if before ~= after then
        if before then change[before] = (change[before] or 0) - 1 end
        if after then change[after] = (change[after] or 0) + 1 end
        if after == 'bad' or after == 'lost' then
          f[8] = worse(f[8], blocker .. ' ' .. new)
        elseif before == 'bad' or before == 'lost' then
          f[8] = false
        end
        f.is_moved = f.is_moved or after ~= nil or before ~= 'pending'
      end
      edges[blocker] = new
      written[#written + 1] = blocker
      written[#written + 1] = new
    end
  end
  if #written == 0 then return end
  if f[1] == 'met' then
    if not take_back(future) then return end
    f[1] = 'released'
  end
  redis.call('HSET', edges_key(future), unpack(written))
  for class, by in pairs(change) do f[COUNTED_AT[class]] = redis.call('HINCRBY', key, class, by) end
  if f.is_moved and f[8] then redis.call('HSET', key, 'culprit', f[8]) end
  if f.is_moved and not f[8] then redis.call('HDEL', key, 'culprit') end
  decide(future, f)
end

local states -- of the future jobs that this call has asked for; see is_wanted
local futures_by_blocks

-- The future jobs that a job blocks: many jobs block the same ones.
local function futures_of(blocks)
  local futures = futures_by_blocks[blocks or '']
  if not futures then
    futures = {}
    for future in each_future(blocks) do futures[#futures + 1] = future end
    futures_by_blocks[blocks or ''] = futures
  end
  return futures
end

-- Whether a future job that it blocks has not ended, so that how it ended may still be asked.
-- One that ends in this very call looks at all its blockers itself (retire), so each is asked once.
local function is_wanted(blocks)
  for _, future in ipairs(futures_of(blocks)) do
    local state = states[future]
    if state == nil then
      state = redis.call('HGET', future_key(future), 'state')
      states[future] = state
    end
    if UNDECIDED[state] or state == 'met' or state == 'queued' then return true end
  end
  return false
end

-- Whether a step to come looks at the blockers of one of these future jobs anyway.
local function will_retire(blocks)
  for future in each_future(blocks) do
    if redis.call('ZSCORE', TODO, 'retire:' .. future) then return true end
  end
  return false
end

local function end_future(id, outcome, run)
  local key = future_key(id)
  local f = redis.call('HMGET', key, 'state', 'freed')
  if not f[1] then return end
  redis.call('HSET', key, 'state', outcome)
  redis.call('ZREM', OURS .. 'expiring', id)
  if f[1] ~= 'queued' then redis.call('ZREM', OURS .. 'watched', id) end
  if CALLED_OFF[outcome] then
    redis.call('ZREM', TODO, 'free:' .. id)
    if redis.call('LLEN', blockers_key(id)) > int(f[2]) then later('abandon:' .. id) end
  end
  if not run then later('retire:' .. id) end
end

-- What settling has to know about a job, also about one whose hash has expired. What only jobs of
-- a run have is read for those.
local function facts_of(id)
  local f = redis.call('HMGET', job_key(id), 'origin', 'flowq_blocks', 'flowq_future', 'flowq_run',
    'flowq_outcome', 'ttl')
  if f[1] then
    return { exists = true, blocks = f[2], future = f[3], run = f[4], before = f[5], ttl = f[6] }
  end
  local m = cjson.decode(redis.call('GET', mortal_key(id)) or '[]')
  return { blocks = m[1], future = m[2], run = m[3], name = m[4], before = m[5], ttl = 1 }
end

local function read_more(id, job)
  local f = redis.call('HMGET', job_key(id), 'flowq_name', 'flowq_group', 'flowq_slots',
    'flowq_expands', 'flowq_tolerate', 'flowq_pass', 'flowq_adds')
  job.name, job.group, job.slots, job.expands = f[1], f[2], f[3], f[4]
  job.tolerate, job.pass, job.adds = f[5], f[6], f[7]
end

local settle

-- What a run has to know before the future jobs that the job blocks hear of its end. That may end
-- the job once more, differently.
local function settle_in_run(id, job, outcome, reason)
  if job.before ~= outcome then
    reason = reason or redis.call('HGET', job_key(id), 'flowq_reason')
    local shown = outcome == 'passed' and 'skipped' or outcome == 'tolerated' and 'failed' or outcome
    log(job.run, id, job.name, shown, reason)
  end
  if job.group or job.expands then
    for _, other in ipairs(end_in_group(id, job, job.before, outcome)) do
      local was_called_off = redis.call('HGET', job_key(other), 'status') == 'canceled'
      settle(other, was_called_off and 'skipped' or 'failed', 'more than are tolerated')
    end
  end
  if job.adds and outcome ~= 'finished' then later('strand:' .. id) end
  count_in_run(job.run, job.before, outcome, id)
end

-- Only a job with a time to live in its queue has left a note for the case that it expires there.
local function keep_note(id, job, outcome)
  if outcome ~= 'failed' and outcome ~= 'stopped' then
    redis.call('DEL', mortal_key(id))
  elseif job.exists and redis.call('EXISTS', mortal_key(id)) == 1 then -- it may be requeued, and expire
    local facts = { job.blocks or false, job.future or false, job.run or false, job.name or false,
      outcome }
    redis.call('SET', mortal_key(id), cjson.encode(facts), 'KEEPTTL')
  end
end

function settle(id, outcome, reason, facts)
  local job = facts or facts_of(id)
  local blocks, future, run, before = job.blocks, job.future, job.run, job.before
  if run and job.exists then read_more(id, job) end
  if outcome == 'deleted' and CALLED_OFF[before] and job.exists then
    redis.call('ZREM', OURS .. 'forgotten', id .. ' ' .. redis.call('HGET', job_key(id), 'origin'))
  end
  if outcome == 'deleted' and (before == 'finished' or before == 'passed') then outcome = before end
  local seen = outcome
  if run then outcome, reason = judge(id, job, outcome, reason) end
  if job.exists and not job.is_noted then
    redis.call('HSET', job_key(id), 'flowq_outcome', outcome)
  end
  if job.ttl then keep_note(id, job, outcome) end
  if outcome == 'expired' then redis.call('DEL', PREFIX .. ':job::' .. id .. ':dependencies') end
  for _, target in ipairs(futures_of(blocks)) do will_tell(target, id, outcome) end
  if run then settle_in_run(id, job, outcome, reason) end
  if run and not blocks and not future then drop_loose(run, id) end
  -- One that was skipped can be armed again, whatever that counts for.
  if future then end_future(id, seen == 'skipped' and seen or outcome, run) end
  if job.slots then give_slots(id, job.slots) end
  if run or outcome == 'deleted' or outcome == 'expired' then return end
  -- RQ sees to the others; a hash that a success makes anew after a delete has lost what it blocks.
  local is_ours = blocks or CALLED_OFF[outcome] or not job.exists
  if is_ours and not is_wanted(blocks) and not will_retire(blocks) then later('expire:' .. id) end
end

-- What fails, or comes too late in a long cascade, is picked up from the todo.
local function put_off(blockers, outcomes)
  for i, blocker in ipairs(blockers) do pcall(later, 'end:' .. blocker .. ':' .. outcomes[i]) end
end

local function tell_all()
  local old_told, old_at, old_mentions, failure = told, told_at, mentions, nil
  told, told_at, mentions = {}, {}, {}
  for i, future in ipairs(old_mentions) do
    if old_at[future] == i then
      local news = old_told[future]
      local ok, problem = pcall(tell, future, news)
      if not ok then
        put_off(news.blockers, news.outcomes)
        failure = failure or text_of(problem)
      end
    end
  end
  return failure
end

-- Accounts for the ends that are known, and for those that follow from them, then queues what they
-- have held. A long cascade is cut. Never raises; returns the text of the first failure.
local function settle_all()
  local count, failure = 0, nil
  states = {}
  repeat
    while first_end <= #ends do
      local item = ends[first_end]
      first_end = first_end + 1
      count = count + 1
      local is_time = count <= CASCADE_LIMIT
      local ok, problem = false, nil
      if is_time then ok, problem = pcall(settle, item[1], item[2], item[3], item[4]) end
      if not ok then
        put_off({ item[1] }, { item[2] })
        failure = failure or is_time and text_of(problem) or nil
      end
    end
    local problem = tell_all()
    failure = failure or problem
  until first_end > #ends and #mentions == 0
  local ok, problem = pcall(push_queued)
  return failure or not ok and text_of(problem) or nil
end

-- The first thing in every call: as a function of a library, it finds what the last one has left.
local function begin_call(argv)
  PREFIX, NOW, TS = argv[1], argv[2], tonumber(argv[3])
  OURS = PREFIX .. ':flowq:1:'
  TODO = OURS .. 'todo'
  begun, queued_by_queue = {}, {}
  ends, first_end = {}, 1
  told, told_at, mentions = {}, {}, {}
  states, futures_by_blocks = {}, {}
end
