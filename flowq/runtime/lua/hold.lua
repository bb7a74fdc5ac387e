-- hold.lua: the execution of a job ends in which its `if` was judged; the job waits for an approval, or for
-- a slot. Runs inside RQ's transaction that ends the execution.
--
-- ARGV   4 job id   5 what whoever approves it should read, "" for what is known already
-- A job that was canceled meanwhile, or whose group is closed, ends instead, and asks nobody. Never raises.

local ok, answer = pcall(function()
  local id = ARGV[4]
  local key = keys.job(id)
  local f = redis.call('HMGET', key, 'status', 'origin', 'flowq_judging', 'flowq_future')
  if f[1] ~= 'started' or f[3] ~= 'due' then return redis.status_reply('OK') end
  redis.call('HSET', key, 'status', 'deferred', 'started_at', '', 'worker_name', '', 'flowq_judging', 'done')
  if (ARGV[5] or '') ~= '' then redis.call('HSET', key, 'flowq_message', ARGV[5]) end
  redis.call('ZADD', PREFIX .. ':deferred:' .. f[2], '+inf', id)
  redis.call('HINCRBY', key, 'flowq_attempts', -1) -- that was none
  if not jobs.begin_again(id) then
    local is_queued = jobs.proceed(id, jobs.read_for_enqueue(id))
    if is_queued == nil then return settling.settle_all() or redis.status_reply('OK') end
    if f[4] then redis.call('HSET', keys.future(id), 'state', is_queued and 'queued' or 'met') end
    -- That it asks, or is queued, is told already.
    local job = redis.call('HMGET', key, 'flowq_run', 'flowq_name', 'flowq_asked')
    if not is_queued and not job[3] then runs.log(job[1], id, job[2], 'deferred', 'waits for a slot') end
  end
  return settling.settle_all() or redis.status_reply('OK')
end)
if ok then return answer end
return text_of(answer)
