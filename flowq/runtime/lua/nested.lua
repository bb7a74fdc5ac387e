-- nested.lua: put behind again.lua in front of every other script: jobs that are workflows. It takes no
-- ARGV.
--
-- The job that stands for a nested workflow, its join, is a future job; the jobs of the workflow
-- block it, and so does the one that adds them, the start: its id is the join's with "--0" behind.
-- Fields of ours in a job's hash:
--   flowq_nested   "1" for a join
--   flowq_inside   the join of the workflow that it is a job of
-- In the join's future hash, hurt: how many jobs inside count against the run, unless the join is
-- tolerated. What is inside of a tolerated one in there is not counted.

local function start_id(join) return join .. string.rep('-', 2) .. '0' end

-- Why a future job without blockers is skipped; what a nested workflow is told by its start.
function why_empty(id)
  return redis.call('HGET', job_key(start_id(id)), 'flowq_pass') or 'it has no blockers'
end

-- The join of the workflow that a job is inside of. Where the hash is gone, its id tells.
local function find_inside(id)
  local f = redis.call('HMGET', job_key(id), 'status', 'flowq_inside')
  if f[1] then return f[2] end
  local outer = string.match(id, '^(.+)%-%-')
  while outer and redis.call('HEXISTS', job_key(outer), 'flowq_nested') == 0 do
    outer = string.match(outer, '^(.+)%-%-')
  end
  return outer
end

-- The name of a job inside of a workflow whose own hash is gone, or nil.
local function name_inside(id)
  local inside = find_inside(id)
  if not inside then return nil end
  local outer, rest = redis.call('HGET', job_key(inside), 'flowq_name'), string.sub(id, #inside + 3)
  return rest == '0' and outer .. '(start)' or outer .. '.' .. rest
end

-- The same for a job that somebody adds in front of this future job.
local function find_inside_before(future)
  if redis.call('HEXISTS', job_key(future), 'flowq_nested') == 1 then return future end
  local inside = find_inside(future)
  return inside and future == start_id(inside) and find_inside(inside) or inside
end

-- Counts a job against its run, or not any more; but not through a join that is tolerated.
function weigh(run, id, before, after)
  local bad = (COUNTS_AGAINST[after] or 0) - (COUNTS_AGAINST[before] or 0)
  if before ~= after and (before == 'tolerated' or after == 'tolerated') then
    local hurt = int(redis.call('HGET', future_key(id), 'hurt'))
    bad = bad + (before == 'tolerated' and hurt or -hurt)
  end
  if bad == 0 then return end
  local inside = find_inside(id)
  while inside do
    local f = redis.call('HMGET', job_key(inside), 'flowq_nested', 'flowq_outcome', 'flowq_inside')
    if not f[1] then break end
    redis.call('HINCRBY', future_key(inside), 'hurt', bad)
    if f[2] == 'tolerated' then return end
    inside = f[3]
  end
  redis.call('HINCRBY', run_key(run), 'bad', bad)
end

-- Whether a join is skipped because something inside did not succeed, and not because the workflow
-- never began or its run is canceled: then it has failed, as a job.
local function has_failed_inside(id)
  local f = redis.call('HMGET', job_key(id), 'flowq_nested', 'flowq_run')
  if not f[1] or redis.call('HEXISTS', run_key(f[2]), 'canceling') == 1 then return false end
  local began = redis.call('HGET', edges_key(id), start_id(id))
  return began ~= 'skipped' and began ~= 'canceled'
end
