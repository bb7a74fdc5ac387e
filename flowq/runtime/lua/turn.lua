-- turn.lua: one turn of a flowq worker: it ends executions, settles them, and claims the next jobs.
--
-- ARGV   4 name of the worker   5 first part of the new executions' ids
--        6 slots: how many children can take work   7 how many of these are idle: the others can
--        take short jobs only   8 budget: seconds of short jobs for one child
--        9 how many jobs at most   10 seconds between heartbeats
--        11 the worker's state in its hash, "" when that is not known for sure
--        12 number of queues, then their names in order of priority
--        then the number of known kinds of short jobs, then kind, seconds for each
--        then the number of ends, then for each of them
--          one line of words, "-" for what is empty: job, execution, status (finished|failed),
--          started_at (as RQ writes it), the same in epoch seconds, ended_at in both ways,
--          ttl (-1 for ever),
--          field of the result, generation, kind of the result (RQ's number), marks of its claim,
--          with a "v" when there is a view (and an "s" when a short form of a large one
--          follows), an "o" when it has printed (and an "r" when a record of
--          that may be there already), digest of its code
--          queue   value of the result   view and its short form, if there is one   what it has printed, likewise
-- Returns {answers, claims, held, suspended, more}:
--   answers    for each end "ok", "lost" (the execution was taken from us: nothing is written) or
--              "conclude" (jobs depend on it: RQ's own code has to end it, nothing is written)
--   claims     {job, execution, queue, {field, value…}, marks} for each claimed job; the hash as it
--              was before, without empty fields
--   held       how many executions the worker has now
--   suspended  1 when RQ's workers are suspended and nothing is claimed
--   more       1 when there are jobs left for which there was no room
-- The pop and the WIP entry are one step: a job is in the queue or in an execution, never between.
-- The WIP entry is the fence of every end. O(1) for each job.
-- Jobs of a short kind get a light claim: a WIP entry, and no records of the execution, which
-- `workers.beat` adds for those that are still there after some milliseconds.
--
-- Its table has the worker, worker_key (its hash) and held_key (the set of its executions).

local argv, at
local lists -- what is added to sorted sets together: {score, member, score, member …} by key

-- Reads the arguments from `first` on.
local function begin(arguments, first)
  argv, at, lists = arguments, first, {}
  turn.worker = argv[4]
  turn.worker_key = PREFIX .. ':worker:' .. turn.worker
  turn.held_key = turn.worker_key .. ':executions'
end

function turn.take()
  at = at + 1
  return argv[at - 1]
end

function turn.register(key, score, member)
  local list = lists[key]
  if not list then
    list = {}
    lists[key] = list
  end
  list[#list + 1] = score
  list[#list + 1] = member
end

function turn.register_all()
  if next(lists) == nil then return end
  for key, list in pairs(lists) do redis.call('ZADD', key, unpack(list)) end
  lists = {}
end

function turn.make(arguments)
  begin(arguments, 12)
  turn_claims.begin(arguments)
  local answers = turn_ends.end_all()
  local is_suspended, more = turn_claims.claim_all()
  turn.register_all()
  settling.settle_all()
  local claims, members = turn_claims.claims, turn_claims.members
  if #members > 0 then redis.call('SADD', turn.held_key, unpack(members)) end
  local held = redis.call('SCARD', turn.held_key)
  local state = is_suspended and held == 0 and 'suspended' or held > 0 and 'busy' or 'idle'
  if state ~= arguments[11] then
    redis.call('HSET', turn.worker_key, 'state', state, 'last_heartbeat', NOW)
  end
  return { answers, claims, held, is_suspended and 1 or 0, more }
end
