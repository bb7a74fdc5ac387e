"""Everything that flowq knows of RQ's private code.

RQ's public names may be used anywhere, its private ones (`._x`) only here, behind public names.
rq_sources.py lists the code of RQ that flowq overrides, copies or relies on; docs/rq.md has what
was measured.
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

from flowq import texts
from flowq.allowed import restriction
from flowq.callables import find_callable, find_method
from flowq.errors import NotAllowed
from flowq.importing import importing

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline
    from rq.executions import Execution

# None of these is a coroutine. The check takes longer than the call of a short function.
_PLAIN_TYPES = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})


POLICY_FIELD = "flowq_retry"
"""The field of a job's hash with its `retry_policy`."""


class Call(NamedTuple):
    """The name of a function, and the arguments for it."""

    func_name: Any
    instance: Any
    args: Any
    kwargs: Any


class PolicyRetry(Retry):
    """RQ's object for retries, with a policy for flowq's jobs.

    RQ's own workers know only the number and the pauses.
    """

    def __init__(self, times: int, pauses_s: Sequence[float], policy: str) -> None:
        # RQ documents whole seconds, but stores them as JSON, and accepts any number.
        super().__init__(times, [int(s) if s == int(s) else s for s in pauses_s])  # type: ignore[misc]
        self.policy = policy


def make_retry(times: int, pauses_s: Sequence[float], policy: str = "") -> Retry | None:
    """Return RQ's object for so many retries with these pauses; None for no retry."""
    return PolicyRetry(times, pauses_s, policy) if times > 0 else None


def _import_callable(name: Any) -> Any:
    with importing():
        return find_callable(name)


