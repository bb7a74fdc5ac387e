-- steps.lua: what all steps share; a part of step.lua, in front of it, with its ARGV, which begin
-- reads.
--
-- Its table has, of this step: what; limit; budget, how many items it may still look at; and what it
-- has to tell: running, found.

-- Goes on through a list from where a field of a hash says, as far as the budget of this step
-- allows (a nested walk uses the same budget); returns true at the end of the list.
function steps.each_item(list, hash, field, visit)
  local from = int(redis.call('HGET', hash, field))
  local at = from
  while steps.budget > 0 do
    local items = redis.call('LRANGE', list, at, at + math.min(steps.budget, 100) - 1)
    for _, item in ipairs(items) do
      if steps.budget <= 0 then break end
      steps.budget = steps.budget - 1
      visit(item, at)
      at = at + 1
    end
    if #items == 0 then break end
  end
  if at > from then redis.call('HSET', hash, field, at) end
  return at >= redis.call('LLEN', list)
end

-- A running job is to be stopped, by whoever makes this step; `why` is told at its end.
function steps.must_stop(job, why)
  redis.call('HSET', keys.job(job), 'flowq_reason', why)
  steps.running[#steps.running + 1] = job
end

function steps.begin(argv)
  steps.what, steps.limit = argv[4], tonumber(argv[5])
  if steps.what == '' then steps.what = redis.call('ZRANGE', TODO, 0, 0)[1] end
  steps.budget, steps.running, steps.found = steps.limit, {}, {}
  jobs.leave_gaps = true
  watching.begin()
  executions.begin()
end
