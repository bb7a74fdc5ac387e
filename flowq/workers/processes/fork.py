"""Children by `os.fork`: warm ones that are reused, and a fork server that forks for each job.

A fork server is a process between the supervisor and the jobs, so a job that dies affects no other.
Jobs that are forked from a process share the objects that its modules made at import: random
generators, connections, file contents. So neither the supervisor nor a fork server imports any of
the user's modules, except those that `preload` names. A fork server imports flowq's own modules
after the first job that needed them.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from flowq.runtime import scripts
from flowq.workers.child import main as child
from flowq.workers.child.execute import Executor
from flowq.workers.child.rq_work import RQWork
from flowq.workers.child.sources import Sources
from flowq.workers.child_messages import BadMessage, read_secrets, write_secrets
from flowq.workers.messages import Settings
from flowq.workers.output import Capture
from flowq.workers.processes import kill_group
from flowq.workers.resting import close_kept_connection
from flowq.workers.shared_state import SharedState

REPORT_BYTES = 60_000
"""More than a report needs, and less than a pipe can hold."""

DONE = "."
"""The first word of a process that has finished its task. The names of modules follow."""

OURS = "flowq."
"""The prefix of the modules that a fork server imports after a job needed them: flowq's own, which
keep no state of a job."""

RESTARTED = "Otel"
"""The prefix of the names of OpenTelemetry's threads, which it starts again in forked processes."""

log = logging.getLogger("rq.worker")


class Forked:
    """A forked process, seen from the supervisor."""

    def __init__(self, body: Callable[[], None]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        self._ended: int | None = None
        if self.pid == 0:
            child.live(partial(_be, body))

    def find_end(self) -> int | None:
        """Return its exit code, or a signal as a negative one; None while it lives."""
        if self._ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended = os.waitstatus_to_exitcode(status)
        return self._ended

    def kill(self) -> None:
        """Kill its process group. Idempotent."""
        if self._ended is None:
            kill_group(self.pid)


def _be(body: Callable[[], None]) -> None:
    signal.set_wakeup_fd(-1)
    close_kept_connection()
    body()


# The fork server ---------------------------------------------------------------------------------


def serve_forks(
    channel: Connection, lifeline: Connection, shared: SharedState, settings: Settings
) -> None:
    """Fork a process for each message, until the channel closes."""
    child.set_up_process(settings)
    child.die_with_parent()
    sources = Sources()
    outbox = child.Outbox(channel, shared)
    child.preload(outbox, settings.preload)
    if settings.exception_handlers:  # in a process of its own, because it imports their modules
        _fork_one(lambda _: _check_handlers(outbox, lifeline, settings))
    outbox.send_ready()
    threads = (each.name for each in threading.enumerate() if each is not threading.main_thread())
    if not all(name.startswith(RESTARTED) for name in threads):
        log.warning("a preloaded module has started threads, which the jobs' processes do not have")
    capture = Capture(settings.scratch_folder, shared, echoes=settings.echoes)
    child.share_secrets(outbox, shared, capture)
    scripts.prepare()
    do = partial(_do, outbox, lifeline, shared, settings, capture)
    shared.note_ready()
    while True:
        try:
            message = pickle.loads(channel.recv_bytes())  # noqa: S301 - from our own supervisor
        except (EOFError, OSError):
            return
        if message[0] == "run" and child.is_outdated(outbox, sources):
            return
        status, words, secrets = _fork_one(partial(do, message))
        # Background processes of the job may print its secrets while the next job runs.
        capture.mask.add(secrets)
        if status or DONE not in words:  # also for exit code 0 before the job's end
            outbox.send("died", str(os.waitstatus_to_exitcode(status)))
        child.preload(outbox, [word for word in words if word.startswith(OURS)])


def _check_handlers(outbox: child.Outbox, lifeline: Connection, settings: Settings) -> None:
    child.end_with_supervisor(lifeline)
    child.check_handlers(outbox, settings)


def _fork_one(do: Callable[[int], None]) -> tuple[int, list[str], list[str]]:
    """Call `do` in a new process; return its status, the words of its report, and its secrets."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        child.live(partial(do, writer))
    os.close(writer)
    _, status = os.waitpid(pid, 0)
    os.set_blocking(reader, False)  # background processes of the job may hold the pipe open
    try:
        report = os.read(reader, REPORT_BYTES)
    except BlockingIOError:
        report = b""
    finally:
        os.close(reader)
    words, _, message = report.partition(b"\n")
    try:
        secrets = read_secrets(message) if message else []
    except BadMessage:  # the job has written into the pipe
        secrets = []
    return status, words.decode(errors="replace").split(), secrets


def _do(
    outbox: child.Outbox,
    lifeline: Connection,
    shared: SharedState,
    settings: Settings,
    capture: Capture,
    message: tuple[Any, ...],
    writer: int,
) -> None:
    os.setpgid(0, 0)
    child.seed_anew()
    known = set(sys.modules)
    executor = Executor(settings, shared.report)
    child.end_with_supervisor(lifeline)
    rq_work = RQWork(settings, executor.connection)
    child.handle(outbox, shared, executor, rq_work, capture, message)
    needed = [name for name in sys.modules if name.startswith(OURS) and name not in known]
    words, secrets = " ".join([DONE, *needed]).encode(), capture.mask.values
    rest = b"\n" + write_secrets(secrets) if secrets else b""
    os.write(writer, words + (rest if len(words + rest) < REPORT_BYTES else b""))
