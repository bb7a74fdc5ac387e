"""A private server with workers for as long as a `with` block: to try flowq, for scripts and tests.

    with flowq.local(workers=2):
        run = flowq.run("report.yaml", {"month": "2026-11"})

The server keeps nothing and has no port. The workers are processes of their own, so they import the
jobs' functions by name, from the folders of this process's `sys.path`: those of a script from the
module that its file is (`flowq/own_script.py`). Those of a notebook have no such name.
"""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rq import get_current_job

from flowq.errors import FlowqError, UsageError
from flowq.expressions import evaluate
from flowq.plan import Enqueue, Expansion, Plan, Start
from flowq.runtime import listening, queue
from flowq.runtime.connections import pause
from flowq.server.embedded import temporary
from flowq.settings import settle_item
from flowq.spec import Workflow
from flowq.subprocesses import list_own_paths
from flowq.workers import launch, serving
from flowq.workers.child import is_child
from flowq.workers.launch import WORKER_LOG, describe_ending

if TYPE_CHECKING:
    from redis import Redis

END_S, LAST_S = 1.0, 5.0
"""How long a worker may take to end: until it is told to leave its jobs, and until it is killed."""

LOOK_S = 0.02
WATCH_S = 0.2
"""The interval at which the workers are watched."""

MAX_STARTS, STARTS_WITHIN_S = 4, 60.0
"""Workers that end more often by themselves are not started again."""

log = logging.getLogger("flowq")

