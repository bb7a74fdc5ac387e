"""A worker that executes jobs in this process, one after another, for tests.

It is RQ's worker without what a test does not want: no processes, threads, signals and timeouts. A
job is executed by RQ's `perform_job` and ended by RQ's code and flowq's scripts, as in `rq worker`.
So whatever a test has patched in this process is patched for the jobs too.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rq.utils import as_text

from flowq.runtime import keys, scripts
from flowq.runtime.connections import read_clock
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.runtime.retry import begin_round
from flowq.runtime.rq import WorkerBase
from flowq.runtime.steps import run_steps
from flowq.runtime.variables import NAMES
from flowq.subprocesses import list_own_paths
from flowq.workers import start

if TYPE_CHECKING:
    from redis import Redis
    from rq.job import Job as RQJob
    from rq.queue import Queue as RQQueue

_NO_HANDLER = logging.NullHandler()
"""Otherwise Python prints the errors of jobs where nobody has asked for logs."""

MAX_HURRIED = 1_000
"""How often one job is executed before its time: it may poll for what will never be."""

_VARIABLES = (*NAMES, "RQ_JOB_ID")


class InProcessWorker(WorkerBase):
    """Executes jobs in this process.

        InProcessWorker(connection).drain()

    An exception of a job is its failure, as in any worker, except for KeyboardInterrupt.
    """

    queue_class = Queue
    job_class = Job

    def __init__(self, connection: Redis, *, job_class: type[Job] = Job) -> None:
        super().__init__([], None, connection=connection, job_class=job_class)
        self.death_penalty_class = cast(Any, _NoTimeout)
        self.log = logging.getLogger("flowq.testing")
        self.log.addHandler(_NO_HANDLER)
        self._interrupt: BaseException | None = None
        self._hurried = Counter[str]()

    def drain(self, *queues: str, with_scheduled: bool = False) -> int:
        """Execute queued jobs, and the jobs that these lead to, until the queues are empty.

        The default is all queues, in the order of their names. What is scheduled for later, such as
        a retry with a delay, stays; with `with_scheduled` it is executed too, the earliest first,
        without waiting, each job up to 1,000 times. Returns the number of executions.
        """
        done = 0
        with self._registered(), _own_variables():
            while True:
                names = queues or tuple(sorted(each.name for each in Queue.all(self.connection)))
                if names and self._execute_next(names):
                    done += 1
                elif not run_steps(self.connection) and not self._queue_due(names, with_scheduled):
                    return done

    def execute_job(self, job: RQJob, queue: RQQueue) -> None:
        """Execute one job. Errors: KeyboardInterrupt."""
        folder = Path.cwd()
        os.environ["RQ_JOB_ID"] = str(job.id)
        try:
            self.perform_job(job, queue, self.prepare_execution(job))
        finally:
            os.chdir(folder)
        if self._interrupt is not None:
            raise self._interrupt

    def handle_exception(self, job: RQJob, *exc_info: Any) -> None:
        """Log the exception, and keep one that must end the drain."""
        if isinstance(exc_info[1], KeyboardInterrupt):
            self._interrupt = exc_info[1]
        super().handle_exception(job, *exc_info)

    def procline(self, message: str) -> None:
        """Leave the name of the test's process alone."""

    def _execute_next(self, names: tuple[str, ...]) -> bool:
        options: dict[str, Any] = {"connection": self.connection, "job_class": self.job_class}
        found = Queue.dequeue_any([Queue(name, **options) for name in names], None, **options)
        if found is None:
            return False
        self.execute_job(*found)
        return True

    def _queue_due(self, names: tuple[str, ...], with_scheduled: bool) -> bool:
        """Queue the earliest job, or round of a nested workflow, that is due or may be hurried."""
        found: list[tuple[float, str, str]] = []
        for key in (*map(keys.scheduled, names), keys.ROUNDS, keys.RATES):
            last = len(self._hurried)  # none of these may be hurried any more
            first: Any = self.connection.zrange(key, 0, last, withscores=True)
            due = ((at_s, as_text(raw), key) for raw, at_s in first)
            found += [each for each in due if self._hurried[each[1]] < MAX_HURRIED][:1]
        if not found:
            return False
        at_s, name, key = min(found)
        now_s = read_clock(self.connection)
        if at_s > now_s and not with_scheduled:
            return False
        self._hurried[name] += at_s > now_s
        if key == keys.ROUNDS:
            begin_round(name, self.connection)
            return True
        if key == keys.RATES and with_scheduled:
            self._free_rate(name, now_s)
        self.connection.zadd(key, {name: min(at_s, now_s)})
        if self.connection.hexists(keys.job(name), "flowq_due"):  # else it would sleep on
            self.connection.hset(keys.job(name), "flowq_due", min(at_s, now_s))
        scripts.DUE.call(self.connection, self.key, 1, *names)
        return self.connection.zscore(key, name) is None  # it stays if it has a rate limit

    def _free_rate(self, limit: str, now_s: float) -> None:
        """Let the starts that count in a rate count no more."""
        spent: Any = self.connection.zrange(keys.spent(limit), 0, -1)
        if spent:
            self.connection.zadd(keys.spent(limit), dict.fromkeys(spent, now_s))

    @contextmanager
    def _registered(self) -> Iterator[None]:
        self.register_birth()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            self.register_death()  # type: ignore[no-untyped-call]


class TestedQueues:
    """The queues of a test, and what executes their jobs: the fixture `flowq_worker`."""

    __test__ = False  # pytest would take it for a class of tests

    def __init__(self, connection: Redis, url: str) -> None:
        self._connection = connection
        self._url = url
        self._started: list[subprocess.Popen[bytes]] = []

    def drain(self, *queues: str, with_scheduled: bool = False) -> int:
        """Execute jobs in this process until the queues are empty: `InProcessWorker.drain`."""
        return InProcessWorker(self._connection).drain(*queues, with_scheduled=with_scheduled)

    def start(self, *queues: str, concurrency: int = 1, **options: Any) -> None:
        """Start a worker in a process of its own, with children and timeouts, until the test ends.

        `options` are those of `flowq.Worker`. Its jobs can import what this process can.
        """
        options = {"paths": list_own_paths(), "mode": "warm", **options}
        self._started.append(
            start(url=self._url, queues=queues or ("default",), concurrency=concurrency, **options)
        )

    def stop(self) -> None:
        """End the workers that were started. Blocks until they are gone."""
        for process in self._started:
            process.kill()
        for process in self._started:
            process.wait()
        self._started.clear()


class _NoTimeout(nullcontext[None]):
    """Instead of RQ's timeouts, which need signals or threads."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()


@contextmanager
def _own_variables() -> Iterator[None]:
    """Restore the environment variables that identify a job to itself."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
