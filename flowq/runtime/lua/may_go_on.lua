-- may_go_on.lua: a job whose `if` holds, judged just now by its own execution, asks whether it may go on.
--
-- ARGV   4 job id
-- Returns 1 when it may: it has its slots. 0 when it has to wait, for an approval or for a slot; its
-- execution ends then, with hold.lua, which looks once more. Idempotent.

local id = ARGV[4]
local f = redis.call('HMGET', keys.job(id), 'flowq_judging', 'flowq_approval', 'flowq_approved',
  'flowq_slots')
if f[1] ~= 'due' then return 1 end
if f[2] and not f[3] then return 0 end
if f[4] and not slots.take(id, f[4]) then return 0 end
redis.call('HSET', keys.job(id), 'flowq_judging', 'done')
return 1
