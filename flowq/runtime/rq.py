"""What flowq knows of RQ's private behaviour, all in one place.

RQ's public names may be used anywhere. Its private ones (`._x`) are used here only, behind public
names; and `RELIED_ON` lists the code of RQ's that flowq overrides, copies or counts on, with the
places in flowq that have to be looked at when it changes. A test compares each digest with the
installed RQ (tests/house/test_rq.py); docs/rq.md says what was measured.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from rq.exceptions import DeserializationError
from rq.job import UNEVALUATED, JobStatus, Retry
from rq.job import Job as RQJob
from rq.queue import Queue as RQQueue
from rq.worker.base import BaseWorker, DequeueStrategy

from flowq.callables import find_callable

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline
    from rq.executions import Execution

# Nothing of these is a coroutine; to ask takes longer than to call a short function.
_PLAIN_TYPES = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})


class Call(NamedTuple):
    """A function by its name, and what it is to be called with."""

    func_name: Any
    instance: Any
    args: Any
    kwargs: Any


def make_retry(times: int, pause_s: float) -> Retry | None:
    """Return RQ's word for so many retries with a pause before each; None for no retry.

    RQ documents whole seconds, but keeps them as JSON, and counts with any number.
    """
    if times < 1:
        return None
    return Retry(times, [int(pause_s) if pause_s == int(pause_s) else pause_s])  # type: ignore[list-item]


class JobBase(RQJob):
    """RQ's job with public names for what it keeps to itself, and a quicker way to its function."""

    load_error: BaseException | None = None
    """Why the function could not be imported ahead of `perform`, which then raises it."""

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

    def mark(self, status: JobStatus) -> None:
        """Change the status in this object alone; `set_status` writes it to Redis too."""
        self._status = status

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
        name = self.func_name
        if not name or self._instance:
            return super().func
        module, _, attribute = name.rpartition(".")
        try:  # the usual way takes four times as long for a module that is imported already
            return getattr(sys.modules[module], attribute)
        except (KeyError, AttributeError):
            return find_callable(name)

    def _execute(self) -> Any:
        # As RQ's, which imports the function twice for each execution.
        if self.load_error is not None:
            raise self.load_error
        function = self.func
        if not function:
            raise ValueError("Cannot execute job: function is None")
        self.note_call()
        result = function(*self.args, **self.kwargs)
        if type(result) not in _PLAIN_TYPES:
            result = run_to_end(result)
        self.note_result(result)
        return result

    def note_call(self) -> None:
        """The function is about to be called, with `args` and `kwargs`."""

    def note_result(self, result: Any) -> None:
        """The function has returned this; what is raised here fails the job."""

    # How it is retried ----------------------------------------------------------------------

    def retry(self, queue: RQQueue, pipeline: Pipeline) -> None:
        """Queue it again, or put it on the schedule."""
        super().retry(queue, pipeline)
        self.note_retry(pipeline)

    def _handle_retry_result(
        self, queue: RQQueue, pipeline: Pipeline, *arguments: Any, **options: Any
    ) -> None:
        super()._handle_retry_result(queue, pipeline, *arguments, **options)
        self.note_retry(pipeline)

    def note_retry(self, pipeline: Pipeline) -> None:
        """In this transaction it was queued again, or put on the schedule."""

    # Its data --------------------------------------------------------------------------------

    @property
    def is_data_to_be_written(self) -> bool:
        """Whether `data` would make the bytes now, of what the job was given."""
        return self._data is UNEVALUATED and self._func_name is not UNEVALUATED

    @property
    def given_call(self) -> Call:
        """What the job was given to call; nothing is read from `data`."""
        name, instance, args, kwargs = (
            None if value is UNEVALUATED else value
            for value in (self._func_name, self._instance, self._args, self._kwargs)
        )
        return Call(name, instance, args or (), kwargs or {})

    def _deserialize_data(self) -> None:
        try:
            super()._deserialize_data()  # type: ignore[no-untyped-call]
        except DeserializationError as error:
            cause = error.__cause__
            raise DeserializationError(
                f"the arguments of job {self.id} cannot be read here: {type(cause).__name__}: "
                f"{cause}; what they are made of must be importable where workers run"
            ) from cause

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

    def _finalize_failure(
        self, job: RQJob, queue: RQQueue, execution: Execution, exc_info: ExcInfo
    ) -> None:
        self._on_failure(job, exc_info)


