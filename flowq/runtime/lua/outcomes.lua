-- outcomes.lua: what the end of a job counts for, which may be something else than it looks like.

-- Which of a future's counts an edge's outcome belongs to; nil when it does not hold.
function outcomes.class(outcome, policy)
  if outcome == 'pending' or outcome == 'pending!' then return 'pending' end
  if firsts.is_one(policy) then return firsts.class(outcome, policy) end
  if string.sub(outcome, -1) == '!' then return nil end
  if outcome == 'finished' or outcome == 'passed' or outcome == 'tolerated' then return nil end
  if outcome == 'expired' then return 'lost' end
  if outcome == 'deleted' and policy == 'wait' then return nil end
  return 'bad'
end

-- The last one is blamed, but not one that was only skipped where another says why.
function outcomes.worse(culprit, news)
  return culprit and string.match(news, ' skipped$') and culprit or news
end

local function is_tolerated(id, group)
  local g = redis.call('HMGET', keys.group(group), 'tolerate', 'over')
  if not g[1] or g[2] then return false end
  local count = string.match(g[1], '^count:(%d+)$')
  if count and redis.call('SISMEMBER', keys.tolerated(group), id) == 0
    and redis.call('SCARD', keys.tolerated(group)) >= tonumber(count) then
    return false
  end
  redis.call('SADD', keys.tolerated(group), id)
  return true
end

-- Returns the outcome that the end of a job of a run counts as, and why.
function outcomes.decide(id, job, outcome, reason)
  if outcome == 'finished' and job.pass then return 'passed', job.pass end
  if job.ends_as and outcome ~= 'finished' then return firsts.read_end(job.ends_as) end
  if outcome == 'skipped' and job.future and nested.was_canceled_at_start(id) then outcome = 'canceled' end
  local why, late = reason and 'tolerated: ' .. reason or 'tolerated', nil
  if (outcome == 'skipped' or outcome == 'canceled') and job.future and nested.has_failed_inside(id) then
    late = redis.call('HGET', keys.future(id), 'late')
    if outcome == 'skipped' then outcome = late and 'canceled' or 'failed' end
    reason = reason or redis.call('HGET', keys.job(id), 'flowq_reason') or ''
    if late then
      reason = late .. (string.match(reason, ', attempt %d+$') or '')
      redis.call('HSET', keys.job(id), 'flowq_reason', reason)
    end
    why = 'tolerated: ' .. reason
  end
  if (outcome == 'failed' or late) and (job.tolerate or job.group and is_tolerated(id, job.group)) then
    local untried = not reason and redis.call('HGET', keys.job(id), 'flowq_reason')
    return 'tolerated', untried and 'tolerated: ' .. untried or why
  end
  if job.group and outcome ~= 'tolerated' then
    redis.call('SREM', keys.tolerated(job.group), id)
  end
  return outcome, reason
end
