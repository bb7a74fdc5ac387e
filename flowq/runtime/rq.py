"""What flowq knows of RQ's private behaviour, all in one place.

RQ's public names may be used anywhere. Its private ones (`._x`) are used here only, behind public
names. The code of RQ's that flowq overrides, copies or counts on is listed in rq_sources.py;
docs/rq.md says what was measured.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import rq.worker.base
from rq.exceptions import DeserializationError
from rq.job import UNEVALUATED, JobStatus, Retry
from rq.job import Job as RQJob
from rq.queue import Queue as RQQueue
from rq.worker.base import BaseWorker, DequeueStrategy

from flowq.allowed import restriction
from flowq.callables import find_callable, find_method
from flowq.errors import NotAllowed

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline
    from rq.executions import Execution

# Nothing of these is a coroutine; to ask takes longer than to call a short function.
_PLAIN_TYPES = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})


POLICY_FIELD = "flowq_retry"
"""The field of a job's hash that has its `retry_policy`."""


class Call(NamedTuple):
    """A function by its name, and what it is to be called with."""

    func_name: Any
    instance: Any
    args: Any
    kwargs: Any


class PolicyRetry(Retry):
    """RQ's word for retries, with the policy that flowq's jobs keep beside it.

    Where only RQ is at work the number and the pauses are all there is.
    """

    def __init__(self, times: int, pauses_s: Sequence[float], policy: str) -> None:
        # RQ documents whole seconds, but keeps them as JSON, and counts with any number.
        super().__init__(times, [int(s) if s == int(s) else s for s in pauses_s])  # type: ignore[misc]
        self.policy = policy


def make_retry(times: int, pauses_s: Sequence[float], policy: str = "") -> Retry | None:
    """Return RQ's word for so many retries with these pauses; None for no retry."""
    return PolicyRetry(times, pauses_s, policy) if times > 0 else None


