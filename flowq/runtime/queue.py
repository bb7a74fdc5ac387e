"""`flowq.Queue`: RQ's queue, with `deferred=`, `blocked_by=` and `blocks=` when it enqueues.

Also determines the connection of calls that do not name one.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from redis.exceptions import RedisError
from rq import Callback, get_current_job
from rq.exceptions import DuplicateJobError
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.queue import EnqueueData
from rq.queue import Queue as RQQueue
from rq.utils import as_text

from flowq.callables import is_of_script, refer
from flowq.errors import (
    CycleError,
    FlowqError,
    FutureAlreadyStarted,
    FutureEnded,
    JobIdTaken,
    JobNotFound,
    NotAFutureJob,
    NotOpen,
    RunNotFound,
    Unsupported,
    UsageError,
    WrongState,
)
from flowq.importing import refuse_while_importing
from flowq.runtime import keys, scripts
from flowq.runtime.connections import describe, is_passing, read_clock, refuse_unusable
from flowq.runtime.enqueueing import (
    Copier,
    Entry,
    IdUse,
    Own,
    Shape,
    as_arguments,
    instead_of_taken,
    make_entry,
    refuse_cycles,
    run_if_queued,
    run_released,
)
from flowq.runtime.futures import derive_id
from flowq.runtime.holds import NO_HOLD, Hold, take_hold, take_hold_of_call
from flowq.runtime.job import Job, get_job
from flowq.runtime.rq import QueueBase, explain_key_prefix
from flowq.runtime.steps import finish, run_steps
from flowq.runtime.tracing import note_context

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline


class HeldData(NamedTuple):
    """The return value of `Queue.prepare_data` for a job with a hold: RQ's data, and the hold."""

    data: EnqueueData
    hold: Hold


