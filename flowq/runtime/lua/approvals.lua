-- approvals.lua: What a job that is otherwise ready waits for before it is queued: its `if`, judged by a
-- worker, and an approval.

local ACTS = { approved = 'approve', rejected = 'reject' }

-- Who has said a word that approves or rejects, and with which note; nil where that is not known.
local function read_word(word)
  local said = read_json(word)
  if type(said) ~= 'table' then return nil, nil end
  return said.by, said.note
end

-- Tells the run what somebody has said of several jobs, or of one that is being executed, whose own events
-- say nothing of that. `target` is what they named.
local function tell_run(run, what, word, target)
  local by = read_word(word)
  if not run or not by or target == '' then return end
  runs.log_act_only(run, target .. ' ' .. what .. ' by ' .. by, ACTS[what], by, target)
end

-- All items of a group are approved or rejected, also those still to come. Returns as `approvals.approve`
-- does; nil for what is no group, or one whose list is known.
local function approve_group(group, what, word, target)
  local g = redis.call('HMGET', keys.group(group), 'asks', what, 'complete', 'left')
  local f = redis.call('HMGET', keys.job(group), 'flowq_expands', 'flowq_run')
  if not f[1] or not g[1] then return nil end
  if g[2] then return 0 end
  if g[3] and int(g[4]) <= 0 then return -2 end
  if f[2] and runs.has_ended(redis.call('HGET', keys.run(f[2]), 'state')) then return -2 end
  redis.call('HDEL', keys.group(group), 'approved', 'rejected')
  redis.call('HSET', keys.group(group), what, word)
  tell_run(f[2], what, word, target)
  return 1
end

-- Returns the words that approve or reject an item of a group with the whole of it, or nil. Of an item
-- that is a workflow it is the start that asks.
local function find_word(id)
  local f = redis.call('HMGET', keys.job(id), 'flowq_group', 'flowq_inside')
  local is_start = not f[1] and f[2] and id == nested.start_id(f[2])
  local group = f[1] or is_start and redis.call('HGET', keys.job(f[2]), 'flowq_group')
  local words = group and redis.call('HMGET', keys.group(group), 'approved', 'rejected') or {}
  return words[1] or nil, words[2] or nil
end

-- Tells the run that a job was approved or rejected, and by whom, which is an act of its own unless that
-- was told of all items together.
local function tell_word(run, id, name, what, word, is_told)
  local by = read_word(word)
  local reason = by and what .. ' by ' .. by or what
  if by and not is_told then return runs.log_act(run, id, name, 'deferred', reason, ACTS[what], by) end
  if what == 'approved' then runs.log(run, id, name, 'deferred', reason) end -- a reject ends it, which is told
end

local function reject(id, word)
  local _, note = read_word(word)
  redis.call('HSET', keys.job(id), 'flowq_rejected', word)
  jobs.call_off(id, 'canceled', note and 'rejected: ' .. note or 'rejected')
end

-- Whether a job that is ready otherwise has to wait for somebody's approval, who is asked now; nil when it
-- was rejected, and has ended.
function approvals.must_ask(id)
  local f = redis.call('HMGET', keys.job(id), 'flowq_approval', 'flowq_approved', 'flowq_run',
    'flowq_name', 'flowq_asked')
  if not f[1] or f[2] then return false end
  local approved, rejected = find_word(id)
  if rejected then return reject(id, rejected) end
  if approved then
    redis.call('HSET', keys.job(id), 'flowq_approved', approved)
    return false
  end
  if f[5] then return true end
  redis.call('HSET', keys.job(id), 'flowq_asked', 1)
  local expires = string.match(f[1], '^1 (.+)$')
  if expires then redis.call('ZADD', OURS .. 'expiring', TS + tonumber(expires), id) end
  if f[3] then runs.log(f[3], id, f[4], 'deferred', 'waits for approval') end
  return true
end

-- What was judged may be different by now, and nobody is asked until it was judged again.
function approvals.forget_judging(id)
  local f = redis.call('HMGET', keys.job(id), 'flowq_judging', 'flowq_asked')
  if f[1] == 'done' then redis.call('HSET', keys.job(id), 'flowq_judging', 'due') end
  if f[2] then
    redis.call('HDEL', keys.job(id), 'flowq_asked')
    redis.call('ZREM', OURS .. 'expiring', id)
  end
end

