"""Every Redis key that flowq reads or writes, derived from RQ's own prefix.

RQ's keys keep RQ's names. Ours carry a version, so that workers of two flowq versions can run
side by side; the Lua scripts build the same names in `lua/common.lua`.

    rq:job:<id>                 RQ's hash of a job; our fields in it start with flowq_
                                (lua/common.lua lists them and their writers)
    rq:deferred:<future>        LIST of the blockers' ids in the order of addition, never shortened
    rq:flowq:1:future:<future>  HASH: state, policy and counts of a future job
    rq:flowq:1:edges:<future>   HASH: the outcome of each blocker, by its id
    rq:flowq:1:above:<future>   HASH: what went wrong above each of its blockers, by id; only where
                                something did (lua/ancestors.lua)
    rq:flowq:1:mortal:<id>      what settling needs of a job whose hash may expire before its end
    rq:flowq:1:todo             ZSET of unfinished operations, which any process may continue
    rq:flowq:1:watched          ZSET of runs, and of released future jobs that have none, by the
                                time of the next look for what ended unnoticed
    rq:flowq:1:looks            how many jobs were looked at for that in this second
    rq:flowq:1:forgotten        ZSET of "<job> <queue>" by the time when a canceled job's hash goes
    rq:flowq:1:expiring         ZSET of open future jobs by the time at which they are canceled
    rq:flowq:1:deadlines        ZSET of runs, and of the joins of workflows, by their deadlines
                                (lua/deadlines.lua), and of what stops others, by the time of the
                                next attempt (lua/needless.lua)
    rq:flowq:1:rounds           ZSET of the joins of workflows that run again, by the time of the
                                next round
    rq:flowq:1:run:<run>        HASH: the record of a run
    rq:flowq:1:jobs:<run>       LIST of all its jobs' ids, the last ones first
    rq:flowq:1:order:<run>      LIST of the ids of its declared jobs, as displays show them
    rq:flowq:1:futures:<run>    LIST of its future jobs in the order of their release
    rq:flowq:1:unended:<run>    HASH: the future jobs that each unended job blocks, by its id
    rq:flowq:1:code:<run>       HASH: the files of the code that its jobs executed, by digest
    rq:flowq:1:printed:<run>    HASH: what its jobs printed, by job and attempt, and the memory
                                for it in the field `used` (lua/printed.lua)
    rq:flowq:1:printing         ZSET of the runs that have such a HASH, by the time at which
                                maintenance looks whether they are still there
    rq:flowq:1:again:<run>      LIST of the operations that its retry still has to do
    rq:flowq:1:events:<run>     STREAM of its events
    rq:flowq:1:counts:<run>     HASH: what is counted of its events (lua/counts.lua); expires
    rq:flowq:1:states:<run>     ZSET of the jobs of its groups and nested workflows, by declaration,
                                state and index, as counted; expires
    rq:flowq:1:groups:<run>     SET of its groups' ids
    rq:flowq:1:group:<group>    HASH: the record of a group (lua/groups.lua)
    rq:flowq:1:keys:<group>     HASH: the index of each item, by its key
    rq:flowq:1:items:<group>    HASH: the items by index, pickled
    rq:flowq:1:tolerated:<group>  SET of the items whose failure counts as a success
    rq:flowq:1:slots:<limit>    SET of the jobs that count in a max_parallel; a limit is
                                `group:<group>`, `run:<run>`, or `future:<join>`
    rq:flowq:1:waiting:<limit>  ZSET of the jobs that wait for a slot
    rq:flowq:1:turn             the number of the last job that began to wait for a limit across
                                runs (lua/slots.lua), `shared:<name>` or `rate:<name>`
    rq:flowq:1:limits:<run>     SET of those in which its jobs have had slots, or have waited
    rq:flowq:1:spent:<limit>    ZSET of the starts that count in a rate, by when they do no more
    rq:flowq:1:shared:<name>    HASH: the maximum of a limit across runs; rq:flowq:1:rate:<name> of
                                a rate
    rq:flowq:1:rates            ZSET of the rates by when somebody has to look at them
    rq:flowq:1:behind:<join>    ZSET of the jobs of a nested workflow that wait with its join
    rq:flowq:1:concurrency:<group>  LIST of the runs of a `concurrency` group; the first runs
    rq:flowq:1:runs             ZSET of the runs by the time of their submission
    rq:flowq:1:runs:<workflow>  ZSET of the runs of the workflows of one name, likewise
    rq:flowq:1:runs_in:<state>  ZSET of the runs in one state, likewise; those that wait are running
    rq:flowq:1:labels:<name>=<value>  ZSET of the runs with this label, likewise
    rq:flowq:1:labeled          ZSET of "<run> <its labels>" by the time of the next look at whether
                                an older version has removed the run
    rq:flowq:1:schedule:<workflow>  HASH: until when its due times have been dealt with
                                (served_at), whether it is paused, and its schedules
                                (flowq/scheduling.py)
    rq:flowq:1:schedules        ZSET of the workflows that have one, by the time when that was
                                recorded (flowq/runtime/schedules.py)
    rq:flowq:1:scheduler:<workflow>  the process that submits its runs; expires
    rq:flowq:1:due:<workflow>:<instant>  the run of a due time; expires
    rq:flowq:1:staged           ZSET of uncommitted runs by the time at which they are removed
    rq:flowq:1:ended            ZSET of ended runs by the time at which they are removed
    rq:flowq:1:workers          ZSET of the living workers by the time at which they count as lost
    rq:flowq:1:host:<worker>    its host and process id, some days longer than RQ keeps its hash
    rq:flowq:1:marks            HASH: since when and until when the server accepted writes, as
                                noted by the searches for lost workers; where the sweep over the
                                lists of runs is (lua/listing.lua)
    rq:flowq:1:metrics          HASH: what metrics count since the beginning (lua/metrics.lua)
    rq:flowq:1:functions        ZSET of flowq's functions on the server by their last use
"""