class JobBase(RQJob):
    """RQ's job with public names for what it keeps to itself, and a quicker way to its function."""

    _load_error: BaseException | None = None
    """Why the function could not be imported before `perform`, which raises it."""
    retry_policy: str = ""
    """What is said about retries beyond RQ's words (`flowq.runtime.policies`), if anything is."""
    has_just_ended: bool = False
    """RQ's `perform_job` has ended it here; its status here is right before Redis knows it."""

    def to_dict(self, *arguments: Any, **options: Any) -> dict[Any, Any]:
        """Return the fields of the job's hash."""
        fields = super().to_dict(*arguments, **options)
        if self.retry_policy:
            fields[POLICY_FIELD] = self.retry_policy
        return fields

    @property
    def given_id(self) -> str | None:
        """The id, or None when the job has none yet; `id` would make one."""
        return self._id

    @property
    def given_dependency_ids(self) -> list[str]:
        """What the job was told to depend on; `dependency_ids` asks Redis what is registered."""
        return self._dependency_ids

    @property
    def has_success_callback(self) -> bool:
        """Whether there is one; `success_callback` would import it."""
        return bool(self._success_callback_name)

    @property
    def has_failure_callback(self) -> bool:
        """Whether there is one; `failure_callback` would import it."""
        return bool(self._failure_callback_name)

    @property
    def has_outcome(self) -> bool:
        """Whether the job's hash held a result or an error, as older versions of RQ wrote it."""
        return bool(self._result or self._exc_info)

    @property
    def success_callback(self) -> Any:
        """The callback, found as a function of a job is; None where there is none."""
        if self._success_callback is UNEVALUATED and self._success_callback_name:
            self._success_callback = find_callable(self._success_callback_name)
        return super().success_callback

    @property
    def failure_callback(self) -> Any:
        """The callback, found as a function of a job is; None where there is none."""
        if self._failure_callback is UNEVALUATED and self._failure_callback_name:
            self._failure_callback = find_callable(self._failure_callback_name)
        return super().failure_callback

    @property
    def stopped_callback(self) -> Any:
        """The callback, found as a function of a job is; None where there is none."""
        if self._stopped_callback is UNEVALUATED and self._stopped_callback_name:
            self._stopped_callback = find_callable(self._stopped_callback_name)
        return super().stopped_callback

    @property
    def has_unreadable_meta(self) -> bool:
        """Whether `meta` could not be read: RQ goes on with something else in its place."""
        return self._unreadable_meta is not None

    def read_meta(self) -> Any:
        """Read it again, and raise why it cannot be read."""
        return self.serializer.loads(self._unreadable_meta or b"")

    def mark(self, status: JobStatus) -> None:
        """Change the status in this object alone; `set_status` writes it to Redis too."""
        self._status = status

    def mark_finished(self) -> bool:
        """Note a success in this object alone; return whether there is a callback for that."""
        self._status = JobStatus.FINISHED
        return bool(self._success_callback_name)

    def keep_result(self, value: Any) -> None:
        """Change the result in this object, where RQ's own code will look for it."""
        self._result = value

    def identify(self, job_id: str) -> None:
        """Give it an id that is known to be valid; setting `id` would check it."""
        self._id = job_id

    def impersonate(self, job_id: str, data: bytes) -> None:
        """Make a copy of another job, of which nothing was read from its data, into this job."""
        self._id = job_id
        self._data = data

    @property
    def func(self) -> Any:
        """The function, found anew each time: a job may have reloaded its module."""
        name: Any = self._func_name
        if name is UNEVALUATED:
            name = self.func_name
        is_restricted = restriction() is not None
        if not name or self._instance:
            return find_method(self._instance, name) if is_restricted and name else super().func
        if is_restricted:
            return find_callable(name)
        module, _, attribute = name.rpartition(".")
        try:  # the usual way takes four times as long for a module that is imported already
            return getattr(sys.modules[module], attribute)
        except (KeyError, AttributeError):
            return find_callable(name)

    def _execute(self) -> Any:
        self.note_start()
        try:
            return self._call()
        except BaseException as error:
            self.note_failure(error)
            raise

    def note_load_error(self, error: BaseException) -> None:
        """Note why the function could not be imported; `perform` raises that."""
        self._load_error = error

    def note_start(self) -> None:
        """The job is about to be executed in this process."""

    def note_failure(self, error: BaseException | None) -> None:
        """The execution has raised this."""

    def _call(self) -> Any:
        # As RQ's `_execute`, which imports the function twice for each execution.
        if self._load_error is not None:
            raise self._load_error
        function = self.func
        if not function:
            raise ValueError("Cannot execute job: function is None")
        arguments, options = self.args, self.kwargs
        if options:
            self.note_call(options)
        result = function(*arguments, **options)
        if type(result) not in _PLAIN_TYPES:
            result = run_to_end(result)
        if result is not None:
            self.note_result(result)
        return result

    def note_call(self, options: dict[str, Any]) -> None:
        """The function is about to be called with these arguments by name."""

    def note_result(self, result: Any) -> None:
        """The function has returned this, which is not None; what is raised here fails the job."""

    def _handle_success(self, *arguments: Any, **options: Any) -> None:
        result = self._result
        self._result = self.find_kept(result)
        super()._handle_success(*arguments, **options)
        self._result = result

    def find_kept(self, result: Any) -> Any:
        """Return what is kept of the result: itself, or what takes its place."""
        return result

    # How it is retried ----------------------------------------------------------------------

    def retry(self, queue: RQQueue, pipeline: Pipeline) -> None:
        """Queue it again, or put it on the schedule."""
        super().retry(queue, pipeline)
        self.note_retry(pipeline)

    def _handle_retry_result(
        self, queue: RQQueue, pipeline: Pipeline, retry: Retry, *arguments: Any, **options: Any
    ) -> None:
        if self.is_held_by(retry, pipeline):
            return
        super()._handle_retry_result(queue, pipeline, retry, *arguments, **options)
        self.note_retry(pipeline)

    def is_held_by(self, retry: Retry, pipeline: Pipeline) -> bool:
        """Hold the job in this transaction if that was returned, and no retry; say whether."""
        return False

    def note_retry(self, pipeline: Pipeline) -> None:
        """In this transaction it was queued again, or put on the schedule."""

    # Its data --------------------------------------------------------------------------------

    @property
    def data(self) -> bytes:
        """The function's name and the arguments as bytes; what `write_data` raises."""
        data: Any = self._data
        return self.write_data() if data is UNEVALUATED else data

    @data.setter
    def data(self, value: bytes) -> None:
        """Replace them by bytes that were read."""
        RQJob.data.fset(self, value)  # type: ignore[attr-defined]  # mypy takes it for its value

    @property
    def is_described(self) -> bool:
        """Whether the job was given what to call, so that `data` can be made of that."""
        return self._func_name is not UNEVALUATED

    dump_call: ClassVar[Callable[[JobBase], bytes]] = RQJob.data.fget  # type: ignore[attr-defined]
    """Make the bytes of what the job was given, and keep them; RQ's own way."""

    def write_data(self) -> bytes:
        """Do that, and say what is wrong where it fails."""
        return self.dump_call()

    @property
    def given_call(self) -> Call:
        """What the job was given to call; nothing is read from `data`."""
        name, instance, args, kwargs = (
            None if value is UNEVALUATED else value
            for value in (self._func_name, self._instance, self._args, self._kwargs)
        )
        return Call(name, instance, args or (), kwargs or {})

    def _deserialize_data(self) -> None:
        # As RQ's, whose error says nothing.
        try:
            parts = self.serializer.loads(self.data)
            self._func_name, self._instance, self._args, self._kwargs = parts
        except NotAllowed:
            raise
        except Exception as error:
            raise DeserializationError(
                f"the arguments of job {self.id} cannot be read here: {type(error).__name__}: "
                f"{error}; what they are made of must be importable where workers run"
            ) from error

    def write_meta(self) -> bytes:
        """Return `meta` as bytes."""
        return super()._serialize_meta()

    def _serialize_meta(self) -> bytes:
        return self.write_meta()


