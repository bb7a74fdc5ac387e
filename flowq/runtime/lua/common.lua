-- common.lua: the beginning of every script. flowq/runtime/scripts.py puts it in front of the files that
-- a script needs.
--
-- Each file opens one table, of its own name, and puts into it what other files call. All tables are
-- there, empty, before the first file is read, so files may call each other. All other names of a file
-- are local to it. The names in this file are visible everywhere.
--
-- A script is one function of a table, `Script("futures.close")`. The comment in front of that function
-- has its arguments and its answer; they start at ARGV 4:
--   KEYS   1 a key that only names the slot: in a cluster all keys share one hash tag (RQ_KEY_PREFIX)
--   ARGV   1 key prefix of RQ ("rq")   2, 3 unused: the clock of a caller may be wrong, so the server's
--          decides what is due
--
-- Fields of ours in a job's hash. Only these scripts write them, but for flowq_view and flowq_code,
-- which Python writes where RQ's own code ends a job (runtime/job.py):
--   flowq_blocks   the future jobs that it blocks, "a b! c"; "!" = a failure here is ignored
--   flowq_gates    how many of them have not been released yet
--   flowq_future   "1" for a future job
--   flowq_open     "1" for a future job of a run to which code may add blockers. Runs without
--                  `declares_open`, of older versions, do not say so, and all of theirs are open
--   flowq_outcome  how its last attempt ended; absent while it has not ended
--   flowq_gen      its generation; a settling from an older one changes nothing
--   flowq_at       epoch seconds before which it must not be queued
--   flowq_reason   why it was called off, or is to be stopped; `flowq_stopping` marks the latter
--   flowq_missing  since when it is queued, but on no queue
--   flowq_late     "1" for a future job that joined a run after its commit
--   flowq_loose    "1" for an item that blocks nothing, once a retry has to queue it
--   flowq_kept     "1" for a copy of a job of an earlier run that has still to be ended (keeping.lua)
--   flowq_retries  how many retries it was declared with, for when its run is retried
--   flowq_retry    what is said about its retries beyond RQ's words (retries.lua); Python writes it
--   flowq_since    epoch seconds at which its first attempt began, once it was tried again
--   flowq_run, flowq_name    the run that it belongs to, and its name there
--   flowq_attempts how often it has been started, in a run
--   flowq_always   it runs in a canceled run: "1" as its own `if` asks for that, "outside" as that of a
--                  workflow around it does
--   flowq_final    "1" for a job under `finally`, which waits for the end of all others, and needs none
--   flowq_most     what it says about limits across runs, flowq_supplants  "1": whoever keeps it from a slot is
--                  canceled (slots.lua, holders.lua); flowq_supplanted  "1" for one that is
--   flowq_turn     since when it waits for these: a number that the next one to wait exceeds
--   flowq_code     a digest of the code that its last attempt was made of, if it is of a run
--   flowq_progress what its execution `flowq_progress_of` has reported (flowq/runtime/progress.py), and
--                  the event of that, `flowq_progress_at`
--   flowq_queue    the queue that was declared for it, when its run has one of its own (`origin`)
--   flowq_first    it starts at the first success or failure of a blocker (firsts.lua)
--   flowq_ends_as  as what it ends, as it is not to run any more, and why (firsts.lua)
--   flowq_view     what is shown of its last end (flowq/runtime/views.py), in a run
--   and those of groups.lua, nested.lua and ancestors.lua
--
-- A future's hash: state, policy (wait|skip|run, or one of firsts.lua), if_empty (run|skip), total, pending, bad, lost
-- (edges, by class), culprit (the last edge of bad or lost, and its outcome); cascade ("1" when
-- its release goes on to its blockers); and how far the steps have come with its blockers: freed
-- (without this gate), dropped, recalled, retired, watched.
--   open → releasing → released → met → queued → <outcome of the job>
-- It is undecided up to `released`. `met`: only RQ's own depends_on, a slot or an approval holds it.

-- Of the call. NOW as RQ writes instants, TS in epoch seconds, by the clock of the server.
local PREFIX, NOW, TS, OURS, TODO
local WEEK_S = 604800
local UNDECIDED = { open = true, releasing = true, released = true }
local CALLED_OFF = { canceled = true, skipped = true, passed = true, deleted = true, expired = true }
local NOT_STARTED = { deferred = true, queued = true, scheduled = true, ready_to_enqueue = true }

local keys = {} -- their names; flowq/runtime/keys.py says what is in each

