-- settle.lua: accounts for the end of one job in each of its edges.
--
-- Runs inside the transaction that ends the job, with EVAL and its source (a NOSCRIPT there would
-- commit the end without the settling), so it never raises: on trouble it leaves a note in the
-- todo and returns its text.
-- ARGV   4 job id   5 outcome   6 generation that the ended attempt was started with
-- Returns OK, "late" for an attempt of an older generation, or the text of the error.
-- Idempotent. O(1) in the number of blockers of each future job.

local id, outcome, generation = ARGV[4], ARGV[5], int(ARGV[6])
local ok, current = pcall(redis.call, 'HGET', keys.job(id), 'flowq_gen')
if ok and generation < int(current) then return 'late' end
settling.add(id, outcome)
return settling.settle_all() or redis.status_reply('OK')