class JobBase(RQJob):
    """RQ's job, with public names for its private attributes and a faster way to its function."""

    _load_error: BaseException | None = None
    """Why the function could not be imported before `perform`, which raises it."""
    retry_policy: str = ""
    """The part of the retries that RQ has no options for (`flowq.runtime.policies`)."""
    has_just_ended: bool = False
    """RQ's `perform_job` has ended it in this process. Redis does not have the status yet."""

    def to_dict(self, *arguments: Any, **options: Any) -> dict[Any, Any]:
        """Return the fields of the job's hash."""
        fields = super().to_dict(*arguments, **options)
        if self.retry_policy:
            fields[POLICY_FIELD] = self.retry_policy
        return fields

    @property
    def given_id(self) -> str | None:
        """The id, or None if the job has none yet (`id` would make one)."""
        return self._id

    @property
    def given_dependency_ids(self) -> list[str]:
        """The given dependencies (`dependency_ids` would read the registered ones from Redis)."""
        return self._dependency_ids

    @property
    def has_success_callback(self) -> bool:
        """Whether there is one (`success_callback` would import it)."""
        return bool(self._success_callback_name)

    @property
    def has_failure_callback(self) -> bool:
        """Whether there is one (`failure_callback` would import it)."""
        return bool(self._failure_callback_name)

    @property
    def has_outcome(self) -> bool:
        """Whether the job's hash held a result or an error, as older versions of RQ wrote it."""
        return bool(self._result or self._exc_info)

    @property
    def success_callback(self) -> Any:
        """The callback, looked up like a job's function; None if there is none."""
        if self._success_callback is UNEVALUATED and self._success_callback_name:
            self._success_callback = _import_callable(self._success_callback_name)
        return super().success_callback

    @property
    def failure_callback(self) -> Any:
        """The callback, looked up like a job's function; None if there is none."""
        if self._failure_callback is UNEVALUATED and self._failure_callback_name:
            self._failure_callback = _import_callable(self._failure_callback_name)
        return super().failure_callback

    @property
    def stopped_callback(self) -> Any:
        """The callback, looked up like a job's function; None if there is none."""
        if self._stopped_callback is UNEVALUATED and self._stopped_callback_name:
            self._stopped_callback = _import_callable(self._stopped_callback_name)
        return super().stopped_callback

    @property
    def has_unreadable_meta(self) -> bool:
        """Whether `meta` could not be read; RQ then goes on with a substitute."""
        return self._unreadable_meta is not None

    def read_meta(self) -> Any:
        """Read `meta` again, which raises the error."""
        return self.serializer.loads(self._unreadable_meta or b"")

    def mark(self, status: JobStatus) -> None:
        """Change the status in this object only (`set_status` would write it to Redis)."""
        self._status = status

    def mark_finished(self) -> bool:
        """Note a success in this object only; return whether there is a success callback."""
        self._status = JobStatus.FINISHED
        return bool(self._success_callback_name)

    def keep_result(self, value: Any) -> None:
        """Set the result in this object, from which RQ's code takes it."""
        self._result = value

    def identify(self, job_id: str) -> None:
        """Set an id that is known to be valid (setting `id` would check it)."""
        self._id = job_id

    def impersonate(self, job_id: str, data: bytes) -> None:
        """Turn a copy of another job, whose data was not read yet, into this job."""
        self._id = job_id
        self._data = data

    @property
    def func(self) -> Any:
        """The function. It is looked up each time, because a job may have reloaded its module."""
        name: Any = self._func_name
        if name is UNEVALUATED:
            name = self.func_name
        is_restricted = restriction() is not None
        if not name or self._instance:
            return find_method(self._instance, name) if is_restricted and name else super().func
        if is_restricted:
            return _import_callable(name)
        module, _, attribute = name.rpartition(".")
        try:  # for an imported module, four times as fast as `find_callable`
            return getattr(sys.modules[module], attribute)
        except (KeyError, AttributeError):
            return _import_callable(name)

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
        """Called before the job is executed in this process."""

    def note_failure(self, error: BaseException | None) -> None:
        """Called with the error that the execution raised."""

    def _call(self) -> Any:
        # As in RQ's `_execute`, which looks the function up twice for each execution.
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
        """Called with the keyword arguments before the function is called."""

    def note_result(self, result: Any) -> None:
        """Called with a result that is not None. An error here fails the job."""

    def _handle_success(self, *arguments: Any, **options: Any) -> None:
        result = self._result
        self._result = self.find_kept(result)
        super()._handle_success(*arguments, **options)
        self._result = result

    def find_kept(self, result: Any) -> Any:
        """Return the result to store: itself, or a substitute."""
        return result

    def _handle_failure(self, exc_string: str, *arguments: Any, **options: Any) -> None:
        # An error may quote a file name that is not UTF-8, or half a surrogate pair. redis-py
        # cannot encode such a text, and RQ would leave the job unended.
        super()._handle_failure(texts.show(exc_string), *arguments, **options)

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
        """Hold the job in this transaction, if the job returned this; return whether it did."""
        return False

    def note_retry(self, pipeline: Pipeline) -> None:
        """Called with the transaction that queues or schedules a retry."""

    # Its data --------------------------------------------------------------------------------

    @property
    def data(self) -> bytes:
        """The call as bytes. Raises errors of `write_data`."""
        data: Any = self._data
        return self.write_data() if data is UNEVALUATED else data

    @data.setter
    def data(self, value: bytes) -> None:
        """Set bytes that were read from Redis."""
        RQJob.data.fset(self, value)  # type: ignore[attr-defined]  # mypy takes it for its value

    @property
    def is_described(self) -> bool:
        """Whether the job has a call from which `data` can be made."""
        return self._func_name is not UNEVALUATED

    dump_call: ClassVar[Callable[[JobBase], bytes]] = RQJob.data.fget  # type: ignore[attr-defined]
    """RQ's own function: serialize the call, and keep the bytes."""

    def write_data(self) -> bytes:
        """Serialize the call. Subclasses explain errors."""
        return self.dump_call()

    @property
    def given_call(self) -> Call:
        """The call that the job was given, without reading `data`."""
        name, instance, args, kwargs = (
            None if value is UNEVALUATED else value
            for value in (self._func_name, self._instance, self._args, self._kwargs)
        )
        return Call(name, instance, args or (), kwargs or {})

    def _deserialize_data(self) -> None:
        # As in RQ, whose error has no explanation.
        try:
            parts = self.serializer.loads(self.data)
            self._func_name, self._instance, self._args, self._kwargs = parts
        except NotAllowed:
            raise
        except Exception as error:
            raise DeserializationError(
                f"the arguments of job {self.id} cannot be read here: {type(error).__name__}: "
                f"{error}; their classes must be importable where workers run"
            ) from error

    def write_meta(self) -> bytes:
        """Return `meta` as bytes."""
        return super()._serialize_meta()

    def _serialize_meta(self) -> bytes:
        return self.write_meta()


class _StandIn:
    """Takes the place of the pipeline and the job in RQ's `enqueue_job`, so that RQ enqueues
    nothing itself."""

    def __init__(self, add: Callable[[], RQJob]) -> None:
        self.add = add
        self.added: RQJob | None = None

    def sadd(self, *_: Any) -> None:
        """Do nothing: the script that adds the job registers the queue."""

    def get_status(self, refresh: bool = True) -> JobStatus:
        """Return DEFERRED, so that RQ does not queue it."""
        return JobStatus.DEFERRED


def run_to_end(result: Any) -> Any:
    """Return the value, or run a coroutine to its end and return its value. Blocks."""
    # Not `asyncio.iscoroutine`, which takes generators for coroutines before Python 3.12.
    return asyncio.run(result) if isinstance(result, Coroutine) else result


