-- approve.lua: somebody approves a job.
--
-- ARGV   4 job id
-- Returns 1 for the call that approved it, 0 when it was approved before, -1 for a job that needs no
-- approval, -2 for one that is over. One that is not ready yet starts when it is.

local id = ARGV[4]
local f = redis.call('HMGET', keys.job(id), 'status', 'flowq_approval', 'flowq_approved',
  'flowq_asked', 'flowq_run', 'flowq_name')
if not f[2] then return -1 end
if f[3] then return 0 end
if f[1] ~= 'deferred' then return -2 end
redis.call('HSET', keys.job(id), 'flowq_approved', 1)
redis.call('ZREM', OURS .. 'expiring', id)
if f[5] then runs.log(f[5], id, f[6], 'deferred', 'approved') end
if f[4] then jobs.have_turn(id) end
settling.settle_all()
return 1
