"""`flowq.Worker`: the interface of RQ's worker, implemented by a supervisor with children."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.job import Job as RQJob
from rq.queue import Queue as RQQueue
from rq.worker.base import DequeueStrategy, WorkerStatus

from flowq.allowed import read_allowed
from flowq.callables import NameMissing, NotCallable, find_callable
from flowq.errors import UsageError
from flowq.runtime import keys
from flowq.runtime.connections import (
    MAX_WAIT_S,
    Outage,
    refuse_unusable,
    retry_while_unavailable,
)
from flowq.runtime.job import Job
from flowq.runtime.listening import find_living
from flowq.runtime.maintenance import Finding, Lease, examine, find_suspects, read_lease, tidy
from flowq.runtime.queue import Queue
from flowq.runtime.rq import WorkerBase, explain_key_prefix
from flowq.workers import logs
from flowq.workers.address import Address, address_of
from flowq.workers.children import Pool
from flowq.workers.estimates import Estimates
from flowq.workers.messages import Settings
from flowq.workers.monitor import Monitor
from flowq.workers.periodic import PeriodicWork
from flowq.workers.processes import START_METHODS, Mode
from flowq.workers.redis_side import RedisSide
from flowq.workers.scratch_folder import ScratchFolder, sweep
from flowq.workers.supervisor import Limits, Supervisor
from flowq.workers.wakeup import Wakeup

if TYPE_CHECKING:
    from redis import Redis

Result = TypeVar("Result")

SECOND_SIGNAL_S = 0.2
"""A later signal within this time is ignored: one Ctrl-C may come from the terminal and from a
parent process."""

log = logging.getLogger("rq.worker")


def default_mode() -> Mode:
    """Return the default start method: fork, where the platform has it."""
    return "fork" if hasattr(os, "fork") else "multiprocessing"


class Worker(WorkerBase):
    """Runs the jobs of some queues, `concurrency` at a time, each in a child process.

    Args:
        queues: in order of priority.
        mode: "fork" forks for each job, as RQ does; "multiprocessing" keeps spawned children, on
            every platform; "warm" keeps forked ones.
        max_jobs_per_child: replace a kept child after so many jobs.
        timeout_grace_s: how long a job may go on after its timeout was raised, before it is killed.
        max_crashes: how often a job is started again if its worker is lost.
        batches: False hands short jobs over one by one.
        preload: modules to import before the first job. With mode="fork" they are imported once,
            and all jobs share the objects that they made at import.
        captures: store what jobs of runs print, and print what others do when they end; else it all
            goes to the worker's own output at once.
        echoes: jobs of runs print to the worker's own output, too, when they end.
        can_rest: have children only while there is work.
        allow: what jobs may execute, such as "shop.*" or "shop.billing.charge" (docs/security.md);
            `allow_run` admits commands. The default is everything, unless FLOWQ_ALLOW or
            FLOWQ_ALLOW_RUN is set; `allow=[]` is everything in any case.
        lease_s: instead of FLOWQ_LEASE. Less than the default is safe only if all workers of the
            server have it.
        options: as in `rq.Worker`.

    Errors: UsageError; ValueError for a name that is in use.
    """

    queue_class = Queue
    job_class = Job
    mode: Mode | None = None

    def __init__(
        self,
        queues: Any,
        name: str | None = None,
        *,
        connection: Redis | None = None,
        concurrency: int = 1,
        mode: Mode | None = None,
        max_jobs_per_child: int | None = None,
        timeout_grace_s: float = 5.0,
        max_crashes: int = 2,
        batches: bool = True,
        paths: Sequence[str] = (),
        preload: Sequence[str] = (),
        echoes: bool = True,
        captures: bool = True,
        can_rest: bool = False,
        allow: Sequence[str] | None = None,
        allow_run: bool = False,
        lease_s: float | None = None,
        job_class: Any = None,
        queue_class: Any = None,
        **options: Any,
    ) -> None:
        mode = mode or self.mode or default_mode()
        _check_options(mode, concurrency, options)
        queues = list(queues) if isinstance(queues, list | tuple | set) else [queues]
        if connection is None and queues and isinstance(queues[0], RQQueue):
            connection = queues[0].connection
        if connection is not None:
            refuse_unusable(connection)
        super().__init__(
            [queue.name if isinstance(queue, RQQueue) else queue for queue in queues],
            name,
            connection=connection,
            job_class=_choose_class(job_class or self.job_class, RQJob, Job),
            queue_class=_choose_class(queue_class or self.queue_class, RQQueue, Queue),
            **options,
        )
        self.mode = mode
        self.concurrency = concurrency
        self.max_jobs_per_child = max_jobs_per_child
        self.timeout_grace_s = timeout_grace_s
        self.max_crashes = max_crashes
        self.batches = batches
        self.paths = tuple(paths)
        self.preload = tuple(preload)
        self.echoes = echoes
        self.captures = captures
        self.can_rest = can_rest
        self.allowed = read_allowed(allow, allow_run, os.environ)
        """What jobs may execute; None for everything."""
        self.lease = read_lease(os.environ) if lease_s is None else Lease(lease_s)
        self.has_reached_limit = False
        """Whether `work` ended because of a limit: of jobs, or of idle time."""
        self._signaled_at = 0.0
        self._supervisor: Supervisor | None = None
        self._json_log_level = ""

    def work(
        self,
        burst: bool = False,
        logging_level: str | None = None,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = True,
        dequeue_strategy: Any = None,
        *,
        until: Callable[[], bool] | None = None,
    ) -> bool:
        """Work until a limit is reached or a signal arrives; return whether any job was done.

        `burst` ends the worker when the queues are empty, `until` (called between jobs) when it
        returns True. Scheduled jobs are always included, whatever `with_scheduler` says.
        `log_format="json"` writes one JSON object a line (`flowq.workers.logs`).
        """
        logs.set_up(logging_level, date_format, log_format)
        if log_format == logs.JSON:
            self._json_log_level = logging_level or "INFO"
        self.set_dequeue_strategy(DequeueStrategy(dequeue_strategy or "default"))
        limits = Limits(burst, max_jobs, max_idle_time, until)
        sweep()
        scratch = ScratchFolder() if self.captures else None
        try:
            with self._own_connection() as address:
                return self._supervise(address, limits, str(scratch.path) if scratch else None)
        finally:
            if scratch:
                scratch.remove()

    @contextmanager
    def _own_connection(self) -> Iterator[Address]:
        """Replace the given connection by one that has time limits and repeats no command."""
        given = self.connection
        address = address_of(given)
        self.connection = address.connect_unrepeating()
        try:
            yield address
        finally:
            self.connection.connection_pool.disconnect()
            self.connection = given

    def _supervise(self, address: Address, limits: Limits, scratch: str | None) -> bool:
        supervisor = self._make_supervisor(address, limits, scratch)
        with self._handling_signals(supervisor):
            self._register(supervisor)
            try:
                supervisor.run()
            finally:
                self.has_reached_limit = supervisor.has_reached_limit
                if supervisor.has_left:  # otherwise the record is needed to recover our jobs
                    self.register_death()  # type: ignore[no-untyped-call]
        return supervisor.turns.done > 0

    # Putting it together -------------------------------------------------------------------------

    def _make_supervisor(self, address: Address, limits: Limits, scratch: str | None) -> Supervisor:
        settings = Settings(
            worker=self.name,
            address=address,
            job_class=self.job_class,
            queue_class=self.queue_class,
            serializer=self.serializer_name,
            result_ttl=self.default_result_ttl,
            exception_handlers=tuple(self.exception_handlers),
            keeps_failures=not self.disable_default_exception_handler,
            paths=self.paths,
            preload=self.preload,
            allowed=self.allowed,
            scratch_folder=scratch,
            echoes=self.echoes,
            json_log_level=self._json_log_level,
            lease=self.lease,
        )
        assert self.mode is not None
        pool = Pool(
            self.concurrency,
            self.mode,
            settings,
            self.max_jobs_per_child,
            can_rest=self.can_rest,
        )
        is_fair = self.dequeue_strategy is not DequeueStrategy.DEFAULT
        estimates = Estimates(self.batches and self.max_jobs_per_child is None and not is_fair)
        monitor = Monitor(pool, estimates, self.timeout_grace_s)
        queues = self.queue_names()
        redis_side = RedisSide(
            self.connection,
            self.name,
            queues,
            self.job_monitoring_interval,
            self.dequeue_strategy.value,
        )
        wakeup = Wakeup(
            address,
            self.pubsub_channel_name,
            [keys.queue(name) for name in queues],
            [keys.scheduled(name) for name in queues],
        )
        periodic = PeriodicWork(
            redis_side,
            monitor,
            wakeup,
            lease=self.lease,
            worker_ttl_s=self.worker_ttl + 60,
            maintenance_s=self.maintenance_interval,
            max_crashes=self.max_crashes,
        )
        return Supervisor(
            redis_side, monitor, wakeup, periodic, limits, on_reconnect=self._register_again
        )

    def serialize(self) -> dict[str, Any]:
        """Return the fields of the worker's hash: RQ's, and what `flowq workers` shows."""
        fields: dict[str, Any] = super().serialize()
        ours = {"flowq_mode": self.mode, "flowq_concurrency": self.concurrency}
        return {**fields, **ours, keys.KEEPS_OUTPUT_FIELD: "1" if self.captures else ""}

    def _register(self, supervisor: Supervisor) -> None:
        outage = Outage(log.error, log.warning)
        retry_while_unavailable(
            partial(self._register_birth, supervisor), MAX_WAIT_S, outage=outage
        )
        retry_while_unavailable(
            partial(self.set_state, WorkerStatus.STARTED), MAX_WAIT_S, outage=outage
        )
        log.info("worker %s: started with PID %d", self.name, os.getpid())
        log.info("listening on %s", ", ".join(self.queue_names()))
        if self.allowed is not None:
            log.info("running only %s", self.allowed)

    def _register_birth(self, supervisor: Supervisor) -> None:
        try:
            self.register_birth()  # type: ignore[no-untyped-call]
            supervisor.redis_side.tell_host()
        except ValueError:  # there is a worker with this name
            if not self._is_lost(supervisor.redis_side):
                raise
            supervisor.periodic.recover(self.name)
            self.register_birth()  # type: ignore[no-untyped-call]

    def _is_lost(self, redis_side: RedisSide) -> bool:
        """Wait until the other worker with our name is surely lost (True) or alive (False)."""
        left_s = redis_side.find_lease(self.name)
        if left_s is None:  # a worker without a lease, of RQ's: no way to know
            return False
        lost_at_s = self.lease.lease_s - self.lease.silence_s  # so long after the lease's end
        while not redis_side.find_lost(self.lease).is_sure or left_s > lost_at_s:
            time.sleep(self.lease.look_s)
            before_s, left_s = left_s, redis_side.find_lease(self.name)
            if left_s is None:  # another worker has recovered its jobs
                return True
            if left_s > before_s:
                return False
        return True

    def _register_again(self) -> None:
        if not self.connection.exists(self.key):
            self.register_birth()  # type: ignore[no-untyped-call]

    @contextmanager
    def _handling_signals(self, supervisor: Supervisor) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread can handle signals
            return
        before = {number: signal.signal(number, self._on_signal) for number in stop_signals()}
        descriptor = signal.set_wakeup_fd(supervisor.wake_descriptor, warn_on_full_buffer=False)
        self._supervisor = supervisor
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: Any) -> None:
        now = time.monotonic()
        if self._supervisor is not None and now - self._signaled_at > SECOND_SIGNAL_S:
            self._signaled_at = now
            self._supervisor.stop()


class MultiprocessingWorker(Worker):
    """A worker that keeps spawned children, as on Windows; for `rq worker -w`."""

    mode: Mode | None = "multiprocessing"


def heal(connection: Redis) -> list[Finding]:
    """Find and repair jobs that ended unnoticed, or whose worker was lost; return what was found.

    If no worker of flowq is alive, this runs one for some seconds that takes no jobs: it recovers
    those of lost workers, queues what is due, and does RQ's maintenance.
    Blocks: up to 13 s with the default lease, until it is certain whether a worker is lost.
    """
    found = tidy(connection)  # first: this connection waits while the server refuses commands
    suspects = find_suspects(connection)
    if suspects or not find_living(connection):
        queues = sorted({"default", *(queue.name for queue in Queue.all(connection))})
        worker = Worker(queues, connection=connection, captures=False)
        worker.work(burst=True, max_jobs=0, logging_level="ERROR")
    unassigned = [
        Finding(job_id, "orphaned", name)
        for name, job_ids in suspects.items()
        if connection.zscore(keys.WORKERS, name) is None
        for job_id in job_ids
    ]
    return [*found, *unassigned, *examine(connection)]


def stop_signals() -> list[signal.Signals]:
    """Return the signals that this platform has for asking a worker to end."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _check_options(mode: str, concurrency: int, options: Mapping[str, Any]) -> None:
    """Raise UsageError for options that a worker cannot have, here or at all."""
    if mode not in START_METHODS:
        raise UsageError(f"mode must be one of {', '.join(START_METHODS)}, not {mode!r}")
    if concurrency < 1:
        raise UsageError(f"concurrency must be at least 1, not {concurrency}")
    if START_METHODS[mode].needs_fork and not hasattr(os, "fork"):
        raise UsageError(f"mode {mode!r} needs fork; use mode='multiprocessing' here")
    if options.get("work_horse_killed_handler"):
        raise UsageError(
            "work_horse_killed_handler would run in the supervisor, which runs no user code; "
            "use exception_handlers=, or on_failure= of the job"
        )


def _choose_class(given: Any, theirs: type, ours: type) -> Any:
    if isinstance(given, str):
        given = _import(given)
    if given is None or given is theirs:
        return ours
    if not (isinstance(given, type) and issubclass(given, ours)):
        name = getattr(given, "__qualname__", repr(given))
        raise UsageError(f"{name} is not a subclass of flowq.{ours.__name__}")
    prefix = f"redis_{ours.__name__.lower()}_namespace_prefix"
    if getattr(given, prefix) != getattr(theirs, prefix):
        raise UsageError(explain_key_prefix(given, prefix, getattr(theirs, prefix)))
    return given


def _import(name: str) -> Any:
    try:
        return find_callable(name)
    except (NameMissing, NotCallable, ModuleNotFoundError):
        raise UsageError(
            f"there is no {name} to import; write package.module.Name, in a module on "
            "the import path"
        ) from None
