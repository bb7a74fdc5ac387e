-- approve.lua: somebody approves or rejects a job; for the job that makes the items of a group, all of
-- these, also those still to come.
--
-- ARGV   4 job id   5 "approved" or "rejected"   6 the word as it is kept, JSON: by, at, note, inputs
-- Returns 1 for the call that did it, 0 when that was said before, -1 for a job that needs no approval,
-- -2 for one that is over, -3 for a reject of one that has not asked, -4 for one of which the other was said
-- before. An approved job that is not ready yet starts when it is.

local id, what, word = ARGV[4], ARGV[5], ARGV[6]
local of_group = groups.approve(id, what, word)
if of_group then return of_group end
local f = redis.call('HMGET', keys.job(id), 'status', 'flowq_approval', 'flowq_approved',
  'flowq_asked', 'flowq_run', 'flowq_name', 'flowq_judging', 'flowq_rejected')
if not f[2] then return -1 end
if what == 'approved' and f[3] or what == 'rejected' and f[8] then return 0 end
if f[3] or f[8] then return -4 end
local is_judged_now = f[7] == 'due' and (f[1] == 'queued' or f[1] == 'started')
if f[1] ~= 'deferred' and not is_judged_now then return -2 end
if what == 'rejected' then
  if not f[4] then return -3 end
  jobs.reject(id, word)
else
  redis.call('HSET', keys.job(id), 'flowq_approved', word)
  redis.call('ZREM', OURS .. 'expiring', id)
  if f[5] and not is_judged_now then runs.log(f[5], id, f[6], 'deferred', groups.describe(what, word)) end
  if f[4] then jobs.have_turn(id) end
end
settling.settle_all()
return 1
