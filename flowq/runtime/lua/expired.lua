-- expired.lua: a worker popped a job whose hash has expired; it settles as expired.
--
-- ARGV   4 job id
-- Returns 1 when that was news to somebody, else 0 (not one of ours, or it is there after all).

local id = ARGV[4]
if redis.call('EXISTS', job_key(id)) == 1 or redis.call('EXISTS', mortal_key(id)) == 0 then
  return 0
end
will_settle(id, 'expired')
settle_all()
return 1
