"""The WIP registry: the jobs that are being executed now, and the workers that execute them.

`rq:wip:<queue>` is RQ's registry of started jobs; every worker has an entry in it from the start of
an execution to its end. flowq reads it, and adds the worker, the start time and the run from other
keys. RQ removes the entry of a job that is canceled while it runs, so what workers hold is read too
(`rq:worker:<name>:executions`, RQ's as well). Reading changes and unpickles nothing.

Children import `listening.py` instead, which says who is alive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any, Literal

from redis.exceptions import NoPermissionError
from rq.registry import StartedJobRegistry
from rq.utils import as_text, str_to_date
from rq.worker_registration import REDIS_WORKER_KEYS

from flowq.reports import Progress, read_progress
from flowq.runtime import keys
from flowq.runtime.connections import read_clock, read_each
from flowq.runtime.job import Job
from flowq.runtime.listening import QUEUES, find_alive, find_served, run_of
from flowq.runtime.lookups import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

ExecutionState = Literal["lost", "started", "handed"]

MAX_SHOWN = 100
"""The default limit of `read_wip`."""


@dataclass(frozen=True, slots=True)
class Executing:
    """One execution in the WIP registry. `run_id`, `name` and `workflow` are empty outside of runs.

    `state`: `handed` when a child of the worker holds the job and has not begun it, `lost` when
    the worker sends no heartbeats any more, so another worker will take over the job. `host` is
    the worker's; `pid` is the process that executes the job, None until a heartbeat reports it.
    `started_at` is None for what has not begun. `timeout_s` is None for no limit, `seen_at` the
    last heartbeat. `progress` is what it has reported. Instants are the server's clock.
    """

    job_id: str
    execution_id: str
    queue: str
    worker: str
    description: str
    started_at: datetime | None
    run_id: str = ""
    name: str = ""
    workflow: str = ""
    state: ExecutionState = "started"
    host: str = ""
    pid: int | None = None
    timeout_s: float | None = None
    seen_at: datetime | None = None
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class InProgress:
    """What is being executed `at` that instant, by the server's clock.

    The lost executions come first, then those that have begun, then those that were handed over;
    within each state the oldest first.

    `executions` may be cut; `counts` has how many there are, by state.
    """

    at: datetime
    executions: Sequence[Executing]
    counts: Mapping[ExecutionState, int]

    @classmethod
    def nothing(cls) -> InProgress:
        """Return what is being executed where there is no server."""
        return cls(datetime.now(UTC), (), {})


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One worker of a server, as it was `seen_at` its last heartbeat.

    `state` is RQ's (`idle`, `busy`, `suspended`, …), or `stopping`, `lost`, or `resting`: a run is
    served by a small process that becomes a worker when there is something to do. `run_id`: the run
    that it serves alone. `jobs`: how many it holds, at most `concurrency` of which have begun.
    `mode` and `concurrency` are empty and None for workers of RQ. `finished` and `failed` count the
    jobs that it has ended since `born_at`.
    """

    name: str
    state: str
    queues: Sequence[str] = ()
    run_id: str = ""
    host: str = ""
    pid: int | None = None
    mode: str = ""
    concurrency: int | None = None
    jobs: int = 0
    finished: int = 0
    failed: int = 0
    born_at: datetime | None = None
    seen_at: datetime | None = None


class WIPRegistry(StartedJobRegistry):
    """RQ's registry of started jobs of one queue, with details about each.

    A job is in it from its start to its end. Reading does not remove entries of dead workers, which
    is the task of maintenance.
    """

    job_class = Job

    def __init__(self, name: str = "default", connection: Redis | None = None, **options: Any):
        options.setdefault("job_class", Job)
        super().__init__(name, connection, **options)

    def executing(self) -> list[Executing]:
        """Return the executions in the order of `InProgress`."""
        return list(read_wip(self.connection, [self.name], limit=None).executions)


def list_executing(connection: Redis, queues: Iterable[str] = ()) -> list[Executing]:
    """Return what is being executed on these queues, or on all, in the order of `InProgress`."""
    return list(read_wip(connection, queues, limit=None).executions)