class Queue(QueueBase):
    """RQ's queue, with two more keywords for every way to enqueue.

    `deferred=True` creates a future job, which does not run before it is released. `blocked_by=`
    (or its clearer alias `blocks=`) names future jobs that wait for the new job. A future job's
    `on_blocker_failure=` (`wait`, `skip`, `run`) and `if_empty=` (`run`, `skip`) set what it does
    if blockers fail, or if it has none. With `start_when=` (`one_success`, `one_failed`) it starts
    at the first success or failure, and with `cancel_rest=True` the other blockers are canceled.

    Atomic: one script checks and enqueues everything, or raises an error and enqueues nothing.
    Errors: JobNotFound, NotAFutureJob, NotOpen, FutureAlreadyStarted, FutureEnded, CycleError,
    JobIdTaken, Unsupported.
    """

    job_class = Job
    _clock_shift = timedelta()

    _name_checked = False

    def __init__(self, name: str = "default", *args: Any, **kwargs: Any) -> None:
        if not isinstance(name, str) or not name.strip():
            raise UsageError(f"the name of a queue must be a text that is not empty, not {name!r}")
        if not args and kwargs.get("connection") is None:
            kwargs["connection"] = need_connection("a queue")
        super().__init__(name, *args, **kwargs)
        refuse_unusable(self.connection)

    def enqueue(self, f: Any, *args: Any, **kwargs: Any) -> Job:
        """Enqueue a call; see `rq.Queue.enqueue` for RQ's options."""
        f = _refer(f, kwargs)
        hold = take_hold(kwargs)
        options = RQQueue.parse_args(f, *args, **kwargs)._asdict()
        return self._enqueue_call(options.pop("func"), hold, options)

    def enqueue_call(self, func: Any, *args: Any, **kwargs: Any) -> Job:
        """Enqueue a call whose arguments are given as `args=` and `kwargs=`."""
        reference = _refer(func, kwargs)
        hold = take_hold(kwargs)
        options = _CALL_SIGNATURE.bind(self, func, *args, **kwargs).arguments
        del options["self"], options["func"]
        if not hold.is_needed and options.get("kwargs"):
            options["kwargs"] = dict(options["kwargs"])
            hold = take_hold_of_call(func, options["kwargs"])
        return self._enqueue_call(reference, hold, options)

    def enqueue_at(self, datetime: datetime, f: Any, *args: Any, **kwargs: Any) -> Job:
        """Enqueue a call for later; a held job goes to RQ's schedule when its holds are lifted."""
        f = _refer(f, kwargs)
        hold = take_hold(kwargs)
        if not hold.is_needed:
            return cast(Job, super().enqueue_at(datetime, f, *args, **kwargs))
        options = RQQueue.parse_args(f, *args, **kwargs)._asdict()
        return self._enqueue_held(options.pop("func"), hold.at(datetime.timestamp()), **options)

    def enqueue_in(self, time_delta: timedelta, func: Any, *args: Any, **kwargs: Any) -> Job:
        """Like `enqueue_at`, after a delay. The server's clock decides when the job is due."""
        server_now = datetime.fromtimestamp(read_clock(self.connection), UTC)
        return self.enqueue_at(server_now + time_delta, func, *args, **kwargs)

    def schedule_job(
        self,
        job: RQJob,
        datetime: datetime,
        pipeline: Pipeline | None = None,
        unique: bool = False,
    ) -> RQJob:
        """Put a job into RQ's schedule; also used for delayed retries and repeats.

        Delays that RQ computed are corrected to the server's clock (`shift_clock`). RQ truncates
        the time to whole seconds, so a job could start up to a second early. Here it is exact:
        flowq's workers start the job at that time, RQ's in the following second.
        """
        datetime += self._clock_shift
        score = {job.id: datetime.timestamp()}
        schedule = keys.scheduled(self.name)
        if unique:  # RQ's script writes it: at first late, then exact
            late = datetime.replace(microsecond=0) + timedelta(seconds=bool(datetime.microsecond))
            made = super().schedule_job(job, datetime=late, unique=True)
            self.connection.zadd(schedule, score, xx=True)
            return made
        pipe = self.connection.pipeline() if pipeline is None else pipeline
        made = super().schedule_job(job, datetime=datetime, pipeline=pipe)
        pipe.zadd(schedule, score)
        if pipeline is None:
            pipe.execute()
        return made

    def shift_clock(self, ahead_s: float) -> None:
        """Note how far the server's clock is ahead of the one by which RQ computes delays."""
        self._clock_shift = timedelta(seconds=ahead_s)

    def create_job(self, func: Any, *args: Any, **kwargs: Any) -> Job:
        """Create a job without enqueueing it; `enqueue_job` then applies the options."""
        func = _refer(func, kwargs)
        hold = take_hold(kwargs)
        job = cast(Job, super().create_job(func, *args, **kwargs))
        if hold.is_needed:
            self._held(job).adopt(hold)
        else:
            self._refuse_name_of_future()
            self._refuse_id_of_held(job)
        return job

    def enqueue_job(
        self,
        job: RQJob,
        pipeline: Pipeline | None = None,
        at_front: bool = False,
        unique: bool = False,
    ) -> Job:
        """Enqueue a job created by `create_job`."""
        note_context(job)
        if not isinstance(job, Job) or not job.hold.is_needed:
            added = super().enqueue_job(job, pipeline=pipeline, at_front=at_front, unique=unique)
            return cast(Job, added)
        return self._enqueue_one(job, pipeline, at_front, unique)

    @staticmethod
    def prepare_data(func: Any, *args: Any, **kwargs: Any) -> EnqueueData:
        """Describe a job for `enqueue_many`, with or without flowq's options."""
        func = _refer(func, kwargs)
        hold = take_hold(kwargs)
        data = RQQueue.prepare_data(func, *args, **kwargs)
        if not hold.is_needed:
            return data
        return HeldData(data, hold)  # type: ignore[return-value]

    def enqueue_many(  # type: ignore[override]  # a list of our jobs is one of RQ's to any reader
        self,
        job_datas: Iterable[EnqueueData],
        pipeline: Pipeline | None = None,
        group_id: str | None = None,
    ) -> list[Job]:
        """Enqueue several jobs. If any of them has a hold, all are enqueued or none."""
        datas = list(job_datas)
        if not any(isinstance(data, HeldData) for data in datas):
            added = super().enqueue_many(datas, pipeline=pipeline, group_id=group_id)
            return cast(list[Job], added)
        copier = Copier()
        entries = [self.describe(data, copier, group_id) for data in datas]
        if group_id and pipeline is not None and not pipeline.command_stack:
            # rq.Group brings an empty pipeline for what it writes itself, after this.
            pipeline = None
        _refuse_pipeline(pipeline)
        refuse_cycles([entry.job for entry in entries])
        return add_entries(self, entries)

    def describe(
        self, data: EnqueueData | HeldData, copier: Copier, group_id: str | None = None
    ) -> Entry:
        """Create a job for `add_entries`, or copy one that the copier knows.

        A copier serves one call, for jobs of this queue and this group.
        """
        data, hold = data if isinstance(data, HeldData) else (data, NO_HOLD)
        job_id = derive_id(hold) if data.job_id is None else data.job_id
        entry = copier.copy(data, job_id, hold)
        if entry is None:
            options = data._asdict() | {"job_id": job_id, "group_id": group_id}
            entry = self.describe_job(hold, **options)
            copier.learn(data, job_id, entry)
        return entry

    def describe_job(self, hold: Hold, *, at_front: bool = False, **options: Any) -> Entry:
        """Create a job for `add_entries`, with the options of RQ's `create_job`."""
        job = self._held(super().create_job(**options))
        job.adopt(hold)
        return self._ready(job, self._identify(job), at_front)

    def fetch_job(self, job_id: str) -> Job | None:
        """Return the job of this queue with that id, or None."""
        return cast("Job | None", super().fetch_job(job_id))

    def _enqueue_call(self, func: Any, hold: Hold, options: dict[str, Any]) -> Job:
        if hold.is_needed:
            return self._enqueue_held(func, hold, **options)
        return cast(Job, super().enqueue_call(func, **options))

    def _enqueue_held(self, func: Any, hold: Hold, **options: Any) -> Job:
        if options.get("unique") and not options.get("job_id"):
            raise UsageError("unique=True needs a job_id=")
        placing = {name: options.pop(name) for name in ("at_front", "unique") if name in options}
        pipeline = options.pop("pipeline", None)
        job = self._held(super().create_job(func, **options))
        job.adopt(hold)
        return self._enqueue_one(job, pipeline, **placing)

    def _enqueue_one(
        self,
        job: Job,
        pipeline: Pipeline | None = None,
        at_front: bool = False,
        unique: bool = False,
    ) -> Job:
        _refuse_pipeline(pipeline)
        note_context(job)
        id_use = self._identify(job, unique)

        def add() -> RQJob:
            refuse_cycles([job])
            return add_entries(self, [self._ready(job, id_use, at_front)])[0]

        return cast(Job, self.enqueue_by(job, add))

    def _held(self, job: RQJob) -> Job:
        if not isinstance(job, Job):
            raise UsageError(
                f"deferred= and blocks= need flowq.Job; this queue makes {type(job).__qualname__}"
            )
        return job

    def _identify(self, job: Job, unique: bool = False) -> IdUse:
        """Set the id of a job that a running blocker adds; return how the id is used."""
        self._refuse_key_prefix(job)
        if job.has_rate_limit:
            raise Unsupported("rate_limit cannot be combined with deferred= or blocks=")
        if not job.given_id and (derived := derive_id(job.hold)):
            job.identify(derived)
        return "unique" if unique else "" if job.given_id else "new"

    def _refuse_key_prefix(self, job: Job) -> None:
        for given, name, default in (
            (job, "redis_job_namespace_prefix", RQJob.redis_job_namespace_prefix),
            (self, "redis_queue_namespace_prefix", RQQueue.redis_queue_namespace_prefix),
        ):
            if getattr(given, name) != default:
                raise Unsupported(explain_key_prefix(type(given), name, default))

    def _ready(self, job: Job, id_use: IdUse, at_front: bool = False) -> Entry:
        """Complete a job, and return its entry."""
        job.origin = self.name
        job.redis_server_version = self.get_redis_server_version()
        if job.timeout is None:
            job.timeout = self.default_timeout
        job.enqueue_at_front = job.enqueue_at_front or at_front or None
        job.mark(JobStatus.DEFERRED)
        return make_entry(job, id_use)

    def _refuse_name_of_future(self) -> None:
        # RQ's registry of this queue's deferred jobs is a sorted set, under the key where a future
        # job of the same name has the list of its blockers.
        if self._name_checked:
            return
        if self.connection.exists(keys.future(self.name)):
            raise _refusal("future", [self.name], ())
        self._name_checked = True

    def _refuse_id_of_held(self, job: RQJob) -> None:
        # RQ overwrites a job whose id is given again, and would queue it in spite of its holds.
        if isinstance(job, Job) and not job.given_id:
            return
        fields: Any = self.connection.hmget(job.key, "status", "flowq_blocks", "flowq_future")
        if fields[0] == b"deferred" and any(fields[1:]):
            raise JobIdTaken(job.id, "a job that is deferred")

    def empty(self) -> int:
        """Remove all jobs of the queue; blockers among them count as deleted."""
        count, removed = 0, -1
        while removed:
            removed = int(scripts.EMPTY.call(self.connection, self.key, self.key, JOBS_PER_CALL))
            count += removed
        return count

    def release_maintenance_lock(self) -> None:
        """After RQ's maintenance, run flowq's: execute steps that other processes left unfinished.

        Source: the only hook that RQ's own workers offer a queue class. An exception here would end
        the worker, so failures are left for the next pass.
        """
        try:
            run_steps(self.connection)
        except RedisError as error:
            how = self.log.warning if is_passing(error) else self.log.exception
            how("flowq: a step failed, it stays in the todo: %s", describe(error))
        super().release_maintenance_lock()  # type: ignore[no-untyped-call]

    @classmethod
    def may_begin(cls, job: RQJob) -> bool:
        """Whether RQ's worker may begin the job; if its run is being canceled, the job ends."""
        return not (isinstance(job, Job) and job.run_id and job.end_called_off())

    @classmethod
    def note_expired(cls, connection: Redis, job_id: str) -> None:
        """Record the end of a job that expired (its `ttl`) before an RQ worker took it."""
        scripts.EXPIRED.call(connection, keys.job(job_id), job_id)