class _StandIn:
    """A pipeline and then a deferred job for RQ's `enqueue_job`, so that it does nothing more."""

    def __init__(self, add: Callable[[], RQJob]) -> None:
        self.add = add
        self.added: RQJob | None = None

    def sadd(self, *_: Any) -> None:
        """The queue's name is written by the script that adds the job."""

    def get_status(self, refresh: bool = True) -> JobStatus:
        """It must not be queued."""
        return JobStatus.DEFERRED


def run_to_end(result: Any) -> Any:
    """Return what a call results in: of a coroutine what it returns at its end. Blocks for that."""
    # Not `asyncio.iscoroutine`, which takes generators for coroutines before Python 3.12.
    return asyncio.run(result) if isinstance(result, Coroutine) else result


class QueueBase(RQQueue):
    """RQ's queue with public names for what it keeps to itself."""

    def create_job(self, *arguments: Any, **options: Any) -> RQJob:
        """Make a job, with the policy that its retries bring."""
        job = super().create_job(*arguments, **options)
        policy = getattr(options.get("retry"), "policy", "")
        if policy and isinstance(job, JobBase):
            job.retry_policy = policy
        return job

    @property
    def default_timeout(self) -> Any:
        """The timeout of jobs that are given none. Units: seconds."""
        return self._default_timeout

    def enqueue_limited(self, job: RQJob, pipeline: Pipeline, *, at_front: bool) -> None:
        """Queue a job that has a rate limit, or let it wait for its turn.

        `enqueue_job` refuses a pipeline for such a job.
        """
        self._enqueue_rate_limited_job(job, pipeline=pipeline, at_front=at_front)

    def enqueue_by(self, job: RQJob, add: Callable[[], RQJob]) -> RQJob:
        """Let `add` do all that RQ's `enqueue_job` does, inside a call of that: tools wrap it."""
        stand_in = _StandIn(add)
        super().enqueue_job(job, pipeline=cast(Any, stand_in))
        assert stand_in.added is not None
        return stand_in.added

    def setup_dependencies(self, job: RQJob, pipeline: Pipeline | None = None) -> RQJob:
        """Register the job with what it depends on, or say that it is deferred."""
        if not isinstance(pipeline, _StandIn):
            return super().setup_dependencies(job, pipeline=pipeline)
        pipeline.added = pipeline.add()
        return cast(Any, pipeline)

    @classmethod
    def note_expired(cls, connection: Redis, job_id: str) -> None:
        """A job was popped whose hash had expired (its `ttl`). RQ passes over it silently."""

    @classmethod
    def may_begin(cls, job: RQJob) -> bool:
        """Whether a job that was popped is to be executed; one that is not has been ended."""
        return True

    @classmethod
    def _fetch_dequeued_job(
        cls,
        connection: Redis,
        queue_key: str,
        job_id: str,
        job_class: Any = None,
        serializer: Any = None,
        death_penalty_class: Any = None,
    ) -> tuple[RQJob, RQQueue] | None:
        fetched = super()._fetch_dequeued_job(
            connection,
            queue_key,
            job_id,
            job_class=job_class,
            serializer=serializer,
            death_penalty_class=death_penalty_class,
        )
        if fetched is None:
            cls.note_expired(connection, job_id)
        elif not cls.may_begin(fetched[0]):
            return None  # the worker looks for another one
        return fetched


