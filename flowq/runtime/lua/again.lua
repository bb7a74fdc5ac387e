-- again.lua: put behind common.lua in front of every other script: what is over begins again. It
-- takes no ARGV.

-- Takes back in its run what say_stuck said of a future job, one of whose blockers runs again.
local function unsay_stuck(future)
  local f = read_for_decision(future)
  if f[1] ~= 'released' or f[2] ~= 'wait' or int(f[3]) > 0 or int(f[4]) == 0 then return end
  local j = redis.call('HMGET', job_key(future), 'flowq_run', 'flowq_name')
  if j[1] then log(j[1], future, j[2], 'deferred', 'a blocker runs again') end
end

-- A blocker that had ended starts again: its edges hold again, and a future job that was skipped
-- because of it, and never ran, waits again, with what was skipped below it.
local function rearm(id)
  local work, first = { id }, 1
  while first <= #work do
    local key = job_key(work[first])
    local f = redis.call('HMGET', key, 'flowq_blocks', 'flowq_outcome', 'flowq_run', 'flowq_group')
    if f[2] then
      redis.call('HDEL', key, 'flowq_outcome', 'flowq_reason', 'flowq_pass')
      if f[3] then count_in_run(f[3], f[2], nil, work[first]) end
      if f[4] then count_in_group(f[4], f[2], nil) end
    end
    for future in each_future(f[1]) do
      local fk = future_key(future)
      local s = redis.call('HMGET', fk, 'state', 'policy')
      local old = redis.call('HGET', edges_key(future), work[first])
      local counts = UNDECIDED[s[1]] or s[1] == 'skipped' or s[1] == 'met' and take_back(future)
      if old and counts then
        local mark = string.sub(old, -1) == '!' and '!' or ''
        unsay_stuck(future)
        move_edge(future, work[first], old, 'pending' .. mark, s[2])
        if s[1] == 'skipped' then
          local jk = job_key(future)
          local j = redis.call('HMGET', jk, 'origin', 'flowq_run', 'flowq_name')
          if j[1] then
            redis.call('HSET', fk, 'state', 'released')
            redis.call('HDEL', fk, 'retired')
            redis.call('ZADD', OURS .. 'watched', TS, future)
            redis.call('HSET', jk, 'status', 'deferred', 'ended_at', '')
            redis.call('ZREM', PREFIX .. ':canceled:' .. j[1], future)
            redis.call('ZADD', PREFIX .. ':deferred:' .. j[1], '+inf', future)
            for _, k in ipairs({ jk, fk, edges_key(future), blockers_key(future) }) do
              redis.call('PERSIST', k)
            end
            redis.call('ZREM', TODO, 'retire:' .. future)
            if j[2] then log(j[2], future, j[3], 'deferred', 'a blocker runs again') end
            work[#work + 1] = future
          end
        end
      end
    end
    first = first + 1
  end
end

-- A job starts to be executed: its run is told, its slots are its own whoever queued it, the edges of
-- a blocker that had ended hold again, and a future job's keys live as long as its hash does.
-- `job` has its fields of ours by name, as the hash has them.
local function begin(id, job, worker)
  if job.flowq_outcome then rearm(id) end
  if job.flowq_slots then hold_slots(id, job.flowq_slots) end
  local state = job.flowq_future and redis.call('HGET', future_key(id), 'state')
  if state and (state ~= 'queued' or job.flowq_outcome) then -- whoever has queued it
    redis.call('HSET', future_key(id), 'state', 'queued')
    -- As RQ does with the hash; an earlier attempt may have left a time to live.
    for _, key in ipairs({ future_key(id), edges_key(id), blockers_key(id) }) do
      redis.call('PERSIST', key)
    end
  end
  if job.flowq_run then
    redis.call('XADD', OURS .. 'events:' .. job.flowq_run, '*', 'job', id, 'name',
      job.flowq_name or '', 'state', 'started', 'worker', worker)
  end
end
