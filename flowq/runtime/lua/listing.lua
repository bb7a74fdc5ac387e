-- listing.lua: Puts the lists of runs by state and by workflow right. Older versions submit, end, retry and
-- remove runs beside this one, and do not keep these lists.
--
-- Workers sweep over the lists in small steps, one a second whichever of them makes it. Fields of the hash
-- `marks`, which is there while some worker is: sweep_at (when the next step is due), swept (which list is
-- next, and the place in it), all_swept_at (when all lists are due, and not only those of unended runs).

local UNENDED = { 'runs_in:running', 'runs_in:staged' }
local LISTS = { UNENDED[1], UNENDED[2], 'runs', 'runs_in:succeeded', 'runs_in:failed', 'runs_in:canceled' }
local STEP_S, UNENDED_S, ALL_S = 1, 60, 3600

local function put_right(run)
  local f = redis.call('HMGET', keys.run(run), 'state', 'workflow')
  local submitted = redis.call('ZSCORE', OURS .. 'runs', run)
  local state = submitted and f[1] ~= 'purging' and f[1] or nil
  runs.list_by_state(run, state == 'retrying' and 'running' or state)
  if state and f[2] then redis.call('ZADD', OURS .. 'runs:' .. f[2], 'NX', submitted, run) end
  return submitted
end

-- A reader has met runs that the list should not have.
-- ARGV   4 key of the list   then the ids of the runs
-- Returns 1. Idempotent.
function listing.check(argv)
  for i = 5, #argv do
    if not put_right(argv[i]) then redis.call('ZREM', argv[4], argv[i]) end
  end
  return 1
end

-- Makes the next step of a sweep, if that is due.
-- ARGV   4 how many runs it looks at
-- Returns in how many seconds the next one is due; 0 without workers.
function listing.sweep(argv)
  local key = OURS .. 'marks'
  local f = redis.call('HMGET', key, 'since', 'sweep_at', 'swept', 'all_swept_at')
  if not f[1] then return 0 end
  local due = tonumber(f[2] or '') or 0
  if TS < due then return math.ceil(due - TS) end
  local number, cursor = string.match(f[3] or '', '^(%d+) (%d+)$')
  number, cursor = tonumber(number or 1), cursor or '0'
  local last = TS < (tonumber(f[4] or '') or 0) and #UNENDED or #LISTS
  local left = tonumber(argv[4])
  while left > 0 and number <= last do
    local page = redis.call('ZSCAN', OURS .. LISTS[number], cursor, 'COUNT', left)
    for i = 1, #page[2], 2 do put_right(page[2][i]) end
    left = left - #page[2] / 2 - 1
    cursor = tostring(page[1])
    if cursor == '0' then number = number + 1 end
  end
  local wait_s = STEP_S
  if number > last then
    if last == #LISTS then redis.call('HSET', key, 'all_swept_at', string.format('%.3f', TS + ALL_S)) end
    number, cursor, wait_s = 1, '0', UNENDED_S
  end
  redis.call('HSET', key, 'swept', number .. ' ' .. cursor, 'sweep_at', string.format('%.3f', TS + wait_s))
  return wait_s
end
