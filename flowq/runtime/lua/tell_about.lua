-- tell_about.lua: a running job says something about itself, or about its group.
--
-- ARGV   4 job id   5 "skip" (it ends as skipped, neutrally), "stop" (its unstarted siblings do),
--        "note" (that is told beside its end), "give" (it waits for its back-off, and gives its slots
--        back), "again" (it has been queued or scheduled to run again: in a run that is being canceled
--        it ends instead), or "call" (its command, with all values in it)   6 why, or the command
-- Idempotent. Returns OK.

local id, what = ARGV[4], ARGV[5]
local f = redis.call('HMGET', keys.job(id), 'flowq_group', 'flowq_slots', 'flowq_name')
if what == 'skip' then redis.call('HSET', keys.job(id), 'flowq_pass', ARGV[6]) end
if what == 'call' and redis.call('EXISTS', keys.job(id)) == 1 then
  redis.call('HSET', keys.job(id), 'description', ARGV[6])
end
if what == 'note' then redis.call('HSET', keys.job(id), 'flowq_reason', ARGV[6]) end
if what == 'stop' and f[1] then groups.close(f[1], 'passed', f[3] .. ': ' .. ARGV[6]) end
if what == 'again' then jobs.begin_again(id) end
if what == 'give' and f[2] then slots.give(id, f[2]) end
return settling.settle_all() or redis.status_reply('OK')