-- Somebody approves or rejects a job; for the job that makes the items of a group, all of
-- these, also those still to come.
-- ARGV   4 job id   5 "approved" or "rejected"   6 the word as it is kept, JSON: by, at, note, inputs
--        7 what was named, "" when the run was told of the act by another call
--        8 "1" when that is all items of a group, else ""
-- Returns 1 for the call that did it, 0 when that was said before, -1 for a job that needs no approval,
-- -2 for one that is over, -3 for a reject of one that has not asked, -4 for one of which the other was
-- said before. An approved job that is not ready yet starts when it is.
function approvals.approve(argv)
  local id, what, word, target = argv[4], argv[5], argv[6], argv[7]
  local of_group = approve_group(id, what, word, target)
  if of_group then return of_group end
  local f = redis.call('HMGET', keys.job(id), 'status', 'flowq_approval', 'flowq_approved',
    'flowq_asked', 'flowq_run', 'flowq_name', 'flowq_judging', 'flowq_rejected')
  if not f[2] then return -1 end
  if what == 'approved' and f[3] or what == 'rejected' and f[8] then return 0 end
  if f[3] or f[8] then return -4 end
  local is_judged_now = f[7] == 'due' and (f[1] == 'queued' or f[1] == 'started')
  if f[1] ~= 'deferred' and not is_judged_now then return -2 end
  if what == 'rejected' and not f[4] then return -3 end
  local is_of_many = argv[8] ~= ''
  if is_of_many or is_judged_now then tell_run(f[5], what, word, target) end
  if f[5] and not is_judged_now then tell_word(f[5], id, f[6], what, word, is_of_many or target == '') end
  if what == 'rejected' then
    reject(id, word)
  else
    redis.call('HSET', keys.job(id), 'flowq_approved', word)
    redis.call('ZREM', OURS .. 'expiring', id)
    if f[4] then jobs.queue_waiting(id) end
  end
  settling.settle_all()
  return 1
end

-- A job whose `if` holds, judged just now by its own execution, asks whether it may go on.
-- ARGV   4 job id
-- Returns 1 when it may: it has its slots. 0 when it has to wait, for an approval or for a slot; its
-- execution ends then, with `approvals.hold`, which looks once more. Idempotent.
function approvals.may_go_on(argv)
  local id = argv[4]
  local f = redis.call('HMGET', keys.job(id), 'flowq_judging', 'flowq_approval', 'flowq_approved',
    'flowq_slots', 'flowq_first')
  if f[1] ~= 'due' then return 1 end
  if f[2] and not f[3] then return 0 end
  if f[4] then
    if not slots.take(id, f[4]) then return 0 end
    slots.spend(id, f[4])
  end
  redis.call('HSET', keys.job(id), 'flowq_judging', 'done')
  if f[5] == 'cancel' then
    firsts.note_start(id)
    settling.settle_all()
  end
  return 1
end

-- The execution of a job ends in which its `if` was judged; the job waits for an approval, or for
-- a slot. Runs inside RQ's transaction that ends the execution.
-- ARGV   4 job id   5 what whoever approves it should read, "" for what is known already
-- A job that was canceled meanwhile, or whose group is closed, ends instead, and asks nobody. Returns OK,
-- or the text of an error; it never raises.
function approvals.hold(argv)
  local ok, answer = pcall(function()
    local id = argv[4]
    local key = keys.job(id)
    local f = redis.call('HMGET', key, 'status', 'origin', 'flowq_judging', 'flowq_future')
    if f[1] ~= 'started' or f[3] ~= 'due' then return redis.status_reply('OK') end
    redis.call('HSET', key, 'status', 'deferred', 'started_at', '', 'worker_name', '', 'flowq_judging', 'done')
    if (argv[5] or '') ~= '' then redis.call('HSET', key, 'flowq_message', argv[5]) end
    redis.call('ZADD', PREFIX .. ':deferred:' .. f[2], '+inf', id)
    redis.call('HINCRBY', key, 'flowq_attempts', -1) -- that was none
    if not jobs.begin_again(id) then
      local told = redis.call('HMGET', key, 'flowq_run', 'flowq_name', 'flowq_approval', 'flowq_approved')
      -- A job that must ask gets an event for that.
      if not told[3] or told[4] then runs.log(told[1], id, told[2], 'returned') end
      local is_queued = jobs.proceed(id, jobs.read_for_enqueue(id))
      if is_queued == nil then return settling.settle_all() or redis.status_reply('OK') end
      if f[4] then redis.call('HSET', keys.future(id), 'state', is_queued and 'queued' or 'met') end
      -- That it asks, or is queued, is told already.
      if not is_queued and redis.call('HEXISTS', key, 'flowq_asked') == 0 then
        runs.log(told[1], id, told[2], 'deferred', 'waits for a slot')
      end
    end
    return settling.settle_all() or redis.status_reply('OK')
  end)
  if ok then return answer end
  return text_of(answer)
end