class Reliance(NamedTuple):
    """Code of RQ's that flowq relies on. `digest`: the first digits of the sha256 of its source.

    Shape: `places` in flowq that override, copy or count on it, as `file` or `file:name`.
    """

    source: str
    digest: str
    places: tuple[str, ...]


def _read_reliances(table: str) -> tuple[Reliance, ...]:
    rows = (entry.split() for entry in re.split(r"\n(?=\S)", table.strip()))
    return tuple(Reliance(source, digest, tuple(places)) for source, digest, *places in rows)


RELIED_ON = _read_reliances("""\
rq.job.Job.__init__ 94811c731ae32af0
    runtime/job.py:Job runtime/moulds.py:Mould workers/restoring.py:Restorer
rq.job.Job.create dcdde04c5a0562de
    runtime/copying.py:Copier
rq.job.Job.restore 859daf950a3ede0b
    runtime/job.py:restore workers/restoring.py:Restorer
rq.job.Job.to_dict 9e1a56a9cd4b57e5
    runtime/entries.py:make_entry runtime/lua/add.lua workers/restoring.py:Restorer
rq.job.Job.data 7b6b6e3c008b4eb5
    runtime/job.py:data runtime/rq.py:impersonate runtime/copying.py:Copier
    workers/restoring.py:Restorer
rq.job.Job.id ec6ba95f0a5e83db
    runtime/rq.py:given_id runtime/copying.py:new_id
rq.job.Job.func 2347dd5ec6918732
    runtime/rq.py:func
rq.job.Job._execute 653df714a38f7818
    runtime/rq.py:_execute
rq.job.Job.perform c8f482e08e17d34c
    runtime/rq.py:_execute workers/perform.py:Bench
rq.job.Job.get_status dc5acc235108e53f
    runtime/job.py:get_status
rq.job.Job.set_status a093b9649641e3ea
    runtime/job.py:set_status runtime/lua/settle.lua
rq.job.Job.prepare_for_execution 4e8e0eca634da20b
    runtime/job.py:prepare_for_execution runtime/lua/start.lua
rq.job.Job.get_result_ttl ad6db88d400dcd15
    runtime/job.py:get_result_ttl
rq.job.Job.cleanup 16734aeb1eeab579
    runtime/job.py:delete
rq.job.Job.delete 1a15005871aa9579
    runtime/job.py:delete
rq.job.Job.cancel 226071baca070f37
    runtime/job.py:cancel runtime/lua/turn_ends.lua
rq.job.Job.requeue 8f8d676e4cbe1b89
    runtime/lua/start.lua
rq.job.Job.retry 4a0f7cec2323d8a5
    runtime/rq.py:retry runtime/job.py:set_status workers/perform.py:_fails_by_rq
rq.job.Job.should_retry cf765572a37a3d7e
    runtime/job.py:should_retry workers/perform.py:_fails_by_rq
    workers/oversight.py:needs_conclusion
rq.job.Job._handle_success 35b96f8229b6053d
    runtime/job.py:set_status runtime/lua/turn_ends.lua
rq.job.Job._handle_failure 3b947507f2023ef9
    runtime/job.py:set_status runtime/lua/turn_ends.lua
rq.job.Job._handle_retry_result 9fe7cffb744aac9d
    runtime/rq.py:_handle_retry_result runtime/job.py:set_status
    workers/perform.py:_conclude_success
rq.job.Job.process_dependencies 451f1033b90b716b
    runtime/rq.py:given_dependency_ids runtime/cycles.py:refuse
rq.job.Job.register_dependency 959436aaab7842c0
    runtime/lua/jobs.lua
rq.job.Job.dependencies_are_met d42e2e9324596919
    runtime/lua/jobs.lua
rq.queue.EnqueueData 7914acc85c53467b
    runtime/copying.py:_key runtime/queue.py:HeldData
rq.queue.Queue.__init__ 44796a9afc0f3a37
    runtime/queue.py:Queue runtime/rq.py:default_timeout
rq.queue.Queue.parse_args 97d632c8a5073d4d
    runtime/queue.py:enqueue
rq.queue.Queue.prepare_data 2ed9ad0f5bc99e57
    runtime/queue.py:prepare_data
rq.queue.Queue.create_job ff1c911b7450058d
    runtime/queue.py:create_job runtime/copying.py:Copier
rq.queue.Queue.enqueue 5dfc5215dd72c482
    runtime/queue.py:enqueue
rq.queue.Queue.enqueue_call 8c2a3e885c117ead
    runtime/queue.py:enqueue_call
rq.queue.Queue.enqueue_job 05ff025c22a03128
    runtime/queue.py:enqueue_job runtime/rq.py:enqueue_by runtime/lua/add.lua
rq.queue.Queue.setup_dependencies 870dcd5fb958811a
    runtime/rq.py:setup_dependencies runtime/lua/jobs.lua
rq.queue.Queue.enqueue_many 4ae661d624a6619b
    runtime/queue.py:enqueue_many
rq.queue.Queue.enqueue_at e4681e0089cf5d03
    runtime/queue.py:enqueue_at
rq.queue.Queue.enqueue_in 79ff680ce0711536
    runtime/queue.py:enqueue_in
rq.queue.Queue.schedule_job 2596db5209e04324
    runtime/queue.py:schedule_job runtime/lua/due.lua
rq.queue.Queue._enqueue_async_job 3c3efebb37300756
    runtime/lua/add.lua runtime/lua/due.lua
rq.queue.Queue._enqueue_rate_limited_job a610af91fc148871
    runtime/rq.py:enqueue_limited workers/perform.py:queue_limited
rq.queue.Queue.run_sync 82e9fbe99b33ddaf
    runtime/inline.py:run_if_queued
rq.queue.Queue.move_dependents_to_ready a06f1e63311c17ae
    workers/perform.py:_conclude_success runtime/lua/turn_ends.lua
rq.queue.Queue.empty 4f75cf0722d55c04
    runtime/queue.py:empty runtime/lua/empty.lua
rq.queue.Queue.delete a9aad664a36e8c37
    runtime/queue.py:empty
rq.queue.Queue.release_maintenance_lock f7543e511d8eddb0
    runtime/queue.py:release_maintenance_lock
rq.queue.Queue._fetch_dequeued_job dccbf64962d1bbfc
    runtime/rq.py:_fetch_dequeued_job runtime/queue.py:may_begin runtime/lua/expired.lua
rq.group.Group.enqueue_many da2607829cd3658f
    runtime/queue.py:enqueue_many
rq.decorators.job.__call__ 7e379664ba556e82
    runtime/holds.py:take_hold_of_call
rq.worker.base.BaseWorker.__init__ 86f83bb69582aebb
    workers/worker.py:Worker runtime/rq.py:PerformingWorker
rq.worker.base.BaseWorker._set_connection 38ebd371028aad20
    runtime/rq.py:_set_connection
rq.worker.base.BaseWorker.register_birth 4690ab4f7b74ffb2
    workers/worker.py:_be_born
rq.worker.base.BaseWorker.register_death cb2b0be150213a99
    workers/worker.py:_supervise
rq.worker.base.BaseWorker.heartbeat 63b1089fd146d19c
    runtime/lua/beat.lua
rq.worker.base.BaseWorker.work 04b5cdf8e554d8a2
    workers/worker.py:work
rq.worker.base.BaseWorker.clean_registries e2c9790c8156c72c
    workers/perform.py:clean_registries
rq.worker.base.BaseWorker.prepare_execution 899b4eaa689fcf35
    runtime/lua/turn_claims.lua
rq.worker.base.BaseWorker.prepare_job_execution d08dd32962e3f82a
    runtime/rq.py:prepare_job_execution runtime/lua/turn_claims.lua
rq.worker.base.BaseWorker.perform_job 1f0e40678ae519cf
    runtime/rq.py:PerformingWorker workers/perform.py:Bench
rq.worker.base.BaseWorker._finalize_success ef21a613e8080195
    runtime/rq.py:_finalize_success workers/perform.py:_success
rq.worker.base.BaseWorker._finalize_failure 6d1b8bd1117e9641
    runtime/rq.py:_finalize_failure workers/perform.py:_failure
rq.worker.base.BaseWorker.handle_exception fffd9b2925ac1432
    workers/perform.py:_failure
rq.worker.base.BaseWorker.handle_job_success 9dda7c7d3ca18ee6
    workers/perform.py:_conclude_success runtime/lua/turn_ends.lua
rq.worker.base.BaseWorker.handle_job_failure 7432afe53b9f84ec
    workers/perform.py:_conclude runtime/lua/turn_ends.lua
rq.worker.base.BaseWorker.handle_job_retry 541a1b09523069c2
    workers/perform.py:_conclude_success
rq.worker.worker_classes.Worker.monitor_work_horse 218a5b8f3eff05cf
    workers/oversight.py
rq.executions.Execution.__init__ 991789894557baba
    workers/perform.py:_make_execution
rq.executions.Execution.create b167074a0d209e85
    runtime/lua/turn_claims.lua
rq.executions.prepare_execution e8d5a964e2a10d0c
    runtime/lua/turn_claims.lua
rq.executions.cleanup_execution 629fe089b5bf9776
    runtime/lua/turn_ends.lua
rq.results.Result.save 1433b6a45f0a3cfd
    runtime/lua/turn_ends.lua workers/ledger.py:RESULT_NUMBER
rq.results.Result.serialize fe329712c924adf8
    runtime/job.py:write_result runtime/lua/turn_ends.lua
rq.registry.BaseRegistry.add 2ae9a477b803b7db
    runtime/lua/turn_ends.lua
rq.registry.FailedJobRegistry.add f8d6dd39b765af14
    runtime/lua/turn_ends.lua
rq.registry.StartedJobRegistry.cleanup c5cd78c27fc023d6
    runtime/wip.py:WIPRegistry runtime/lua/beat.lua
rq.callbacks.execute_success_callback b019a46626bb8d57
    workers/perform.py:_success
rq.callbacks.execute_failure_callback a211adbaa743b70e
    workers/perform.py:_failure
rq.job_lifecycle.call_exception_handlers 37423ee26d84229c
    workers/perform.py:_failure
rq.job_lifecycle.record_job_failure 74724fe15e442a4e
    runtime/job.py:set_status
rq.timeouts.BaseDeathPenalty e2466980efb81666
    workers/deadline.py:AlarmDeathPenalty
rq.timeouts.UnixSignalDeathPenalty c12c03756fa3cf43
    workers/deadline.py:AlarmDeathPenalty
rq.timeouts.TimerDeathPenalty 233a60fedd4bc3b1
    workers/deadline.py:ThreadDeathPenalty
rq.command.handle_command 8b5094484df45d3b
    workers/oversight.py:obey
rq.repeat.Repeat.schedule 13d90e2b498609db
    runtime/job.py:set_status
rq.scheduler.RQScheduler.acquire_locks 4d15324e1639d356
    workers/ledger.py runtime/lua/due.lua
rq.scheduler.RQScheduler.enqueue_scheduled_jobs a31620c83110baeb
    runtime/lua/due.lua
rq.suspension.is_suspended 59141c583188a10f
    runtime/lua/turn.lua
rq.utils.utcformat c29988f57cd73de7
    runtime/scripts.py:format_instant
rq.registry.BaseRegistry.__init__ f77e06435f4f163a
    runtime/wip.py:WIPRegistry
rq.job.Job._deserialize_data 00c06178d415b147
    runtime/rq.py:_deserialize_data
rq.job.Job._serialize_meta a37dc4e7809ef841
    runtime/rq.py:_serialize_meta
rq.job.Job.fetch 4c0184a10a6ca526
    runtime/job.py:fetch
rq.queue.Queue.fetch_job 063ad9f184a917dd
    runtime/queue.py:fetch_job
""")
"""After a change of RQ's: read its source, then each place, then write the new digest here."""
