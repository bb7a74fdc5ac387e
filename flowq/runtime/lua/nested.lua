-- nested.lua: jobs that are workflows.
--
-- The job that stands for a nested workflow, its join, is a future job; the jobs of the workflow
-- block it, and so does the one that adds them, the start: its id is the join's with "--0" behind.
-- Fields of ours in a job's hash:
--   flowq_nested   "1" for a join
--   flowq_inside   the join of the workflow that it is a job of
--   flowq_rounds   of a join with `retries`: how many, the back-off in seconds, and in words
--   flowq_rounds_policy  what else is said about them (retries.lua), if anything is
--   flowq_round    how many of them have been used
--   flowq_since    when its first attempt began, where the policy may ask that
-- In the join's future hash, hurt: how many jobs inside count against the run, unless the join is
-- tolerated; jobs inside of a tolerated workflow are not counted. given_up: nothing inside can
-- run again.

function nested.start_id(join) return join .. string.rep('-', 2) .. '0' end

function nested.is_start(id, join) return join and id == nested.start_id(join) end

nested.ADDER_FAILED = 'the job that added it has failed'

-- Whether a job has ended, without success, before it released what it has added.
function nested.has_added_in_vain(adder)
  local f = redis.call('HMGET', keys.job(adder), 'flowq_adds', 'flowq_outcome')
  return f[1] and f[2] and f[2] ~= 'finished'
end

-- Why a future job without blockers is skipped; what a nested workflow is told by its start.
function nested.why_empty(id)
  local f = redis.call('HMGET', keys.job(nested.start_id(id)), 'flowq_pass', 'flowq_reason')
  return f[1] or f[2] or 'it has no blockers'
end

-- The join of the workflow that a job is inside of. Where the hash is gone, its id tells.
function nested.find_inside(id)
  local f = redis.call('HMGET', keys.job(id), 'status', 'flowq_inside')
  if f[1] then return f[2] end
  local outer = string.match(id, '^(.+)%-%-')
  while outer and redis.call('HEXISTS', keys.job(outer), 'flowq_nested') == 0 do
    outer = string.match(outer, '^(.+)%-%-')
  end
  return outer
end

