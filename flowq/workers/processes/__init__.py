"""The processes of children: how they are started in each mode, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol

from flowq.workers.child import main as child_module
from flowq.workers.messages import Settings
from flowq.workers.shared_state import SharedState

Mode = Literal["fork", "multiprocessing", "warm"]


class Process(Protocol):
    """A running process; the port that fork.py and spawn.py serve."""

    pid: int

    def find_end(self) -> int | None:
        """Return its exit code, or a signal as a negative one; None while it lives."""

    def kill(self) -> None:
        """End it with what it started. Idempotent."""


def describe_end(code: int) -> str:
    """Say in words what `Process.find_end` has returned."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:  # another platform's
        return f"signal {-code} (unknown)"


def start_process(
    mode: Mode, settings: Settings, others: Sequence[Connection]
) -> tuple[Process, Connection, Connection, SharedState]:
    """Start the process of a child; return it, its channel, its lifeline and its shared state.

    `others`: the channels and lifelines of living children, which a forked one must not keep.
    """
    context = multiprocessing.get_context("spawn" if mode == "multiprocessing" else "fork")
    ours, theirs = multiprocessing.Pipe()
    hold, held = multiprocessing.Pipe(duplex=False)
    shared = SharedState(context)
    arguments = (theirs, hold, shared, settings)
    if mode == "multiprocessing":
        process = _spawn(arguments)
    else:
        process = _fork(mode, arguments, [ours, held, *others])
    theirs.close()
    hold.close()
    return process, ours, held, shared


def _spawn(arguments: tuple[Any, ...]) -> Process:
    from flowq.workers.processes.spawn import Spawned  # noqa: PLC0415 - by mode

    return Spawned(child_module.main, arguments)


def _fork(mode: Mode, arguments: tuple[Any, ...], inherited: list[Connection]) -> Process:
    from flowq.workers.processes.fork import Forked, nurse  # noqa: PLC0415 - POSIX only

    body = nurse if mode == "fork" else child_module.main
    return Forked(partial(_be_child, body, arguments, inherited))


def _be_child(body: Any, arguments: tuple[Any, ...], inherited: list[Connection]) -> None:
    for connection in inherited:  # or nobody would notice the supervisor's end
        connection.close()
    body(*arguments)


END_S = 2.0


def await_end(process: Process) -> int:
    """Wait until a process that should end has ended; kill it when it does not."""
    deadline = time.monotonic() + END_S
    while (code := process.find_end()) is None:
        if time.monotonic() > deadline:
            process.kill()
            deadline += END_S
        time.sleep(0.001)
    return code


def end_rest(pid: int) -> None:
    """Kill what a job has started and its dead process has left, where there are groups for that.

    It would go on beside the job's next execution.
    """
    if hasattr(os, "killpg"):
        with suppress(OSError):  # there is nothing
            os.killpg(pid, signal.SIGKILL)


# Process 1 of a container ------------------------------------------------------------------------
# It inherits what jobs leave behind, and has to wait for it when it ends. Elsewhere the system's
# own process 1 does that. A container whose process 1 does not would fill up with zombies.

INIT = 1
PER_CALL = 1_000


def reap_orphans(own: Iterable[int]) -> None:
    """Wait for orphans that have ended, if this is process 1. Does not block.

    `own`: children that somebody else here waits for. Those in the process group of this process
    are left alone too: what a program starts beside its worker is its own.
    """
    if os.getpid() != INIT or not hasattr(os, "waitid"):
        return
    kept, group = set(own), os.getpgrp()
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT
    with suppress(OSError):  # there is no child, or it is gone
        for _ in range(PER_CALL):
            found = os.waitid(os.P_ALL, 0, look)
            # One of ours is found again and again, until it is waited for; the others come then.
            if found is None or found.si_pid in kept or os.getpgid(found.si_pid) == group:
                return
            os.waitpid(found.si_pid, os.WNOHANG)