def explain_key_prefix(given: type, name: str, default: str) -> str:
    """Say why a class with keys of its own cannot be used: scripts and workers know RQ's only."""
    return (
        f"{given.__qualname__}.{name} is {getattr(given, name)!r}; flowq knows keys under "
        f"{default!r} only. Leave it as it is: RQ_KEY_PREFIX in the environment changes the prefix "
        "of all keys of RQ and flowq"
    )


class WorkerBase(BaseWorker):
    """RQ's worker with public names for what it keeps to itself."""

    def _set_connection(self, connection: Redis) -> Redis:
        return connection  # nothing of ours blocks for minutes, so no timeout has to be raised

    @property
    def serializer_name(self) -> str | None:
        """The serializer as it was given, by name; None for RQ's own."""
        return self._serializer_arg

    @property
    def exception_handlers(self) -> list[Callable[..., Any]]:
        """The exception handlers, in the order of their calls."""
        return self._exc_handlers

    @property
    def dequeue_strategy(self) -> DequeueStrategy:
        """In which order the queues are looked at."""
        return self._dequeue_strategy or DequeueStrategy.DEFAULT

    def set_dequeue_strategy(self, strategy: DequeueStrategy) -> None:
        """Set the order in which the queues are looked at."""
        self._dequeue_strategy = strategy

    def note_stopped(self, job_id: str) -> None:
        """Let `handle_job_failure` write STOPPED for that job."""
        self._stopped_job_id = job_id


class _NoLogger(logging.Logger):
    """Says nothing, and takes no time to find that out: RQ logs twice for each job."""

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Say nothing."""


_NO_LOG = _NoLogger("rq.worker", logging.CRITICAL + 1)

ExcInfo = tuple[Any, Any, Any]


def _find_rqs_perform_job() -> Any:
    """Return RQ's `perform_job`; None when a tool has wrapped it before this module was loaded."""
    found: Any = BaseWorker.perform_job
    is_rqs = type(found) is FunctionType and found.__globals__ is vars(rq.worker.base)
    return found if is_rqs else None


RQS_PERFORM_JOB = _find_rqs_perform_job()
"""Another function is there where a tool has wrapped it."""


class PerformingWorker(WorkerBase):
    """RQ's worker where a job runs: RQ's `perform_job`, while flowq writes how the job began and
    how it ended.

    Sentry, Datadog and others wrap `perform_job` and `handle_exception` of RQ's worker, and
    `Job.perform`. `perform_job` calls the others, and `on_failure` has to call
    `handle_exception` as RQ does; so each of them is called once for each execution.
    """

    def __init__(
        self,
        name: str,
        *,
        on_start: Callable[[], None],
        on_success: Callable[[Any, Any], None],
        on_failure: Callable[[Any, ExcInfo], None],
        make_timeout: Any,
        **options: Any,
    ) -> None:
        super().__init__([], name, prepare_for_work=False, **options)
        self._on_start = on_start
        self._on_success = on_success
        self._on_failure = on_failure
        self.death_penalty_class = make_timeout
        self._is_horse = True  # so that Sentry sends what it has before this process may end
        # The supervisor logs what handle_exception would log here, into the output of the job.
        self.log = _NO_LOG

    def prepare_job_execution(
        self, job: RQJob, remove_from_intermediate_queue: bool = False
    ) -> None:
        """Write nothing: the script that claimed the job has written that it is started."""
        self._on_start()

    def _finalize_success(
        self, job: RQJob, queue: RQQueue, execution: Execution, return_value: Any
    ) -> None:
        self._on_success(job, return_value)
        cast(JobBase, job).has_just_ended = True

    def _finalize_failure(
        self, job: RQJob, queue: RQQueue, execution: Execution, exc_info: ExcInfo
    ) -> None:
        self._on_failure(job, exc_info)
        cast(JobBase, job).has_just_ended = True
