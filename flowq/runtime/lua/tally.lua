-- tally.lua: How many jobs of each declaration are in which state.
--
-- Beside each declaration D of a run that makes more than one job (a group, a nested workflow):
-- states:D, a sorted set of these jobs, named by what stands behind D in their ids. The score of a job
-- says its state, its kind and its index. So one ZADD moves a job, whatever it was before; ZCOUNT counts
-- a state, and a range of scores is a page of its jobs. All of it is written with the events (runs.log),
-- so it is as exact as they are. `began` and `ended` are times of the whole, as negative scores.
-- flowq/runtime/counts.py reads it; a test compares the tables.
--
-- Versions without this file write events only: `tally.read` finds that the sets do not agree with what
-- all versions keep.

local CODES = { deferred = 1, asking = 2, stuck = 3, scheduled = 4, queued = 5, started = 6, finished = 7,
  skipped = 8, tolerated = 9, failed = 10, stopped = 11, expired = 12, canceled = 13, deleted = 14 }
local LAST_CODE, FIRST_ENDED = 14, 7
local PER_CODE, PER_KIND = 2 ^ 40, 2 ^ 36
local ITEM, INSIDE, START, LIST = 0, 1, 2, 3

local function find_code(state, reason)
  if state == 'handed' or state == 'returned' then return CODES.queued end
  if state == 'deferred' and reason == 'waits for approval' then return CODES.asking end
  if state == 'deferred' and string.find(reason or '', '^waits for a blocker to succeed') then
    return CODES.stuck
  end
  if state == 'failed' and string.find(reason or '', '^tolerated') then return CODES.tolerated end
  return CODES[state]
end

-- Notes an event of a job. O(1) for those of a group or a nested workflow, and nothing for all others.
function tally.note(run, id, name, state, reason)
  local declared = name and string.match(name, '^([^%[(.]+)[%[(.]')
  local prefix = declared and run .. '-' .. declared
  if not declared or #id <= #prefix or string.sub(id, 1, #prefix) ~= prefix then return end
  local key, member = OURS .. 'states:' .. prefix, string.sub(id, #prefix + 1)
  if state == 'removed' then return redis.call('ZREM', key, member) end
  local code, index = find_code(state, reason), string.match(member, '^%-%-(%d+)$')
  if not code then return end
  local last = string.match(name, '%((%a+)%)$') or string.sub(name, -1)
  local kind = last == 'start' and START or last == 'list' and LIST or last == ']' and index and ITEM or INSIDE
  local score = code * PER_CODE + kind * PER_KIND + (index or 0)
  if code >= FIRST_ENDED then return redis.call('ZADD', key, score, member, -TS, 'ended') end
  redis.call('ZADD', key, score, member)
  if state == 'started' or state == 'handed' then redis.call('ZADD', key, 'NX', -TS, 'began') end
end

-- How many jobs are in a set; the two times are none.
local function count_all(key) return redis.call('ZCOUNT', key, 0, '+inf') end

local function read_set(key)
  local counts = {}
  if redis.call('EXISTS', key) == 0 then return counts end
  for code = 1, LAST_CODE do
    local from = code * PER_CODE
    if redis.call('ZCOUNT', key, from, '(' .. from + PER_CODE) > 0 then
      for kind = ITEM, LIST do
        local first = from + kind * PER_KIND
        local count = redis.call('ZCOUNT', key, first, '(' .. first + PER_KIND)
        for _, word in ipairs(count > 0 and { code, kind, count } or {}) do counts[#counts + 1] = word end
      end
    end
  end
  return counts
end

local LIVING = { deferred = true, ready_to_enqueue = true, scheduled = true, queued = true, started = true }
local SINGLE = { 'status', 'flowq_outcome', 'flowq_reason', 'started_at', 'ended_at', 'flowq_attempts',
  'worker_name', 'flowq_name', 'flowq_asked', 'flowq_approved', 'flowq_rejected' }

-- Counts the jobs of a run, by declaration.
-- ARGV   4 id of the run   then the ids of its declarations
-- Returns {1 when the counts are true else 0, {fields of the job of that id}, {code, kind, count, …},
--   began or "", ended or "", then the same four for each further declaration}. They are not true where
--   an older version has taken part, or where code has added jobs that no declaration knows.
function tally.read(argv)
  local run, answer, jobs_found, live_found = argv[4], { 0 }, 0, 0
  for at = 5, #argv do
    local key = OURS .. 'states:' .. argv[at]
    local counts, single = read_set(key), redis.call('HMGET', keys.job(argv[at]), unpack(SINGLE))
    if single[1] == 'deferred' and redis.call('ZSCORE', OURS .. 'rounds', argv[at]) then
      single[1] = 'scheduled' -- a nested workflow that waits for its next round
    end
    if single[1] then
      jobs_found = jobs_found + 1
      -- What a tool of RQ's has ended nobody has noticed yet.
      if not single[2] and LIVING[single[1]] then live_found = live_found + 1 end
    end
    jobs_found = jobs_found + count_all(key)
    for i = 1, #counts, 3 do
      if counts[i] < FIRST_ENDED then live_found = live_found + counts[i + 2] end
    end
    local began, ended = redis.call('ZSCORE', key, 'began'), redis.call('ZSCORE', key, 'ended')
    for _, part in ipairs({ single, counts, began or '', ended or '' }) do answer[#answer + 1] = part end
  end
  local is_whole = jobs_found == redis.call('LLEN', OURS .. 'jobs:' .. run)
  if is_whole and live_found == redis.call('HLEN', keys.unended(run)) then answer[1] = 1 end
  return answer
end
