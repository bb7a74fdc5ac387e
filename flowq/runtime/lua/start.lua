-- start.lua: a job starts to be executed. Runs inside RQ's transaction that writes STARTED.
--
-- ARGV   4 job id   5 name of the worker
-- Tells the run, and arms the edges again of a blocker that had ended before. Never raises.

local ok, answer = pcall(function()
  local id = ARGV[4]
  local f = redis.call('HMGET', job_key(id), 'flowq_outcome', 'flowq_run', 'flowq_name',
    'flowq_future', 'flowq_slots')
  if f[1] then rearm(id) end
  if f[5] then hold_slots(id, f[5]) end -- whoever queued it
  if f[4] and redis.call('HEXISTS', future_key(id), 'state') == 1 then
    redis.call('HSET', future_key(id), 'state', 'queued')
    -- As RQ does with the hash; an earlier attempt may have left a time to live.
    for _, key in ipairs({ future_key(id), edges_key(id), blockers_key(id) }) do
      redis.call('PERSIST', key)
    end
  end
  if f[2] then
    redis.call('XADD', OURS .. 'events:' .. f[2], '*', 'job', id, 'name', f[3] or '',
      'state', 'started', 'worker', ARGV[5])
  end
  return redis.status_reply('OK')
end)
if ok then return answer end
return text_of(answer)
