-- keys.lua: the names of the keys that several scripts use. It takes no ARGV.
--
-- flowq/runtime/keys.py says what is in each; a name that one file uses alone is made there.

function keys.job(id) return PREFIX .. ':job:' .. id end
function keys.blockers(id) return PREFIX .. ':deferred:' .. id end
function keys.future(id) return OURS .. 'future:' .. id end
function keys.edges(id) return OURS .. 'edges:' .. id end
function keys.above(id) return OURS .. 'above:' .. id end
function keys.mortal(id) return OURS .. 'mortal:' .. id end
function keys.worker(name) return PREFIX .. ':worker:' .. name end
function keys.held(worker) return keys.worker(worker) .. ':executions' end
function keys.run(id) return OURS .. 'run:' .. id end
function keys.unended(run) return OURS .. 'unended:' .. run end
function keys.group(group) return OURS .. 'group:' .. group end
function keys.tolerated(group) return OURS .. 'tolerated:' .. group end
function keys.slots(limit) return OURS .. 'slots:' .. limit end
function keys.waiting(limit) return OURS .. 'waiting:' .. limit end
function keys.behind(join) return OURS .. 'behind:' .. join end
