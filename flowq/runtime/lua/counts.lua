-- counts.lua: How many items of each group of a run are in which state, counted from its events.
--
-- Readers call it (flowq/runtime/counts.py); nothing is counted where jobs run, so a run at which nobody
-- looks pays nothing. Each declared job and each event is read once: a call reads one page of them, and
-- goes on where the last one ended, so that the server serves others in between. Every version writes the
-- events, so the counts are those of the events whichever versions take part in the run. They can be made
-- anew at any time, and expire:
--   states:R   a sorted set of the items of groups, and of the jobs of workflows that items run, by their
--              names. A score says the group, the state, the kind and the index of an item, in this order:
--              ZADD moves a job from one state to another, and a range of scores is a page of items.
--   counts:R   a hash: run (FORMAT, and when R was created, in case its id is used again), declared (how
--              many of the jobs that R declares are counted), at (the last event that is counted), size (of
--              states:R), events (the ids of those that concern the run itself or a single job, and are
--              still there: a report of progress replaces the one before), singles (how many these are),
--              failures (the ids of the newest events of jobs that failed), ended ("1": R had ended),
--              groups (how many have numbers), n:NAME (the number of a group), and of each number
--              began:N, before:N (when the first of its jobs began, before: before the last retry of the
--              run), ended:N (when the last one of them has ended), in microseconds since 1970
--
-- All others are single jobs: `make`, `page(list)`, and the jobs of a workflow that a single job runs.

local FORMAT = '2 ' -- a version that keeps something else has another one, and makes the counts anew
local PER_BUCKET = 2 ^ 24 -- items of one declaration, kind and state
local KINDS, STATES = 4, 16
local MOST_FAILURES = 100 -- whose events are remembered
local MOST_SINGLES = 1000 -- of a run with more events like that there are no counts: it is not groups
local KEPT_MS = 3600000

-- flowq/runtime/counts.py has the same tables; a test compares them.
local CODES = { deferred = 1, asking = 2, stuck = 3, scheduled = 4, queued = 5, started = 6,
  finished = 7, skipped = 8, tolerated = 9, failed = 10, stopped = 11, expired = 12, canceled = 13,
  deleted = 14 }
local ITEM, INSIDE, START, LIST = 0, 1, 2, 3
local STATE_OF = { handed = 'queued', returned = 'queued' } -- flowq.status.STATE_BY_EVENT
local BAD = { failed = true, tolerated = true, stopped = true, expired = true }
local RUN_ENDED = { succeeded = true, failed = true, canceled = true }

local run, hash_key, set_key -- of this call, and what it has found:
local latest, ids -- the state of each job, or "removed"; its id
local singles, failures -- ids of events
local restarted, times -- whether the run was retried; by group

local function describe(state, reason)
  state = STATE_OF[state] or state
  local why = reason and string.match(reason, '^[^:]*')
  if state == 'deferred' and reason == 'waits for approval' then return 'asking' end
  if state == 'deferred' and why == 'waits for a blocker to succeed' then return 'stuck' end
  if state == 'failed' and why == 'tolerated' then return 'tolerated' end
  return state
end

-- The group that a job belongs to by its name: `page` for `page[3]`, `outer.page` for `outer.page[3].cut`.
local function find_group(name) return string.match(name, '^(.-)%[') end

-- What a job is to its group, and its index if it is an item.
local function classify(name, id)
  if string.sub(name, -7) == '(start)' then return START, 0 end
  if string.sub(name, -6) == '(list)' then return LIST, 0 end
  local outer, index = string.match(id, '^(.+)%-%-(%d+)$')
  local is_item = outer and string.sub(name, -1) == ']'
    and not string.find(outer, '%-%-%d+%-%-') and not string.find(outer, '%-%-%d+$')
  if is_item then return ITEM, tonumber(index) % PER_BUCKET end
  return INSIDE, 0
end