from __future__ import annotations

from rq.defaults import RQ_KEY_PREFIX

PREFIX: str = RQ_KEY_PREFIX
VERSION = 1

VIEW_FIELD = "flowq_view"
"""The field of a job's hash with the view of its last end (flowq.runtime.views)."""

DECLARES_OPEN_FIELD = "declares_open"
"""The field of a run's record that says: code may add blockers only to jobs marked as open."""

KEEPS_OUTPUT_FIELD = "flowq_keeps_output"
"""The field of a worker's hash that says: it stores what jobs print."""

BUDGET_FIELD = "budget_bytes"
"""The field of a run's record with its memory budget, where that is not the default."""

TRACE_FIELD = "trace"
"""The field of a run's record with the trace context of its submission, if that was traced."""

CODE_FIELD = "flowq_code"
"""The field of a job's hash with the digest of its code (workers/child/code_digest.py)."""

TODO = f"{PREFIX}:flowq:{VERSION}:todo"
WATCHED = f"{PREFIX}:flowq:{VERSION}:watched"
PRINTING = f"{PREFIX}:flowq:{VERSION}:printing"
FORGOTTEN = f"{PREFIX}:flowq:{VERSION}:forgotten"
EXPIRING = f"{PREFIX}:flowq:{VERSION}:expiring"
DEADLINES = f"{PREFIX}:flowq:{VERSION}:deadlines"
ROUNDS = f"{PREFIX}:flowq:{VERSION}:rounds"
RUNS = f"{PREFIX}:flowq:{VERSION}:runs"
SCHEDULES = f"{PREFIX}:flowq:{VERSION}:schedules"
LABELED = f"{PREFIX}:flowq:{VERSION}:labeled"
STAGED = f"{PREFIX}:flowq:{VERSION}:staged"
ENDED = f"{PREFIX}:flowq:{VERSION}:ended"
METRICS = f"{PREFIX}:flowq:{VERSION}:metrics"
FUNCTIONS = f"{PREFIX}:flowq:{VERSION}:functions"
WORKERS = f"{PREFIX}:flowq:{VERSION}:workers"
RATES = f"{PREFIX}:flowq:{VERSION}:rates"
MARKS = f"{PREFIX}:flowq:{VERSION}:marks"

RUN_CLIENT = "flowq-run-"
OWN_QUEUE = "run."
"""The prefix of the name of a run's own queue."""


def job(job_id: str) -> str:
    """RQ's hash of a job."""
    return f"{PREFIX}:job:{job_id}"


def canceled(queue: str) -> str:
    """RQ's registry of the canceled jobs of a queue."""
    return f"{PREFIX}:canceled:{queue}"


def execution(job_id: str, execution_id: str) -> str:
    """RQ's hash of one execution of a job."""
    return f"{PREFIX}:execution:{job_id}:{execution_id}"


def executions(job_id: str) -> str:
    """RQ's sorted set of a job's executions."""
    return f"{PREFIX}:executions:{job_id}"


def worker(name: str) -> str:
    """RQ's hash of a worker."""
    return f"{PREFIX}:worker:{name}"


def results(job_id: str) -> str:
    """RQ's stream of a job's results."""
    return f"{PREFIX}:results:{job_id}"


def scheduled(queue: str) -> str:
    """RQ's schedule of one queue: job ids by the epoch seconds at which they are due."""
    return f"{PREFIX}:scheduled:{queue}"


def queue(name: str) -> str:
    """RQ's list of the queued jobs of one queue."""
    return f"{PREFIX}:queue:{name}"


def own_queue(run_id: str) -> str:
    """The name of a run's own queue; it cannot be the id of a job."""
    return f"{OWN_QUEUE}{run_id}"


def server_of_run(run_id: str) -> str:
    """The client name of workers that serve only one run."""
    return f"{RUN_CLIENT}{run_id}"


def starting(run_id: str) -> str:
    """Says, for a while, that workers that serve only this run have been started."""
    return f"{PREFIX}:flowq:{VERSION}:starting:{run_id}"


def host(worker: str) -> str:
    """The host and the process id of a worker, separated by a space."""
    return f"{PREFIX}:flowq:{VERSION}:host:{worker}"