class QueueBase(RQQueue):
    """RQ's queue, with public names for its private attributes."""

    def create_job(self, *arguments: Any, **options: Any) -> RQJob:
        """Make a job, with the policy of its retries."""
        job = super().create_job(*arguments, **options)
        policy = getattr(options.get("retry"), "policy", "")
        if policy and isinstance(job, JobBase):
            job.retry_policy = policy
        return job

    @property
    def default_timeout(self) -> Any:
        """The timeout of jobs that have none, in seconds."""
        return self._default_timeout

    def enqueue_limited(self, job: RQJob, pipeline: Pipeline, *, at_front: bool) -> None:
        """Queue a job that has a rate limit, or make it wait.

        RQ's `enqueue_job` refuses a pipeline for such a job.
        """
        self._enqueue_rate_limited_job(job, pipeline=pipeline, at_front=at_front)

    def enqueue_by(self, job: RQJob, add: Callable[[], RQJob]) -> RQJob:
        """Call `add` instead of RQ's code, but inside of RQ's `enqueue_job`, which tools wrap."""
        stand_in = _StandIn(add)
        super().enqueue_job(job, pipeline=cast(Any, stand_in))
        assert stand_in.added is not None
        return stand_in.added

    def setup_dependencies(self, job: RQJob, pipeline: Pipeline | None = None) -> RQJob:
        """Register the job with its dependencies; for a stand-in, add the job."""
        if not isinstance(pipeline, _StandIn):
            return super().setup_dependencies(job, pipeline=pipeline)
        pipeline.added = pipeline.add()
        return cast(Any, pipeline)

    @classmethod
    def note_expired(cls, connection: Redis, job_id: str) -> None:
        """Called for a dequeued job whose hash has expired (its `ttl`). RQ ignores it silently."""

    @classmethod
    def may_begin(cls, job: RQJob) -> bool:
        """Whether to execute a dequeued job. If False, the job has been ended."""
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
            return None  # the worker takes the next one
        return fetched


def explain_key_prefix(given: type, name: str, default: str) -> str:
    """Return why a class with its own key prefix cannot be used: scripts know only RQ's keys."""
    return (
        f"{given.__qualname__}.{name} is {getattr(given, name)!r}; flowq knows keys under "
        f"{default!r} only. Leave it as it is: RQ_KEY_PREFIX in the environment changes the prefix "
        "of all keys of RQ and flowq"
    )


class WorkerBase(BaseWorker):
    """RQ's worker, with public names for its private attributes."""

    def _set_connection(self, connection: Redis) -> Redis:
        return connection  # RQ would raise its timeout for commands that block for minutes

    @property
    def serializer_name(self) -> str | None:
        """The name of the given serializer; None for RQ's own."""
        return self._serializer_arg

    @property
    def exception_handlers(self) -> list[Callable[..., Any]]:
        """The exception handlers, in the order of their calls."""
        return self._exc_handlers

    @property
    def dequeue_strategy(self) -> DequeueStrategy:
        """The order in which jobs are taken from the queues."""
        return self._dequeue_strategy or DequeueStrategy.DEFAULT

    def set_dequeue_strategy(self, strategy: DequeueStrategy) -> None:
        """Set the order in which jobs are taken from the queues."""
        self._dequeue_strategy = strategy

    def note_stopped(self, job_id: str) -> None:
        """Have `handle_job_failure` write STOPPED for that job."""
        self._stopped_job_id = job_id


class _NoLogger(logging.Logger):
    """Logs nothing, without checking levels: RQ logs twice for each job."""

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Do nothing."""


_NO_LOG = _NoLogger("rq.worker", logging.CRITICAL + 1)

ExcInfo = tuple[Any, Any, Any]


def _find_rqs_perform_job() -> Any:
    """Return RQ's `perform_job`; None if a tool wrapped it before this module was imported."""
    found: Any = BaseWorker.perform_job
    is_rqs = type(found) is FunctionType and found.__globals__ is vars(rq.worker.base)
    return found if is_rqs else None


RQS_PERFORM_JOB = _find_rqs_perform_job()
"""If `PerformingWorker.perform_job` is another function, a tool has wrapped it."""


class PerformingWorker(WorkerBase):
    """Executes jobs by RQ's `perform_job`, while flowq records how they begin and end.

    Sentry, Datadog and others wrap `perform_job` and `handle_exception` of RQ's worker, and
    `Job.perform`. `perform_job` calls `Job.perform`, and `on_failure` must call `handle_exception`
    as RQ does, so that each is called once for each execution.
    """

    def __init__(
        self,
        name: str,
        *,
        on_start: Callable[[Any], None],
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
        self._is_horse = True  # makes Sentry flush its events before this process may end
        # The supervisor logs failures; handle_exception would log them into the job's output.
        self.log = _NO_LOG

    def prepare_job_execution(
        self, job: RQJob, remove_from_intermediate_queue: bool = False
    ) -> None:
        """Write nothing: the script that claimed the job has set its status."""
        self._on_start(job)

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
