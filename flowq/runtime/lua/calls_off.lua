-- calls_off.lua: whether a job of a run must not begin any more, nor begin anew. It changes nothing.
--
-- ARGV   4 run   5 flowq_always of the job, or ""
-- Returns 1 or 0.

return runs.calls_off(ARGV[4], ARGV[5] ~= '') and 1 or 0
