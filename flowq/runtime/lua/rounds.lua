-- rounds.lua: the steps that run a workflow again that is a job with `retries`; a part of step.lua, in
-- front of it. It takes no ARGV.
--
-- The sorted set `rounds` has the joins of workflows that wait for their back-off (nested.lua), by the
-- instant. again:J has what to do with which job inside (retry.lua), and J's future hash how far that
-- has come: again, let_go.

function rounds.go(join)
  local key, list = keys.future(join), OURS .. 'again:' .. join
  local f = redis.call('HMGET', keys.job(join), 'flowq_run', 'flowq_outcome', 'flowq_timeout', 'flowq_inside')
  if not f[1] or f[2] then -- called off meanwhile
    redis.call('DEL', list)
    return true
  end
  local is_held = steps.each_item(list, key, 'again', function(entry)
    run_steps.do_again(entry, f[1], 'its workflow runs again')
  end)
  if not is_held then return false end
  local is_let_go = steps.each_item(list, key, 'let_go', function(entry)
    if string.sub(entry, 1, 1) == '+' then releasing.let_go(string.sub(entry, 2)) end
  end)
  if not is_let_go then return false end
  redis.call('DEL', list)
  redis.call('HDEL', key, 'again', 'let_go', 'late', 'halted')
  deadlines.begin_again(join, f[3])
  releasing.let_go(join)
  deadlines.follow(join, f[4])
  return true
end

-- Nothing inside can run again: the workflow has failed after all.
function rounds.give_up(join)
  redis.call('ZREM', OURS .. 'rounds', join)
  if redis.call('HGET', keys.future(join), 'state') ~= 'open' then return true end
  redis.call('HSET', keys.future(join), 'state', 'released', 'given_up', 1)
  futures.decide(join, futures.read_for_decision(join))
  return true
end
