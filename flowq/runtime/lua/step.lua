-- step.lua: one bounded step of work that is too long for one script. Each step is atomic and
-- remembers where it stopped, so that any process can make the next one, or several at once.
--
-- ARGV   4 what ("" = the oldest entry of the todo, if one is there)   5 how many items at most
--   free:F      lift the gate of the blockers of a released future job, in order
--   abandon:F   F was called off before all were freed: cancel those that block nothing else
--   recall:F    F was canceled with its blockers: cancel those that have not started
--   lapse:F     cancel F if it has not been released
--   overdue:X   the run X, or the workflow whose join is X, has taken longer than it may: end it
--   halt:J      call off, or stop, what is inside of the workflow whose join is J
--   round:J     run again what is inside of the workflow whose join is J; unround:J: that cannot be
--   watch:F     look for blockers of the future job F, or jobs of the run F, that ended unnoticed
--   look:due    do that for those whose time it is
--   retire:F    F has ended: its blockers get their own time to live, its keys that of its hash
--   expire:J    J has ended and nobody waits for it: it gets its own time to live
--   end:J:O     settle a job whose settling was put off
--   run:R       release the future jobs of a committed run, in order
--   purge:R     remove a run with all its jobs
--   cancel:R    call off every job of a run that has not started
--   rest:F      F has started before all its blockers have ended: end the others (`cancel_rest`)
--   quell:G     stop the running items of a group in which one has failed (`fail_fast`)
--   close:G     call off the items of a closed group that have not started
--   holders:L   look whether those that have slots of the limit L are still there
--   fill:L      let those have their turn that wait for L, and for which there are slots
--   supplant:J  cancel what keeps J from its slot, because J says so
--   strand:J    call off what J has added, and did not come to release
--   again:R     hold again what a retry runs again, then release the run again
-- Returns {what, 1 while it has to go on else 0, {ids of running jobs that should be stopped},
--   {operations that it put on the todo and that are left}, {job, what was wrong with it, its run or
--   the future job that it blocks, …}}. An operation that raises goes to the todo's end, so that it does
-- not keep others from being worked
--   off.
--
-- Its table has, of this step: what; limit; budget, how many items it may still look at; and what it
-- has to tell: running, found.

-- Goes on through a list from a place, as far as the budget of this step allows (a nested walk uses the
-- same budget). Returns how far it came, and whether that is the end of the list.
function step.walk(list, at, visit)
  while step.budget > 0 do
    local count = math.min(step.budget, 100)
    local items = redis.call('LRANGE', list, at, at + count - 1)
    for _, item in ipairs(items) do
      if step.budget <= 0 then return at, at >= redis.call('LLEN', list) end
      step.budget = step.budget - 1
      visit(item, at)
      at = at + 1
    end
    if #items < count then return at, true end -- no visit adds to the list that is walked
  end
  return at, at >= redis.call('LLEN', list)
end

-- Does the same from where a field of a hash says, and notes there how far it came. Returns true at the
-- end of the list.
function step.each_item(list, hash, field, visit)
  local from = int(redis.call('HGET', hash, field))
  local at, is_end = step.walk(list, from, visit)
  if at > from then redis.call('HSET', hash, field, at) end
  return is_end
end

-- Lists a running job that the caller of this step has to stop. Its end gets the reason `why`, unless the
-- job finishes before the stop reaches it.
function step.must_stop(job, why)
  redis.call('HSET', keys.job(job), 'flowq_reason', why, 'flowq_stopping', 1)
  step.running[#step.running + 1] = job
end

local function begin(argv)
  step.what, step.limit = argv[4], tonumber(argv[5])
  if step.what == '' then step.what = redis.call('ZRANGE', TODO, 0, 0)[1] end
  step.budget, step.running, step.found = step.limit, {}, {}
  jobs.leave_gaps = true
  watching.begin()
  holders.begin()
  executions.begin()
end

local function settle_late(job, outcome)
  settling.add(job, outcome)
  return true
end

local operations = {
  free = release.free,
  abandon = release.abandon,
  retire = retention.retire,
  run = lifecycle.release,
  purge = lifecycle.purge,
  cancel = lifecycle.cancel,
  again = rerun.run_again,
  recall = release.recall,
  close = function(group) return groups.close_items(group, step.limit) end,
  strand = lifecycle.call_off_added,
  rest = needless.end_rest,
  quell = needless.stop_items,
  holders = function(kind, name) return holders.look_at(kind .. ':' .. name) end,
  supplant = holders.supplant,
  fill = function(kind, name)
    slots.fill(kind .. ':' .. name)
    return true
  end,
  lapse = release.lapse,
  overdue = deadlines.overdue,
  halt = deadlines.halt,
  round = rerun.run_workflow,
  unround = rerun.give_up,
  watch = watching.watch,
  look = watching.look_around,
  expire = retention.expire_some,
  ['end'] = settle_late,
}

-- Returns whether it has come to its end, and the text of a failure.
local function make(entry)
  local operation, id, extra = string.match(entry, '^(%w+):([%w_-]+):?(.*)$')
  if not operations[operation] then -- a newer version's, perhaps, which will come to it
    redis.call('ZADD', TODO, 'XX', TS, entry)
    return false, 'no such operation: ' .. entry
  end
  local ok, done = pcall(operations[operation], id, extra)
  if not ok then
    jobs.push_queued()
    jobs.close_gaps()
    redis.call('ZADD', TODO, 'XX', TS, entry)
    return false, entry .. ': ' .. text_of(done)
  end
  if done then redis.call('ZREM', TODO, entry)
  elseif operation ~= 'look' then redis.call('ZADD', TODO, 'NX', TS, entry) end -- which comes again
  local failure = settling.settle_all()
  return done, failure and entry .. ': ' .. failure
end

-- A release goes on to those that it has led to, as far as this step's budget goes; a step in which
-- much has ended has done enough.
function step.make(argv)
  begin(argv)
  if not step.what then return { '', 0, {}, {}, {} } end
  local done, failure = make(step.what)
  local left, at = {}, 1
  while begun[at] and not failure do
    local entry, is_over = begun[at], false
    local has_room = done and step.budget > 0 and settling.count_ends() < step.limit
    if has_room and string.match(entry, '^free:') then
      is_over, failure = make(entry)
    end
    if not is_over then left[#left + 1] = entry end
    at = at + 1
  end
  if failure then return redis.error_reply(failure) end
  return { step.what, done and 0 or 1, step.running, left, step.found }
end
