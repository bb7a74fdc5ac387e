"""The main loop of a child: tasks in, ends out, until the channel closes.

Messages are pickled tuples: ("run", [Task, …]), ("conclude", Task, End) and ("chore", name,
arguments) from the supervisor; `End`s and ("chore",) from the child; a nursery (fork.py) adds
("died", how).
"""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import random
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TextIO

from flowq.workers.cell import Cell
from flowq.workers.claims import End, Task
from flowq.workers.output import Capture
from flowq.workers.perform import Bench, Settings

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

log = logging.getLogger("rq.worker")


def main(channel: Connection, lifeline: Connection, cell: Cell, settings: Settings) -> None:
    """Be a child. Returns when there is nothing more to do; the process should exit then."""
    set_up_process(settings)
    hold_on(lifeline)
    bench = Bench(settings)
    capture = Capture(settings)
    while True:
        try:
            message = pickle.loads(channel.recv_bytes())  # noqa: S301 - from our own supervisor
        except (EOFError, OSError):
            return
        if not handle(channel, cell, bench, capture, message):
            return


def handle(
    channel: Connection, cell: Cell, bench: Bench, capture: Capture, message: tuple[Any, ...]
) -> bool:
    """Do what a message says; False when the child must not go on."""
    if message[0] == "conclude":
        send(channel, _conclude(bench, *message[1:]))
        return True
    if message[0] == "chore":
        _do_chore(bench, *message[1:])
        send(channel, ("chore",))
        return True
    return work_off(channel, cell, bench, capture, message[1])


def work_off(
    channel: Connection, cell: Cell, bench: Bench, capture: Capture, tasks: list[Task]
) -> bool:
    """Execute these jobs, one after the other; False when the child must not go on."""
    pid = os.getpid()
    for task in tasks:
        if not cell.begin(task.number):
            break
        capture.begin()
        end = bench.execute(task, cell.ask_for)
        if os.getpid() != pid:  # the job has forked, and its copy came back out of the function
            os._exit(0)
        capture.end(task.job_id)
        send(channel, end)
        if end.is_spent:
            return False
    return True


def _conclude(bench: Bench, task: Task, end: End) -> End:
    try:
        return bench.conclude(task, end)
    except Exception:  # the supervisor tries another child, and gives up after a few
        log.exception("job %s: RQ's own way to end it failed", task.job_id)
        return end._replace(how="long")


def _do_chore(bench: Bench, name: str, arguments: tuple[Any, ...]) -> None:
    try:
        getattr(bench, name)(*arguments)
    except Exception:  # the same is tried again later, or by another worker
        log.exception("%s failed", name)


def send(channel: Connection, message: Any) -> None:
    """Send one message to the supervisor."""
    channel.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def set_up_process(settings: Settings) -> None:
    """Become a child: a process group of its own, no signals from the terminal, the paths."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdout = _open_stream(1)
    sys.stderr = _open_stream(2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGBREAK"):
        signal.signal(signal.SIGBREAK, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    random.seed()
    for path in reversed(settings.paths):
        if path not in sys.path:
            sys.path.insert(0, path)


def _open_stream(descriptor: int) -> TextIO:
    # By line, or the last words of a killed job would be lost; and whatever the worker's process
    # has put in the place of its own streams does not matter here.
    return open(
        descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


def hold_on(lifeline: Connection) -> None:
    """End this process, and what it started, when the supervisor is gone."""
    die_with_parent()
    threading.Thread(target=_watch, args=(lifeline,), name="flowq-lifeline", daemon=True).start()


def die_with_parent() -> None:
    """Let the system end us with our parent, where it can: a job in C code stops every thread."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch(lifeline: Connection) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    end_group()


def end_group() -> None:
    """End this process and the others of its group, at once."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)
