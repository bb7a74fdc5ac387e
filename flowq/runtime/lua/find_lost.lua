-- find_lost.lua: marks that the server takes writes, and finds the workers that are lost.
--
-- ARGV   4 after how many seconds of silence a worker is lost: its lease and some more
--        5 seconds of a lease   6 the longest gap between two marks
--        7 "1" when the server has refused the caller something since its last mark
-- Returns {1 when the marks go back further than a worker may be silent else 0, the server's clock,
--   names of workers…}.
-- A worker is lost when it was silent while the server took writes. Each call makes a mark, and a gap
-- between two marks (a refusal, a restart, a fail-over, no call) starts the series again: then each
-- worker has the whole time again to send a heartbeat. A fail-over loses marks and heartbeats alike.

local SILENCE_S, LEASE_S, GAP_S = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local OFTEN_S = GAP_S / 8 -- one mark is enough for all who look at about the same time
local NAMES = 20

local key = OURS .. 'marks'
local f = redis.call('HMGET', key, 'since', 'last')
local since, last = tonumber(f[1] or ''), tonumber(f[2] or '')
if not since or not last or ARGV[7] == '1' or TS - last > GAP_S or TS < last then
  since, last = TS, 0
  redis.call('HSET', key, 'since', TS)
end
if TS - last > OFTEN_S then
  redis.call('HSET', key, 'last', TS)
  redis.call('EXPIRE', key, 60) -- it says nothing any more when nobody looks
end
local clock = string.format('%.6f', TS)
if TS - since < SILENCE_S then return { 0, clock } end
-- The score is the end of the lease, so its last heartbeat was a lease before.
return { 1, clock, unpack(redis.call('ZRANGEBYSCORE', OURS .. 'workers', '-inf',
  TS - SILENCE_S + LEASE_S, 'LIMIT', 0, NAMES)) }