local function note_times(name, state, at_ms, began_at, took_ms)
  if state ~= 'started' and not CODES[state] or CODES[state] < CODES.started then return end
  local group = find_group(name)
  local t = times[group] or {}
  times[group] = t
  local began = began_at and parse_instant(began_at) or state == 'started' and at_ms * 1000
  if began and (not t.began or began < t.began) then t.began = began end
  if state == 'started' then return end
  local took = tonumber(took_ms or nil)
  local ended = began and took and began + math.floor(took * 1000 + 0.5) or at_ms * 1000
  if not t.ended or ended > t.ended then t.ended = ended end
end

local function least(a, b)
  a, b = tonumber(a or nil), tonumber(b or nil)
  return a and b and math.min(a, b) or a or b
end

local function forget_earlier_times()
  restarted = true
  for _, t in pairs(times) do t.before, t.began = least(t.before, t.began), nil end
end

-- Reads one event; returns whether the run has ended now.
local function read_event(id, f, had_ended)
  local job, name, state, reason, began_at, took_ms = f[2], f[4], f[6], nil, nil, nil
  for i = 7, #f, 2 do
    if f[i] == 'reason' then reason = f[i + 1]
    elseif f[i] == 'began_at' then began_at = f[i + 1]
    elseif f[i] == 'took_ms' then took_ms = f[i + 1] end
  end
  if name == '' then
    singles[#singles + 1] = id
    if state == 'running' and had_ended then forget_earlier_times() end
    return RUN_ENDED[state] or false
  end
  if not find_group(name) then
    singles[#singles + 1] = id
    return had_ended
  end
  latest[name], ids[name] = describe(state, reason), job
  if BAD[latest[name]] then failures[#failures + 1] = id end
  note_times(name, state, tonumber(string.match(id, '^%d+')), began_at, took_ms)
  return had_ended
end

-- The next ones of the jobs that the run declares, at most so many. Jobs that it adds later, such as the
-- items of a list, are in events. Returns how many of its jobs have been read.
local function read_declared(from, most)
  local found = redis.call('LRANGE', OURS .. 'order:' .. run, from, from + most - 1)
  for _, id in ipairs(found) do
    if string.find(id, '%-%-') then
      local name = redis.call('HGET', keys.job(id), 'flowq_name')
        or settling.facts_of_gone(id, run).name
      if find_group(name) then latest[name], ids[name] = 'deferred', id end
    end
  end
  return from + #found
end

-- The next events, at most so many.
local function read_next(after, most, run_id)
  if most == 0 then return {} end
  return redis.call('XRANGE', OURS .. 'events:' .. (run_id or run), after and '(' .. after or '-', '+', 'COUNT', most)
end

-- The numbers of groups; those that have none get one.
local function find_numbers(names)
  local fields, list = {}, {}
  for name in pairs(names) do
    list[#list + 1] = name
    fields[#fields + 1] = 'n:' .. name
  end
  local numbers = {}
  for first = 1, #list, 1000 do
    local found = redis.call('HMGET', hash_key, unpack(fields, first, math.min(first + 999, #list)))
    for i, number in ipairs(found) do
      if not number then
        number = redis.call('HINCRBY', hash_key, 'groups', 1) - 1
        redis.call('HSET', hash_key, fields[first + i - 1], number)
      end
      numbers[list[first + i - 1]] = tonumber(number)
    end
  end
  return numbers
end

local function write_all(command, key, values)
  for first = 1, #values, 1000 do
    redis.call(command, key, unpack(values, first, math.min(first + 999, #values)))
  end
end

-- Moves the jobs to their states. Returns false for a state that this version does not know.
local function write_states()
  local names, moved, removed = {}, {}, {}
  for name in pairs(latest) do names[find_group(name)] = true end
  local numbers = find_numbers(names)
  for name, state in pairs(latest) do
    local number = numbers[find_group(name)]
    if state == 'removed' then
      removed[#removed + 1] = name
    elseif not CODES[state] then
      return false
    else
      local kind, index = classify(name, ids[name])
      local bucket = (number * STATES + CODES[state]) * KINDS + kind
      moved[#moved + 1] = string.format('%.0f', bucket * PER_BUCKET + index)
      moved[#moved + 1] = name
    end
  end
  write_all('ZADD', set_key, moved)
  write_all('ZREM', set_key, removed)
  return true
end

local function write_time(field, instant)
  if instant then redis.call('HSET', hash_key, field, string.format('%.0f', instant)) end
end

local function write_times()
  if restarted then
    local kept = redis.call('HGETALL', hash_key)
    for i = 1, #kept, 2 do
      local number = string.match(kept[i], '^began:(%d+)$')
      if number then
        local before = 'before:' .. number
        write_time(before, least(kept[i + 1], redis.call('HGET', hash_key, before)))
        redis.call('HDEL', hash_key, kept[i])
      end
    end
  end
  for name, number in pairs(find_numbers(times)) do
    local t, fields = times[name], { 'began:' .. number, 'before:' .. number, 'ended:' .. number }
    local old = redis.call('HMGET', hash_key, unpack(fields))
    write_time(fields[1], least(t.began, old[1]))
    write_time(fields[2], least(t.before, old[2]))
    write_time(fields[3], t.ended and math.max(t.ended, tonumber(old[3] or nil) or 0))
  end
end

-- Returns {number of the group, code of the state, kind, count, …} without zeros.
local function count_all()
  local answer, lowest = {}, '-inf'
  while true do
    local found = redis.call('ZRANGEBYSCORE', set_key, lowest, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not found[2] then return answer end
    local bucket = math.floor(tonumber(found[2]) / PER_BUCKET)
    local next_one = string.format('%.0f', (bucket + 1) * PER_BUCKET)
    answer[#answer + 1] = math.floor(bucket / KINDS / STATES)
    answer[#answer + 1] = math.floor(bucket / KINDS) % STATES
    answer[#answer + 1] = bucket % KINDS
    answer[#answer + 1] = redis.call('ZCOUNT', set_key, found[2], '(' .. next_one)
    lowest = next_one
  end
end

local function read_events(list)
  local answer = {}
  for id in string.gmatch(list or '', '%S+') do
    answer[#answer + 1] = redis.call('XRANGE', OURS .. 'events:' .. run, id, id)[1]
  end
  return answer
end

-- The events of the newest failures of jobs that have not been tried again since.
local function read_failures(list)
  local answer = {}
  for _, event in ipairs(read_events(list)) do
    local score = redis.call('ZSCORE', set_key, event[2][4])
    local code = score and math.floor(tonumber(score) / PER_BUCKET / KINDS) % STATES
    local is_bad = code == CODES.tolerated or code and code >= CODES.failed and code <= CODES.expired
    if is_bad then answer[#answer + 1] = event end
  end
  return answer
end

local function join_ids(events)
  local all = {}
  for i, event in ipairs(events) do all[i] = event[1] end
  return table.concat(all, ' ')
end

-- The last ones of a list of ids, and more of them.
local function extend(list, more, most)
  local all = {}
  for id in string.gmatch(list or '', '%S+') do all[#all + 1] = id end
  for _, id in ipairs(more) do all[#all + 1] = id end
  return table.concat(all, ' ', math.max(1, #all - most + 1))
end

-- Whether what an earlier call has written is there, is of this run, and is whole.
local function is_usable(kept, created_at)
  return kept[1] == created_at and redis.call('ZCARD', set_key) == int(kept[3])
end

-- Whether the server takes changes. An error of redis.call would make the caller wait until it does.
local function can_write(created_at)
  local answer = redis.pcall('HSET', hash_key, 'run', created_at)
  return type(answer) ~= 'table' or not answer.err
end

-- Writes what the new events say, and those of single jobs. Returns false if these are too many, or a job
-- is in a state that only newer versions know.
local function write_events(found, of_singles, kept, had_ended)
  local at = #found > 0 and found[#found][1] or kept[2] or '0-0'
  local is_countable = #of_singles <= MOST_SINGLES and write_states()
  if not is_countable then
    redis.call('HSET', hash_key, 'at', at, 'size', redis.call('ZCARD', set_key), 'singles',
      MOST_SINGLES + 1)
    return false
  end
  write_times()
  redis.call('HSET', hash_key, 'at', at, 'size', redis.call('ZCARD', set_key), 'events',
    join_ids(of_singles), 'singles', #of_singles, 'failures', extend(kept[7], failures, MOST_FAILURES),
    'ended', had_ended and 1 or 0)
  return true
end

-- Counts the next events of a run.
-- ARGV   4 run   5 how many declared jobs and events at most, together
-- Returns {"none"} where there are no counts: no such run, one that is not committed yet, one of a version
-- that did not list what it declares, one of many single jobs, a server that takes no changes; {"more"}
-- when there may be more of them; or {"all", the hash as {field, value…}, {group, state, kind, count, …} by
-- their numbers, the events of single jobs, the events of the newest failures of others}.
-- Idempotent.
function counts.catch_up(argv)
  run, hash_key, set_key = argv[4], OURS .. 'counts:' .. argv[4], OURS .. 'states:' .. argv[4]
  latest, ids, singles, failures, restarted, times = {}, {}, {}, {}, false, {}
  local of_run = redis.call('HMGET', keys.run(run), 'state', 'created_at')
  local created_at = of_run[2] and FORMAT .. of_run[2]
  if not created_at or of_run[1] == 'staged' or of_run[1] == 'purging' then return { 'none' } end
  local kept = redis.call('HMGET', hash_key, 'run', 'at', 'size', 'events', 'singles', 'ended',
    'failures', 'declared')
  local is_new = not is_usable(kept, created_at)
  if not is_new and int(kept[5]) > MOST_SINGLES or not can_write(created_at) then return { 'none' } end
  if is_new then
    redis.call('UNLINK', hash_key, set_key) -- DEL would take as long as there are items
    if redis.call('EXISTS', OURS .. 'order:' .. run) == 0 then return { 'none' } end
    redis.call('HSET', hash_key, 'run', created_at)
    kept = {}
  end
  local most = tonumber(argv[5])
  local before = int(kept[8])
  local declared = read_declared(before, most)
  local found = read_next(kept[2], most - (declared - before))
  local had_ended, is_countable = kept[6] == '1', true
  for _, event in ipairs(found) do had_ended = read_event(event[1], event[2], had_ended) end
  local of_singles = read_events(extend(kept[4], singles, math.huge))
  if is_new or declared > before or #found > 0 then
    is_countable = write_events(found, of_singles, kept, had_ended)
    redis.call('HSET', hash_key, 'declared', declared)
  end
  for _, key in ipairs({ hash_key, set_key }) do
    redis.call('PEXPIREAT', key, string.format('%.0f', TS * 1000 + KEPT_MS))
  end
  if not is_countable then return { 'none' } end
  if declared - before + #found >= most then return { 'more' } end
  return { 'all', redis.call('HGETALL', hash_key), count_all(), of_singles,
    read_failures(redis.call('HGET', hash_key, 'failures')) }
end

-- A page of the items of a group that are in one state, by their indexes. `counts.catch_up` comes first.
-- ARGV   4 run   5 name of the group   6 code of the state   7 name of the item behind which the page
--        begins, or ""   8 how many at most
-- Returns their names.
function counts.list_items(argv)
  local set = OURS .. 'states:' .. argv[4]
  local number = redis.call('HGET', OURS .. 'counts:' .. argv[4], 'n:' .. argv[5])
  if not number then return {} end
  local first = ((tonumber(number) * STATES + tonumber(argv[6])) * KINDS + ITEM) * PER_BUCKET
  local score = argv[7] ~= '' and redis.call('ZSCORE', set, argv[7])
  local lowest = string.format('%.0f', first)
  if score then lowest = string.format('(%.0f', first + tonumber(score) % PER_BUCKET) end
  local highest = string.format('(%.0f', first + PER_BUCKET)
  return redis.call('ZRANGEBYSCORE', set, lowest, highest, 'LIMIT', 0, argv[8])
end

-- The events of some jobs among the next ones of a run.
-- ARGV   4 run   5 id behind which to look   6 how many events to look at   7… names of jobs
-- Returns {id of the last one if there may be more, else "", the events}.
function counts.find_events(argv)
  local is_wanted, found = {}, {}
  for i = 7, #argv do is_wanted[argv[i]] = true end
  local page = read_next(argv[5], argv[6], argv[4])
  for _, event in ipairs(page) do
    if is_wanted[event[2][4]] then found[#found + 1] = event end
  end
  return { #page == tonumber(argv[6]) and page[#page][1] or '', found }
end