def commands(worker: str) -> str:
    """RQ's channel for commands to a worker."""
    return f"{PREFIX}:pubsub:{worker}"


def held(worker: str) -> str:
    """RQ's set of a worker's executions."""
    return f"{PREFIX}:worker:{worker}:executions"


def blockers(future_id: str) -> str:
    """The list of a future job's blockers, in the order of addition."""
    return f"{PREFIX}:deferred:{future_id}"


def future(future_id: str) -> str:
    """The state of a future job."""
    return f"{PREFIX}:flowq:{VERSION}:future:{future_id}"


def above(future_id: str) -> str:
    """The failures upstream of each blocker of a future job, by its id (`lua/ancestors.lua`)."""
    return f"{PREFIX}:flowq:{VERSION}:above:{future_id}"


def edges(future_id: str) -> str:
    """The outcome of each blocker of a future job."""
    return f"{PREFIX}:flowq:{VERSION}:edges:{future_id}"


def run(run_id: str) -> str:
    """The record of a run."""
    return f"{PREFIX}:flowq:{VERSION}:run:{run_id}"


def runs_of(workflow: str) -> str:
    """The runs of the workflows of one name, by the time of their submission."""
    return f"{RUNS}:{workflow}"


def runs_in(state: str) -> str:
    """The runs in one state, as stored, by the time of their submission."""
    return f"{PREFIX}:flowq:{VERSION}:runs_in:{state}"


def runs_with(label: str, value: str) -> str:
    """The runs with a label, by the time of their submission."""
    return f"{PREFIX}:flowq:{VERSION}:labels:{label}={value}"


def schedule(workflow: str) -> str:
    """What is kept of the schedule of a workflow."""
    return f"{PREFIX}:flowq:{VERSION}:schedule:{workflow}"


def scheduler(workflow: str) -> str:
    """The process that submits the runs of a workflow's schedule."""
    return f"{PREFIX}:flowq:{VERSION}:scheduler:{workflow}"


def due(claim: str) -> str:
    """The run of a due time."""
    return f"{PREFIX}:flowq:{VERSION}:due:{claim}"


def run_jobs(run_id: str) -> str:
    """The ids of a run's jobs, the last ones first."""
    return f"{PREFIX}:flowq:{VERSION}:jobs:{run_id}"


def run_order(run_id: str) -> str:
    """The ids of a run's declared jobs, in the order of displays."""
    return f"{PREFIX}:flowq:{VERSION}:order:{run_id}"


def run_futures(run_id: str) -> str:
    """The ids of a run's future jobs, in the order of their release."""
    return f"{PREFIX}:flowq:{VERSION}:futures:{run_id}"


def unended(run_id: str) -> str:
    """The jobs of a run that have not ended."""
    return f"{PREFIX}:flowq:{VERSION}:unended:{run_id}"


def run_again(run_id: str) -> str:
    """The operations that a run's retry still has to do."""
    return f"{PREFIX}:flowq:{VERSION}:again:{run_id}"


def run_events(run_id: str) -> str:
    """The events of a run."""
    return f"{PREFIX}:flowq:{VERSION}:events:{run_id}"


def run_counts(run_id: str) -> str:
    """What is counted of a run's events."""
    return f"{PREFIX}:flowq:{VERSION}:counts:{run_id}"


def run_states(run_id: str) -> str:
    """The jobs of a run's groups and nested workflows, by declaration, state and index."""
    return f"{PREFIX}:flowq:{VERSION}:states:{run_id}"


def run_code(run_id: str) -> str:
    """The files of the code that a run's jobs executed, by digest."""
    return f"{PREFIX}:flowq:{VERSION}:code:{run_id}"


def printed(run_id: str) -> str:
    """What a run's jobs have printed."""
    return f"{PREFIX}:flowq:{VERSION}:printed:{run_id}"


def run_groups(run_id: str) -> str:
    """The ids of a run's groups."""
    return f"{PREFIX}:flowq:{VERSION}:groups:{run_id}"


def group(group_id: str) -> str:
    """The record of a group."""
    return f"{PREFIX}:flowq:{VERSION}:group:{group_id}"


def group_keys(group_id: str) -> str:
    """The index of each item of a group, by its key."""
    return f"{PREFIX}:flowq:{VERSION}:keys:{group_id}"


def group_items(group_id: str) -> str:
    """The items of a group by index, pickled."""
    return f"{PREFIX}:flowq:{VERSION}:items:{group_id}"


def slots(limit: str) -> str:
    """The jobs that count in a max_parallel."""
    return f"{PREFIX}:flowq:{VERSION}:slots:{limit}"


def waiting(limit: str) -> str:
    """The jobs that wait for a slot of a max_parallel."""
    return f"{PREFIX}:flowq:{VERSION}:waiting:{limit}"


def spent(limit: str) -> str:
    """The starts that count in a rate, by the epoch seconds at which they do no more."""
    return f"{PREFIX}:flowq:{VERSION}:spent:{limit}"


def concurrency(group: str) -> str:
    """The runs of a `concurrency` group; the first one runs."""
    return f"{PREFIX}:flowq:{VERSION}:concurrency:{group}"