_lock = threading.RLock()
"""Held while workers are started or ended. No process is forked meanwhile: it could not unlock."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


class Local:
    """A private server and its workers; use it in `with`, or call `start` and `stop`.

    Workers that are killed are replaced; maintenance recovers the jobs that they were executing.
    While it runs, its connection is the default of this process, and afterwards the one before it.
    It ends with this process, also if that is killed. A forked process may use it, and does not end
    it. Several threads may submit runs to it.
    """

    def __init__(self, workers: int = 2, queues: Sequence[str] = ("default",)) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise UsageError(f"workers must be a number of processes, 1 or more, not {workers!r}")
        if isinstance(queues, str):
            raise UsageError(f"queues must be a list of names, not {queues!r}")
        self._concurrency = workers
        self._queues = {*queues}
        self._paths: list[str] = []
        self._pid = 0
        self._stack: ExitStack | None = None
        # By the process that started them: of the workers of one, only the last claims new jobs.
        self._workers_by_pid: dict[int, list[subprocess.Popen[bytes]]] = {}
        self._replaced_at = 0.0
        self._watching_pid = 0
        self._restarted_at: list[float] = []
        self._failure = ""
        self._url = ""
        self._logs: Path | None = None
        self._connection: Redis | None = None

    def __repr__(self) -> str:
        return f"<flowq.local {'at ' + self._url if self._stack else 'not started'}>"

    @property
    def url(self) -> str:
        """The URL of its server, for `--redis-url` and FLOWQ_REDIS_URL. Errors: UsageError."""
        self._require_started()
        return self._url

    @property
    def connection(self) -> Redis:
        """A connection to its server. Errors: UsageError."""
        self._require_started()
        assert self._connection is not None
        return self._connection

    @property
    def logs(self) -> Path:
        """The folder of worker.log, in which the workers say what they do. Errors: UsageError."""
        self._require_started()
        assert self._logs is not None
        return self._logs

    def start(self) -> Self:
        """Start the server and the workers, and make its connection the default.

        Errors: UsageError, also inside of a job; ServerUnavailable.
        """
        if self._stack is not None:
            raise UsageError("it has been started already")
        _refuse_in_job()
        with ExitStack() as stack:
            server = stack.enter_context(temporary())
            self._url, self._logs = server.url, server.state / "logs"
            self._connection = stack.enter_context(server.connect())
            self._pid = os.getpid()
            stack.callback(self._end_workers)
            self._start_workers()
            before = queue.remember(self._connection)
            stack.callback(queue.forget, self._connection, before)
            _running.append(self)
            stack.callback(_running.remove, self)
            listening.advisers.append(self._advise)
            stack.callback(listening.advisers.remove, self._advise)
            atexit.register(self.stop)
            stack.callback(atexit.unregister, self.stop)
            self._stack = stack.pop_all()
            self._watch()
        return self

    def stop(self) -> None:
        """End the workers, with the jobs that they are executing, and the server. Idempotent.

        Blocks: until they have ended, for a few seconds at most.
        """
        with _lock:
            stack, self._stack = self._stack, None
            if stack is not None and os.getpid() == self._pid:
                stack.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def prepare(self, plan: Plan, connection: Redis) -> None:
        """Let the workers listen on all queues of a plan, and import from its folders.

        If they do not yet, others take their place; the jobs that they are executing go on.
        Blocks: until those before claim no more jobs, for `END_S` at most, as `pause` does.
        """
        asked = {*_find_queues(plan.enqueues)}
        with _lock:
            if self._stack is None:
                return
            queues = self._queues | asked
            if self._failure or queues != self._queues or not {*plan.folders} <= {*self._paths}:
                self._queues = queues
                for before in self._own_workers()[-1:]:
                    before.terminate()  # it finishes its jobs, and claims no others
                self._start_workers(plan.folders)
                self._restarted_at.clear()
                self._failure = ""
                self._replaced_at = time.monotonic()
                self._watch()
        # Without the lock, because the event loop may run other calls meanwhile.
        while time.monotonic() < self._replaced_at + END_S and any(
            before.poll() is None for before in self._own_workers()[:-1]
        ):
            pause(LOOK_S, connection)

    def _require_started(self) -> None:
        if self._stack is None:
            raise UsageError(
                "flowq.local() is not started: use it in `with flowq.local():`, or call start()"
            )

    def _start_workers(self, folders: Iterable[str] = ()) -> None:
        self._paths = [*dict.fromkeys([*self._paths, *folders, *list_own_paths()])]
        worker = launch.start(
            url=self._url,
            queues=sorted(self._queues),
            concurrency=self._concurrency,
            paths=self._paths,
            log_folder=str(self._logs),
            mode=serving.own_mode(),
            parent_pid=os.getpid(),
        )
        self._own_workers().append(worker)

    def _watch(self) -> None:
        """Start the thread that replaces workers; a fork needs another one for its own."""
        if self._watching_pid != os.getpid():
            self._watching_pid = os.getpid()
            threading.Thread(target=self._keep_workers, name="flowq.local", daemon=True).start()

    def _keep_workers(self) -> None:
        while True:
            time.sleep(WATCH_S)
            with _lock:
                if self._stack is None or self._failure:
                    self._watching_pid = 0
                    return
                worker = self._own_workers()[-1]
                if worker.poll() is not None:
                    self._replace(worker)

    def _replace(self, worker: subprocess.Popen[bytes]) -> None:
        """Start a worker in the place of one that has ended, unless they keep ending."""
        how = describe_ending(worker.returncode)
        now = time.monotonic()
        self._restarted_at = [at for at in self._restarted_at if now - at < STARTS_WITHIN_S]
        if len(self._restarted_at) >= MAX_STARTS - 1:
            said = f"the workers of flowq.local keep ending ({how})"
            self._failure = "; ".join([said, *self._read_last_line()])
            log.error("%s", self._failure)
            return
        log.warning("the worker of flowq.local has ended (%s); starting another one", how)
        self._restarted_at.append(now)
        self._own_workers().remove(worker)
        try:
            self._start_workers()
        except OSError as error:
            self._failure = f"the worker of flowq.local has ended ({how}); none starts: {error}"
            self._own_workers().append(worker)
            log.error("%s", self._failure)

    def _read_last_line(self) -> list[str]:
        """Return the last line of worker.log; nothing if there is none, or it cannot be read."""
        try:
            said = (self.logs / WORKER_LOG).read_text("utf-8", "replace")
        except OSError as error:
            return [f"worker.log cannot be read: {error}"]
        return said.strip().splitlines()[-1:]

    def _advise(self, connection: Redis, queues: Sequence[str]) -> str:
        """Return what to do for queues of its server on which no worker listens.

        Errors: FlowqError if nothing helps, because the workers keep ending.
        """
        if self._stack is None or find_local(connection) is not self:
            return ""
        if self._failure:
            raise FlowqError(self._failure)
        if others := [name for name in queues if name not in self._queues]:
            return f"write flowq.local(queues={[*sorted(self._queues), *others]!r})"
        return "the workers of flowq.local are starting"

    def _own_workers(self) -> list[subprocess.Popen[bytes]]:
        """Return the workers that this process has started; a fork has others than its parent."""
        return self._workers_by_pid.setdefault(os.getpid(), [])

    def _end_workers(self) -> None:
        workers = self._own_workers()
        for limit_s in (END_S, LAST_S):
            for worker in workers:
                worker.terminate()  # the second time, it leaves the jobs that it is executing
            deadline = time.monotonic() + limit_s
            for worker in workers:
                with suppress(subprocess.TimeoutExpired):
                    worker.wait(max(deadline - time.monotonic(), 0))
        for worker in workers:
            worker.kill()
            worker.wait()
        workers.clear()


_running: list[Local] = []


def local(workers: int = 2, queues: Sequence[str] = ("default",)) -> Local:
    """Return a private server with workers, to be started by `with`.

    `workers` jobs run at a time. `queues` are those of jobs that are enqueued one by one; those of
    submitted workflows are added.
    """
    return Local(workers, queues)


def find_local(connection: Redis) -> Local | None:
    """Return the running `local` to whose server a connection leads, or None."""
    if not _running:
        return None
    place = _find_place(connection)
    return next(
        (each for each in reversed(_running) if _find_place(each.connection) == place), None
    )


def _find_place(connection: Redis) -> list[object]:
    options = connection.connection_pool.connection_kwargs
    return [options.get(name) or None for name in ("path", "host", "port", "db")]


def _refuse_in_job() -> None:
    if is_child() or get_current_job() is not None:  # in RQ's own worker
        raise UsageError(
            "flowq.local() was called in a job; if a module of jobs does so when it is imported, "
            'write it below `if __name__ == "__main__":`'
        )


def _find_queues(enqueues: Iterable[Enqueue]) -> Iterator[str]:
    for job in enqueues:
        yield job.queue
        if isinstance(job.does, Expansion):
            yield from _find_queues(job.does.templates)
            yield from _find_queues_of_items(job.does)
        elif isinstance(job.does, Start):
            yield from _find_declared(job.does.nested.workflow)


def _find_queues_of_items(expansion: Expansion) -> Iterator[str]:
    """Yield the queues that the items name, of a list that is known before the run."""
    items, templates = expansion.each.items, expansion.templates
    for template in templates if isinstance(items, list | tuple) else ():
        if "queue" in template.settings:
            for index, item in enumerate(items):
                scope = {"item": evaluate(item), "index": index}
                yield settle_item(template, scope).queue


def _find_declared(workflow: Workflow) -> Iterator[str]:
    yield workflow.defaults.queue
    for job in workflow.jobs:
        if job.queue:
            yield job.queue
    for nested in workflow.workflows.values():
        yield from _find_declared(nested)