def read_wip(
    connection: Redis, queues: Iterable[str] = (), *, limit: int | None = MAX_SHOWN
) -> InProgress:
    """Return what is being executed on these queues, or on all.

    A job of a run that has a queue of its own counts on the queue that was declared for it. A few
    round trips, whatever the number of jobs.
    """
    wanted = set(queues)
    named = {as_text(key).removeprefix(keys.queue("")) for key in connection.smembers(QUEUES)}
    names = sorted(
        name
        for name in named | wanted
        if not wanted or name in wanted or name.startswith(keys.OWN_QUEUE)
    )
    now_s = _read_clock(connection)
    entries = _read_entries(names, connection)
    workers = _read_hashes({entry.worker for entry in entries} - {""}, connection)
    there = _find_alive(workers, now_s, connection)
    executions = sorted(
        (
            _describe(entry, workers.get(entry.worker, {}), entry.worker in there, now_s)
            for entry in entries
            if not wanted or wanted & {entry.queue, entry.declared_queue}
        ),
        key=_importance,
    )
    shown = executions[:limit]
    workflows = _read_workflows({each.run_id for each in shown} - {""}, connection)
    return InProgress(
        at=datetime.fromtimestamp(now_s, UTC),
        executions=[replace(each, workflow=workflows.get(each.run_id, "")) for each in shown],
        counts=Counter(each.state for each in executions),
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the registry, as its keys have it: the fields of the job, and of RQ's record of
    the execution, which a short job that was handed over has not got."""

    queue: str
    job_id: str
    execution_id: str
    ends_s: float
    job: Mapping[str, str]
    record: Mapping[str, str]

    @property
    def worker(self) -> str:
        return self.record.get("worker_name") or self.job.get("worker_name", "")

    @property
    def declared_queue(self) -> str:
        return self.job.get("flowq_queue") or self.queue

    @property
    def is_executed(self) -> bool:
        status = self.job.get("status", "started")
        return status == "started" or (status == "canceled" and "created_at" in self.record)


_JOB_FIELDS = (
    *("origin", "description", "worker_name", "status", "timeout", "flowq_progress"),
    *("flowq_run", "flowq_name", "flowq_queue", "flowq_progress_of"),
)
_RECORD_FIELDS = ("worker_name", "created_at", "last_heartbeat", "flowq_handed", "flowq_pid")


def _read_entries(queues: Sequence[str], connection: Redis) -> list[_Entry]:
    def list_members(pipe: Pipeline, queue: str) -> None:
        pipe.zrange(WIPRegistry(queue, connection).key, 0, -1, withscores=True)

    def read_details(pipe: Pipeline, member: str) -> None:
        job_id = member.rpartition(":")[0]
        pipe.hmget(keys.job(job_id), _JOB_FIELDS)
        pipe.hmget(keys.execution(job_id, member.rpartition(":")[2]), _RECORD_FIELDS)

    found = {
        as_text(member): (queue, score)
        for queue, (members,) in read_each(queues, connection, list_members)
        for member, score in members
    }
    for member in _read_held(connection):
        found.setdefault(member, ("", inf))
    entries = []
    for member, (job, record) in read_each(found, connection, read_details):
        queue, ends_s = found[member]
        fields = _by_name(_JOB_FIELDS, job)
        job_id, _, execution_id = member.rpartition(":")
        place = (queue or fields.get("origin", ""), job_id, execution_id, ends_s)
        entries.append(_Entry(*place, fields, _by_name(_RECORD_FIELDS, record)))
    # What ended between the two looks has no record any more, and would seem to be handed over.
    return [entry for entry in entries if entry.is_executed]


def _read_held(connection: Redis) -> set[str]:
    """Return what workers hold, as `list_workers` counts it.

    RQ's `cancel()` of a running job takes it out of the registry, and lets it run to its end.
    """
    prefix = keys.worker("")
    workers = [as_text(key).removeprefix(prefix) for key in connection.smembers(REDIS_WORKER_KEYS)]
    held = read_each(workers, connection, lambda pipe, name: pipe.smembers(keys.held(name)))
    return {as_text(member) for _, (members,) in held for member in members}


def _by_name(names: Sequence[str], values: Iterable[bytes | None]) -> dict[str, str]:
    return {name: as_text(value) for name, value in zip(names, values, strict=True) if value}


def _describe(entry: _Entry, worker: Mapping[str, str], is_there: bool, now_s: float) -> Executing:
    job, record = entry.job, entry.record
    is_ours = "flowq_lease" in worker
    has_begun = "created_at" in record and "flowq_handed" not in record
    # RQ's workers move the end of an entry with each heartbeat; ours have a lease for all of them.
    is_lost = not is_there or "death" in worker or (not is_ours and entry.ends_s <= now_s)
    timeout_s = float(job.get("timeout") or DEFAULT_TIMEOUT_S)
    return Executing(
        job_id=entry.job_id,
        execution_id=entry.execution_id,
        queue=entry.declared_queue,
        worker=entry.worker,
        description=job.get("description", ""),
        started_at=_instant(record.get("created_at")) if has_begun else None,
        run_id=job.get("flowq_run", ""),
        name=job.get("flowq_name", ""),
        state="lost" if is_lost else "started" if has_begun else "handed",
        host=worker.get("hostname", ""),
        pid=int(record["flowq_pid"]) if "flowq_pid" in record else None,
        timeout_s=timeout_s if timeout_s > 0 else None,
        seen_at=_find_heartbeat(record, worker),
        progress=_find_progress(entry),
    )


def _find_progress(entry: _Entry) -> Progress | None:
    """Return what this execution has reported; an earlier one may have left something behind."""
    if entry.job.get("flowq_progress_of") != entry.execution_id:
        return None
    return read_progress(entry.job.get("flowq_progress", ""))


def _importance(execution: Executing) -> tuple[int, float, str]:
    states: Sequence[ExecutionState] = ("lost", "started", "handed")
    since_s = execution.started_at.timestamp() if execution.started_at else 0.0
    return states.index(execution.state), since_s, execution.job_id


def _find_heartbeat(record: Mapping[str, str], worker: Mapping[str, str]) -> datetime | None:
    """Return the last heartbeat of an execution; that of its worker, where it has none yet."""
    at = _instant(record.get("last_heartbeat"))
    if at is None and "last_heartbeat" in worker:
        at = str_to_date(worker["last_heartbeat"])
    return at


def _instant(text: str | None) -> datetime | None:
    """Read RQ's two ways to write an instant."""
    if not text:
        return None
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except ValueError:
        return str_to_date(text)


def _read_workflows(run_ids: Iterable[str], connection: Redis) -> dict[str, str]:
    def ask(pipe: Pipeline, run_id: str) -> None:
        pipe.hget(keys.run(run_id), "workflow")

    return {
        run_id: as_text(name) for run_id, (name,) in read_each(run_ids, connection, ask) if name
    }


def _read_clock(connection: Redis) -> float:
    """Return the server's clock; ours for a user who may not ask for it."""
    try:
        return read_clock(connection)
    except NoPermissionError:
        return datetime.now(UTC).timestamp()


# Workers -------------------------------------------------------------------------------------


def list_workers(connection: Redis) -> list[WorkerRecord]:
    """Return flowq's and RQ's workers, by name, then the runs that wait for one to be woken.

    A few round trips, whatever their number.
    """
    prefix = keys.worker("")
    names = {as_text(key).removeprefix(prefix) for key in connection.smembers(REDIS_WORKER_KEYS)}
    now_s = _read_clock(connection)
    hashes = _read_hashes(names, connection)
    there = _find_alive(hashes, now_s, connection)
    jobs = read_each(sorted(hashes), connection, lambda pipe, name: pipe.scard(keys.held(name)))
    workers = [
        _describe_worker(name, hashes[name], name in there, count) for name, (count,) in jobs
    ]
    served = {worker.run_id for worker in workers if worker.state != "lost"}
    try:
        resting = sorted(find_served(connection) - served)
    except NoPermissionError:
        resting = []
    return workers + [WorkerRecord("", "resting", run_id=run_id) for run_id in resting]


def _describe_worker(
    name: str, fields: Mapping[str, str], is_there: bool, jobs: int
) -> WorkerRecord:
    queues = [each for each in fields.get("queues", "").split(",") if each]
    state = fields.get("state", "starting")
    if "shutdown_requested_date" in fields:
        state = "stopping"
    concurrency = fields.get("flowq_concurrency")
    return WorkerRecord(
        name=name,
        state=state if is_there else "lost",
        queues=[queue for queue in queues if not run_of(queue)],
        run_id=next(filter(None, map(run_of, queues)), ""),
        host=fields.get("hostname", ""),
        pid=int(fields["pid"]) if "pid" in fields else None,
        mode=fields.get("flowq_mode", ""),
        concurrency=int(concurrency) if concurrency else None,
        jobs=jobs,
        finished=int(float(fields.get("successful_job_count", 0))),
        failed=int(float(fields.get("failed_job_count", 0))),
        born_at=_instant(fields.get("birth")),
        seen_at=_instant(fields.get("last_heartbeat")),
    )


_WORKER_FIELDS = (
    *("hostname", "pid", "queues", "state", "last_heartbeat", "shutdown_requested_date", "death"),
    *("flowq_mode", "flowq_concurrency", "birth", "successful_job_count", "failed_job_count"),
)


def _read_hashes(names: Iterable[str], connection: Redis) -> dict[str, dict[str, str]]:
    """Return the fields of workers by their names; `flowq_lease` is until when one of ours lives.

    A worker of which nothing is left has an empty one.
    """

    def ask(pipe: Pipeline, name: str) -> None:
        pipe.hmget(keys.worker(name), _WORKER_FIELDS)
        pipe.zscore(keys.WORKERS, name)

    found = {}
    for name, (values, lease) in read_each(sorted(names), connection, ask):
        found[name] = _by_name(_WORKER_FIELDS, values)
        if lease is not None:
            found[name]["flowq_lease"] = str(lease)
    return found


def _find_alive(
    hashes: Mapping[str, Mapping[str, str]], now_s: float, connection: Redis
) -> set[str]:
    """Do the same as `find_alive`; for a user who may call no scripts, by leases alone."""
    try:
        return find_alive(hashes, connection)
    except NoPermissionError:
        return {
            name
            for name, fields in hashes.items()
            if fields and float(fields.get("flowq_lease", "inf")) > now_s
        }