_CALL_SIGNATURE = inspect.signature(RQQueue.enqueue_call)
CALLBACKS = ("on_success", "on_failure", "on_stopped")
MAX_SHOWN = 80
JOBS_PER_CALL = 100
"""Keeps one call of `Queue.empty` well below 20 ms."""


def add_entries(queue: Queue, entries: Sequence[Entry]) -> list[Job]:
    """Enqueue jobs with their holds, all or none.

    Each goes to the queue of its `origin`, or to its run's own queue.

    Returns the jobs. If an id names an existing blocker of the same future jobs, returns that one.
    """
    jobs = [entry.job for entry in entries]
    rest, moved = call_add(queue.connection, jobs[0].id, [entry[1:] for entry in entries], jobs)
    if rest:
        fetched = {job_id: get_job(job_id, queue.connection, queue.serializer) for job_id in rest}
        jobs = [fetched.get(job.id, job) for job in jobs]
    if moved:  # to the queue that their run has for itself
        queue_by_id = {as_text(job_id): as_text(name) for job_id, name in moved}
        for job in jobs:
            job.origin = queue_by_id.get(job.id, job.origin)
    if not queue.is_async:
        for job in jobs:
            job.run_at_release(partial(run_released, queue))
            run_if_queued(queue, job)
    return jobs


