-- retries.lua: whether what has failed is tried again, and when: one rule for jobs, and for workflows that
-- are jobs.
--
-- A policy, as flowq/runtime/policies.py writes it: max, backoff, max_backoff, factor, jitter, within
-- (seconds, and within_words), on, never_on. A failure, as flowq/runtime/attempts.py writes it: names of
-- the exception's classes, exit_code, later (seconds that the code asks for), final.

local function has_code(cause, code)
  local first, last = string.match(cause, '^(%d+)%-?(%d*)$')
  if not first or not code then return false end
  return code >= tonumber(first) and code <= (tonumber(last) or tonumber(first))
end

-- The first of some causes by which it failed.
local function find_cause(causes, failure)
  for _, cause in ipairs(causes) do
    if has_code(cause, failure.exit_code) then return cause end
    for _, name in ipairs(failure.names or {}) do
      if name == cause then return cause end
    end
  end
end

-- A failure that a child has written, as far as it makes sense: code of users may have changed it. The
-- bounds are those of runtime/attempts.py.
local MAX_NAMES, MAX_LATER_S, MAX_ERROR_BYTES = 40, 3650 * 86400, 1000

function retries.check_failure(written)
  if type(written) ~= 'table' then return nil end
  local names, code, wait = {}, written.exit_code, written.later
  for i, name in ipairs(type(written.names) == 'table' and written.names or {}) do
    if type(name) ~= 'string' or i > MAX_NAMES then break end
    names[i] = name
  end
  local is_time = type(wait) == 'number' and wait >= 0 and wait <= MAX_LATER_S
  return { names = names, exit_code = type(code) == 'number' and code or nil, later = is_time and wait or nil,
    final = written.final == true }
end

-- How the last execution of a job has failed, for the events of its run: the line that stands for its
-- error, and its exit code or "". Returns nil where nothing is known.
function retries.tell_failure(id)
  local view = redis.call('HGET', keys.job(id), 'flowq_view')
  local said = read_json(view)
  if type(said) ~= 'table' then return nil end
  local failure = type(said.failure) == 'table' and said.failure or {}
  local code, line = failure.exit_code, failure.error or said.error
  if not code and not line then return nil end
  if type(line) ~= 'string' or #line > MAX_ERROR_BYTES then line = '' end
  return { line, type(code) == 'number' and string.format('%d', code) or '' }
end

-- What took longer than it may, as flowq/runtime/attempts.py has it.
retries.TIMED_OUT = { names = { 'rq.timeouts:JobTimeoutException', 'rq.timeouts:BaseTimeoutException',
  'Exception', 'BaseException' } }

local function describe_failure(failure)
  if failure.exit_code then return 'exit code ' .. failure.exit_code end
  return failure.names and failure.names[1] or 'it'
end

-- Why it must not be tried again, as far as the failure tells; nil where it may. Where nobody knows how
-- it failed (nil), only the number of attempts counts.
local function find_refusal(policy, failure)
  if not failure then return nil end
  if failure.final then return 'it raised ' .. describe_failure(failure) .. ', which is final' end
  local never = find_cause(policy.never_on or {}, failure)
  if never then return '`never_on` names ' .. never end
  if failure.later or not policy.on or find_cause(policy.on, failure) then return nil end
  return '`on` does not name ' .. describe_failure(failure)
end

-- A share of 0 to 1 that differs from call to call; Lua's own numbers begin anew in each call.
local function random_share() return (TS * 1e6 % 1000) / 1000 end

-- Seconds before the next attempt, of which `used` have been used up.
local function find_wait(policy, failure, used)
  if failure and failure.later then return failure.later end
  local jitter, wait = policy.jitter or 0, (policy.backoff or 0) * (policy.factor or 1) ^ used
  if policy.max_backoff then wait = math.min(wait, policy.max_backoff / (1 + jitter)) end
  return wait * (1 + jitter * random_share())
end

-- Returns the seconds to wait before the next attempt, or nil and why there is none. `used`: how many
-- retries there have been; `since`: when the first attempt began.
function retries.decide(policy, failure, used, since)
  local why = find_refusal(policy, failure)
  if why then return nil, 'not tried again: ' .. why end
  local wait = find_wait(policy, failure, used)
  if policy.within and TS + wait > since + policy.within then
    return nil, 'not tried again: that would begin later than `within` allows, ' .. policy.within_words
  end
  return wait
end

-- Whether a job that has failed is tried again, and when. It changes nothing.
-- ARGV   4 job id   5 its policy (retries.lua), "" for RQ's numbers alone   6 its failure, "" where
--        nobody knows   7 how many retries it has used   8 seconds since the attempt began
-- Returns {"1", seconds to wait ("" for what RQ would), since when its attempts count}, or {"0", why not}.
function retries.may_retry(argv)
  local id, failure = argv[4], read_json(argv[6])
  local f = redis.call('HMGET', keys.job(id), 'flowq_run', 'flowq_always', 'flowq_since',
    'flowq_ends_as')
  if f[4] or f[1] and runs.is_canceling(f[1], f[2]) then return { '0', '' } end
  local policy = argv[5] ~= '' and read_json(argv[5]) or {}
  local used = tonumber(argv[7])
  local since = used > 0 and tonumber(f[3] or nil) or TS - tonumber(argv[8])
  local wait, why = retries.decide(policy, failure, used, since)
  if not wait then return { '0', why } end
  local is_ours = argv[5] ~= '' or failure and failure.later
  return { '1', is_ours and string.format('%.6f', wait) or '', string.format('%.6f', since) }
end
