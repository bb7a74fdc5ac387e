"""Children by `os.fork`: warm ones that are reused, and a nursery that forks for each job.

A nursery is a process between the supervisor and the jobs: it imports what the jobs need once, and
forks from there, so that the supervisor never runs a line of the user's code.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from flowq.workers import child
from flowq.workers.cell import Cell
from flowq.workers.output import Capture
from flowq.workers.perform import Bench, Settings

MAX_REPORT_BYTES = 60_000
"""Fits into a pipe, so that nobody waits."""


DONE = "."
"""What a process says first that has done all that it was told to."""


class Forked:
    """A forked process, seen from the supervisor."""

    def __init__(self, body: Callable[[], None]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        self._ended: str | None = None
        if self.pid == 0:
            child.live(partial(_be, body))

    def find_end(self) -> str | None:
        """Say how it ended; None while it lives."""
        if self._ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended = describe(status)
        return self._ended

    def kill(self) -> None:
        """End it with everything in its process group. Idempotent."""
        if self._ended is None:
            kill_group(self.pid)


def _be(body: Callable[[], None]) -> None:
    signal.set_wakeup_fd(-1)
    body()


def kill_group(pid: int) -> None:
    """Kill a child and what it started; a child that has not made its group yet, alone."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        return


def describe(status: int) -> str:
    """Say in words what `waitpid` returned."""
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"


# The nursery -------------------------------------------------------------------------------------


def nurse(channel: Connection, lifeline: Connection, cell: Cell, settings: Settings) -> None:
    """Fork a process for each message, until the channel closes.

    There are no threads here, or the forks would not be safe: a module is imported for all that
    follow only when the first job that needed it has shown that its import starts none.
    """
    child.set_up_process(settings)
    child.die_with_parent()
    capture = Capture(settings, cell)
    outbox = child.Outbox(channel, cell)
    do = partial(_do, outbox, lifeline, cell, settings, capture)
    cell.say_ready()
    while True:
        try:
            message = pickle.loads(channel.recv_bytes())  # noqa: S301 - from our own supervisor
        except (EOFError, OSError):
            return
        status, words = _fork_one(partial(do, message))
        if status or DONE not in words:  # it may also have ended well, but in the middle
            outbox.send(("died", describe(status)))
        for module in words[1:]:
            _preload(module)


def _fork_one(do: Callable[[int], None]) -> tuple[int, list[str]]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        child.live(partial(do, writer))
    os.close(writer)
    _, status = os.waitpid(pid, 0)
    return status, _read_report(reader)


def _do(
    outbox: child.Outbox,
    lifeline: Connection,
    cell: Cell,
    settings: Settings,
    capture: Capture,
    message: tuple[Any, ...],
    writer: int,
) -> None:
    os.setpgid(0, 0)
    random.seed()
    known = set(sys.modules)
    bench = Bench(settings)
    child.hold_on(lifeline)
    threads = threading.active_count()
    child.handle(outbox, cell, bench, capture, message)
    is_safe = threading.active_count() == threads
    modules = [name for name in sys.modules if name not in known] if is_safe else []
    _report(writer, [DONE, *modules])


def _report(writer: int, words: list[str]) -> None:
    os.set_blocking(writer, False)
    text = "".join(f"{word}\n" for word in words).encode()[:MAX_REPORT_BYTES]
    os.write(writer, text[: text.rfind(b"\n") + 1])


def _read_report(reader: int) -> list[str]:
    os.set_blocking(reader, False)  # something that the job left behind may still hold the pipe
    try:
        return os.read(reader, MAX_REPORT_BYTES).decode(errors="replace").split()
    except BlockingIOError:
        return []
    finally:
        os.close(reader)


def _preload(module: str) -> None:
    if module in sys.modules or module.startswith("__"):
        return
    try:
        __import__(module)
    except BaseException:  # noqa: BLE001 - the job that needs it will say what is wrong
        sys.modules.pop(module, None)
