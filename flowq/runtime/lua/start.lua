-- start.lua: a job starts to be executed. Runs inside RQ's transaction that writes STARTED.
--
-- ARGV   4 job id   5 name of the worker
-- Tells the run, and arms the edges again of a blocker that had ended before. Never raises.

local ok, answer = pcall(function()
  local id = ARGV[4]
  local f = redis.call('HMGET', keys.job(id), 'flowq_outcome', 'flowq_run', 'flowq_name',
    'flowq_future', 'flowq_slots', 'flowq_judging')
  attempts.begin(id, { flowq_outcome = f[1], flowq_run = f[2], flowq_name = f[3], flowq_future = f[4],
    flowq_slots = f[5], flowq_judging = f[6] }, ARGV[5])
  if f[2] then redis.call('HINCRBY', keys.job(id), 'flowq_attempts', 1) end
  return redis.status_reply('OK')
end)
if ok then return answer end
return text_of(answer)