function keys.job(id) return PREFIX .. ':job:' .. id end
function keys.blockers(id) return PREFIX .. ':deferred:' .. id end
function keys.future(id) return OURS .. 'future:' .. id end
function keys.edges(id) return OURS .. 'edges:' .. id end
function keys.above(id) return OURS .. 'above:' .. id end
function keys.mortal(id) return OURS .. 'mortal:' .. id end
function keys.worker(name) return PREFIX .. ':worker:' .. name end
function keys.held(worker) return keys.worker(worker) .. ':executions' end
function keys.run(id) return OURS .. 'run:' .. id end
function keys.printed(run) return OURS .. 'printed:' .. run end
function keys.unended(run) return OURS .. 'unended:' .. run end
function keys.group(group) return OURS .. 'group:' .. group end
function keys.tolerated(group) return OURS .. 'tolerated:' .. group end
function keys.slots(limit) return OURS .. 'slots:' .. limit end
function keys.waiting(limit) return OURS .. 'waiting:' .. limit end
function keys.limits(run) return OURS .. 'limits:' .. run end
function keys.spent(limit) return OURS .. 'spent:' .. limit end
function keys.behind(join) return OURS .. 'behind:' .. join end

local function int(value) return tonumber(value or 0) or 0 end

local function each_future(blocks) return string.gmatch(blocks or '', '([%w_-]+)(!?)') end

local function text_of(problem)
  return tostring(type(problem) == 'table' and problem.err or problem)
end

-- Returns the value of a JSON text, or nil where there is none. A view may contain half of a surrogate
-- pair: Python writes it for a byte that is no text, and cjson then refuses the whole view.
local function read_json(text)
  if not text or text == '' then return nil end
  local is_read, value = pcall(cjson.decode, text)
  if not is_read then
    is_read, value = pcall(cjson.decode, (string.gsub(text, '\\u[dD][89a-fA-F]%x%x', '\\ufffd')))
  end
  return is_read and value or nil
end

local begun -- what this call has put on the todo

local function later(operation)
  if redis.call('ZADD', TODO, 'NX', TS, operation) == 1 then begun[#begun + 1] = operation end
end

local known_day, date, known_second, before_point -- of the last call, as a function of a library

-- Returns the date of a day since 1970, as in 2026-11-28. There is no os.date here.
local function format_day(day)
  if day ~= known_day then
    -- Years begin in March here, so that a leap day is the last one; an era has 400 of them.
    local since_0000 = day + 719468
    local era = math.floor(since_0000 / 146097)
    local day_of_era = since_0000 - era * 146097
    local year = math.floor((day_of_era - math.floor(day_of_era / 1460)
      + math.floor(day_of_era / 36524) - math.floor(day_of_era / 146096)) / 365)
    local day_of_year = day_of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
    local month = math.floor((5 * day_of_year + 2) / 153)
    local day_of_month = day_of_year - math.floor((153 * month + 2) / 5) + 1
    month = month < 10 and month + 3 or month - 9
    year = year + era * 400 + (month <= 2 and 1 or 0)
    known_day, date = day, string.format('%04d-%02d-%02d', year, month, day_of_month)
  end
  return date
end

-- Returns an instant as RQ writes it: 2026-11-28T19:00:00.123456Z.
local function format_instant(second, microsecond)
  if second ~= known_second then
    local rest = second % 86400
    known_second = second
    before_point = string.format('%sT%02d:%02d:%02d.', format_day((second - rest) / 86400),
      math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60)
  end
  return before_point .. string.format('%06dZ', microsecond)
end

local second_by_text = {} -- of the last calls, as a function of a library
local texts = 0

-- The microseconds since 1970 of an instant as RQ writes it: 2026-11-28T19:00:00.123456Z. They are whole
-- numbers, so nothing is lost by rounding.
local function parse_instant(text)
  local head = string.sub(text, 1, 19)
  local second = second_by_text[head]
  if not second then
    local y, m, d, h, min, s = string.match(head, '^(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)$')
    if not y then return nil end
    y, m = tonumber(y), tonumber(m)
    if m <= 2 then y = y - 1 end -- years begin in March here, as in format_day
    local day_of_year = math.floor((153 * ((m + 9) % 12) + 2) / 5) + tonumber(d) - 1
    local days = 365 * y + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400)
      + day_of_year - 719468
    second = ((days * 24 + tonumber(h)) * 60 + tonumber(min)) * 60 + tonumber(s)
    if texts == 1000 then second_by_text, texts = {}, 0 end
    second_by_text[head], texts = second, texts + 1
  end
  local digits = string.match(text, '^%.(%d%d?%d?%d?%d?%d?)', 20) or '0'
  return second * 1000000 + tonumber(digits) * 10 ^ (6 - #digits)
end

-- The first thing in every call: as a function of a library, it finds what the last one has left.
local function begin_call(argv)
  local time = redis.call('TIME')
  local second, microsecond = tonumber(time[1]), tonumber(time[2])
  PREFIX, NOW, TS = argv[1], format_instant(second, microsecond), second + microsecond / 1e6
  OURS = PREFIX .. ':flowq:1:'
  TODO = OURS .. 'todo'
  begun = {}
  metrics.reset()
  jobs.reset()
  settling.reset()
  slots.reset()
  edges.reset()
  futures.reset()
end

-- The last thing in every call, unless it raises: what only counts must not make it fail.
local function end_call() pcall(metrics.flush) end