def call_add(
    connection: Redis,
    first_id: str,
    described: Sequence[tuple[Shape, Own]],
    jobs: Sequence[Job] = (),
) -> tuple[list[str], list[list[Any]]]:
    """Call the script that adds jobs, all or none; lua/add.lua describes its answer.

    Args:
        first_id: the id of one of the jobs, whose key names the slot in a cluster.

    Errors: those of `Queue.enqueue`; a cycle among `jobs` is detected here.
    """
    arguments = as_arguments(described)
    word, rest, moved = "busy", [""], []
    while word == "busy":
        answer = scripts.ADD.call(connection, keys.job(first_id), *arguments)
        moved = [part for part in answer if isinstance(part, list)]
        word, *rest = (as_text(part) for part in answer if not isinstance(part, list))
        if word == "busy":  # an earlier job of that id has steps left
            finish(connection, f"abandon:{rest[0]}", f"retire:{rest[0]}")
    if word != "existing":
        raise _refusal(word, rest, jobs)
    return rest, moved


@lru_cache(maxsize=1024)
def _may_be_a_name(given: str) -> bool:
    return given.split() == [given]


def _refer(given: Any, options: dict[str, Any]) -> Any:
    """Return what is enqueued; instead of a function of the script itself, its name in a module.

    The same is done for the callbacks among the options. Errors: UsageError.
    """
    refuse_while_importing()
    _refuse_no_function(given)
    for name in CALLBACKS:
        given_function = getattr(options.get(name), "func", options.get(name))
        if is_of_script(given_function):
            timeout = getattr(options[name], "timeout", None)
            options[name] = Callback(refer(given_function), timeout)
    return refer(given) if is_of_script(given) else given


