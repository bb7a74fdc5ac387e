-- expired.lua: a worker popped a job whose hash has expired; it settles as expired.
--
-- ARGV   4 job id
-- Returns 1 when that was news to somebody, else 0 (not one of ours, or it is there after all).

local id = ARGV[4]
if redis.call('EXISTS', keys.job(id)) == 1 or redis.call('EXISTS', keys.mortal(id)) == 0 then
  return 0
end
settling.add(id, 'expired')
settling.settle_all()
return 1
