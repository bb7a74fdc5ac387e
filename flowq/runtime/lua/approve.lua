-- approve.lua: somebody approves a job; for the job that makes the items of a group, all of these.
--
-- ARGV   4 job id
-- Returns 1 for the call that approved it, 0 when it was approved before, -1 for a job that needs no
-- approval, -2 for one that is over. One that is not ready yet starts when it is.

local id = ARGV[4]
local of_group = groups.approve(id)
if of_group then return of_group end
local f = redis.call('HMGET', keys.job(id), 'status', 'flowq_approval', 'flowq_approved',
  'flowq_asked', 'flowq_run', 'flowq_name', 'flowq_judging')
if not f[2] then return -1 end
if f[3] then return 0 end
local is_judged_now = f[7] == 'due' and (f[1] == 'queued' or f[1] == 'started')
if f[1] ~= 'deferred' and not is_judged_now then return -2 end
redis.call('HSET', keys.job(id), 'flowq_approved', 1)
redis.call('ZREM', OURS .. 'expiring', id)
if f[5] then runs.log(f[5], id, f[6], 'deferred', 'approved') end
if f[4] then jobs.have_turn(id) end
settling.settle_all()
return 1