def _refuse_no_function(given: Any) -> None:
    """Raise UsageError unless the value can be a function or the name of one."""
    if isinstance(given, str):
        if _may_be_a_name(given):
            return
        what = "that is not the name of a function"
    elif callable(given) and not inspect.isclass(given):
        return
    else:
        what = "it takes a function, or its name such as 'package.module.function'"
    raise UsageError(
        f"enqueue() was given {_shorten(given)} of type {type(given).__name__}: {what}. "
        "enqueue(f()) calls f here and passes on what it returns; write enqueue(f, …)"
    )


def _shorten(value: Any) -> str:
    text = reprlib.repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _refuse_pipeline(pipeline: Pipeline | None) -> None:
    if pipeline is not None:
        raise Unsupported("a job with deferred= or blocks= cannot be enqueued in a pipeline")


def _refusal(word: str, rest: list[str], jobs: Sequence[Job]) -> Exception:
    from flowq.status import declared_name  # noqa: PLC0415 - slow, and for refusals only

    name, detail = rest[0], rest[1] if len(rest) > 1 else ""
    errors: dict[str, Exception] = {
        "missing": JobNotFound(name),
        "plain": NotAFutureJob(name),
        "closed": NotOpen(name, declared_name(detail)),
        "started": FutureAlreadyStarted(name),
        "ended": FutureEnded(name, detail),
        "self": CycleError([name, name]),
        "taken": JobIdTaken(name, detail),
        "queue": JobIdTaken(name, "a queue of that name"),
        "future": UsageError(f"the queue {name} has the name of a future job; rename one of them"),
        "duplicate": DuplicateJobError(f"Job with ID '{name}' already exists"),
        "norun": _run_refusal(name, detail),
    }
    if word == "taken" and jobs:
        return instead_of_taken(jobs, name) or errors[word]
    return errors.get(word) or FlowqError(f"unexpected answer {word!r} of the add script")


def _run_refusal(run_id: str, state: str) -> FlowqError:
    if not state or state == "purging":
        return RunNotFound(run_id)
    why = "is being canceled" if state == "canceling" else f"has ended: {state}"
    return WrongState(f"run {run_id} {why}; no job can be added to it any more")


# The default connection ---------------------------------------------------------------------


_remembered: Redis | None = None
# A forked child inherits it, which is safe: redis-py's pools notice the fork and connect anew. A
# spawned child does not: there the running job's connection, or the environment, serves.


def remember(connection: Redis | None) -> Redis | None:
    """Make a connection the default of this process, None for none; return the one before."""
    global _remembered
    before, _remembered = _remembered, connection
    return before


def forget(connection: Redis, before: Redis | None) -> None:
    """Make `before` the default again, unless another connection has become the default."""
    if _remembered is connection:
        remember(before)


def find_connection() -> Redis | None:
    """Return the connection of the job that is running here, else the default, else None."""
    job = get_current_job()
    if job is not None and job.connection is not None:
        return job.connection
    return _remembered


def need_connection(what: str) -> Redis:
    """Return what `find_connection` finds. Errors: UsageError, which says what needs it."""
    connection = find_connection()
    if connection is None:
        raise UsageError(
            f"there is no connection to a Redis server: {what} needs connection=, a running job, "
            "flowq.connect(url), or `with flowq.local(workers=2):` around the call"
        )
    return connection


@lru_cache(maxsize=128)
def get_queue(name: str, connection: Redis) -> Queue:
    """Return a queue. Queues are cached, because creating one asks the server for its version."""
    return Queue(name, connection=connection)