-- The name of a job inside of a workflow whose own hash is gone, or nil.
function nested.name_inside(id)
  local inside = nested.find_inside(id)
  if not inside then return nil end
  local outer, rest = redis.call('HGET', keys.job(inside), 'flowq_name'), string.sub(id, #inside + 3)
  return rest == '0' and outer .. '(start)' or outer .. '.' .. rest
end

-- The same for a job that somebody adds in front of this future job.
function nested.find_inside_before(future)
  if redis.call('HEXISTS', keys.job(future), 'flowq_nested') == 1 then return future end
  local inside = nested.find_inside(future)
  return inside and future == nested.start_id(inside) and nested.find_inside(inside) or inside
end

-- Whether a join is skipped because something inside did not succeed, and not because the workflow
-- never began or its run is canceled: then it has failed, as a job.
function nested.has_failed_inside(id)
  local f = redis.call('HMGET', keys.job(id), 'flowq_nested', 'flowq_run', 'flowq_always')
  if not f[1] or runs.is_canceling(f[2], f[3]) then return false end
  local began = redis.call('HGET', keys.edges(id), nested.start_id(id))
  return began ~= 'skipped' and began ~= 'canceled'
end

-- Whether a join is skipped because the job that begins its workflow was canceled: rejected, or it
-- expired. The two are one job to users, so the join ends like that too.
function nested.was_canceled_at_start(id)
  if redis.call('HEXISTS', keys.job(id), 'flowq_nested') == 0 then return false end
  return redis.call('HGET', keys.edges(id), nested.start_id(id)) == 'canceled'
end

-- How readers know a job: the one that begins a workflow by the name of the workflow's job
-- (flowq.status.public_name is the same).
function nested.public_name(name) return (string.gsub(name, '%(start%)$', '')) end

-- Why a join did not succeed whose start is to blame; nil where another job is.
function nested.why_not_begun(join, culprit)
  if culprit ~= nested.start_id(join) then return nil end
  local reason = redis.call('HGET', keys.job(culprit), 'flowq_reason')
  return reason and reason ~= '' and reason or 'it could not begin'
end

-- Whether a nested workflow has begun; what is in it goes on.
function nested.has_begun(join)
  if redis.call('HEXISTS', keys.job(join), 'flowq_nested') == 0 then return false end
  local status = redis.call('HGET', keys.job(nested.start_id(join)), 'status')
  return status and not NOT_STARTED[status]
end

-- A workflow that waits for its back-off ends instead of running again; returns whether it did wait.
function nested.end_round(join, outcome, why)
  if redis.call('ZREM', OURS .. 'rounds', join) == 0 then return false end
  jobs.call_off(join, outcome, why)
  return true
end

-- Why what is inside of a workflow is being ended, or nil (deadlines.lua).
function nested.why_late_inside(join)
  local late = join and redis.call('HGET', keys.future(join), 'late')
  if not late then return nil end
  return string.match(late, '^the ') and late or 'the workflow ' .. late
end

-- The jobs of a workflow have been added, or run again because the run is retried: what `within` allows
-- counts from now.
function nested.count_from_now(join)
  if redis.call('HEXISTS', keys.job(join), 'flowq_rounds_policy') == 1 then
    redis.call('HSET', keys.job(join), 'flowq_since', TS)
  end
end

-- The job has begun a workflow, if it is there for that.
function nested.note_begin(id)
  local join = redis.call('HGET', keys.job(id), 'flowq_inside')
  if nested.is_start(id, join) then nested.count_from_now(join) end
end

-- How a workflow has failed: as the last job inside that did, or it took too long.
local function find_failure(join, late)
  if late then return retries.TIMED_OUT end
  local id = join
  repeat
    id = string.match(redis.call('HGET', keys.future(id), 'culprit') or '', '^(%S+)')
  until not id or redis.call('HEXISTS', keys.job(id), 'flowq_nested') == 0
  local view = read_json(id and redis.call('HGET', keys.job(id), 'flowq_view'))
  return type(view) == 'table' and retries.check_failure(view.failure) or nil
end

local function describe_attempt(round) return round > 1 and ', attempt ' .. round or '' end

-- Whether a workflow that did not succeed runs again, after its back-off (rerun.lua). Its join is open
-- then, as before the workflow began, so nothing inside starts before the join is released. Returns
-- also why it did not succeed, with the number of attempts.
function nested.begin_next_round(join, why)
  local key = keys.job(join)
  local f = redis.call('HMGET', key, 'flowq_rounds', 'flowq_round', 'flowq_run', 'flowq_name',
    'flowq_always', 'flowq_group', 'flowq_inside', 'flowq_rounds_policy', 'flowq_since', 'flowq_slots',
    'flowq_ends_as')
  local most, backoff_s, words = string.match(f[1] or '', '^(%d+) (%S+) (.+)$')
  if not most then return false, why end
  local round, s = int(f[2]) + 1, redis.call('HMGET', keys.future(join), 'late', 'given_up')
  local is_closed = f[6] and redis.call('HEXISTS', keys.group(f[6]), 'closed') == 1
  local is_over = round > tonumber(most) or s[2] or f[11] or is_closed or runs.is_canceling(f[3], f[5])
  if is_over or nested.why_late_inside(f[7]) or not nested.has_failed_inside(join) then
    return false, why .. describe_attempt(round)
  end
  local policy = f[8] and cjson.decode(f[8]) or { backoff = tonumber(backoff_s) }
  local wait, why_not = retries.decide(policy, find_failure(join, s[1]), round - 1, tonumber(f[9] or nil) or TS)
  if not wait then return false, why .. '; ' .. why_not .. describe_attempt(round) end
  redis.call('HSET', key, 'flowq_round', round)
  redis.call('HSET', keys.future(join), 'state', 'open')
  redis.call('HDEL', keys.future(join), 'freed', 'dropped', 'retired')
  redis.call('ZREM', OURS .. 'deadlines', join)
  redis.call('ZADD', OURS .. 'rounds', TS + wait, join)
  if f[10] then slots.give_across_runs(join, f[10]) end
  why = s[1] or why
  local form = wait >= 100 and '%.0fs' or '%.3gs' -- as write_wait in durations.py: no exponent
  local soon = wait == tonumber(backoff_s) and words or string.format(form, math.max(wait, 0.001))
  soon = wait == 0 and '' or ' in ' .. soon
  runs.log(f[3], join, f[4], 'scheduled', 'attempt ' .. round .. ' failed: ' .. why .. '; again' .. soon)
  return true
end
