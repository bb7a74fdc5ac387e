-- may_retry.lua: whether a job that has failed is tried again, and when. It changes nothing.
--
-- ARGV   4 job id   5 its policy (retries.lua), "" for RQ's numbers alone   6 its failure, "" where
--        nobody knows   7 how many retries it has used   8 seconds since the attempt began
-- Returns {"1", seconds to wait ("" for what RQ would), since when its attempts count}, or {"0", why not}.

local id, failure = ARGV[4], ARGV[6] ~= '' and cjson.decode(ARGV[6]) or nil
local f = redis.call('HMGET', keys.job(id), 'flowq_run', 'flowq_always', 'flowq_since')
if f[1] and runs.calls_off(f[1], f[2]) then return { '0', '' } end
local policy = ARGV[5] ~= '' and cjson.decode(ARGV[5]) or {}
local used = tonumber(ARGV[7])
local since = used > 0 and tonumber(f[3] or nil) or TS - tonumber(ARGV[8])
local wait, why = retries.decide(policy, failure, used, since)
if not wait then return { '0', why } end
local is_ours = ARGV[5] ~= '' or failure and failure.later
return { '1', is_ours and string.format('%.6f', wait) or '', string.format('%.6f', since) }
