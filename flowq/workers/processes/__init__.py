"""The processes of children: how they are started in each mode, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol

from flowq.workers.child import main as child_module
from flowq.workers.messages import Settings
from flowq.workers.shared_state import SharedState

Mode = Literal["fork", "multiprocessing", "warm"]
"""The names of the start methods, as users give them."""


class Process(Protocol):
    """A running process; fork.py and spawn.py implement this."""

    pid: int

    def find_end(self) -> int | None:
        """Return its exit code, or a signal as a negative one; None while it lives."""

    def kill(self) -> None:
        """Kill it and the processes that it started. Idempotent."""


_KILLS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


def is_kill(code: int) -> bool:
    """Whether the process was killed, by a user or by the kernel; it did not exit or crash.

    On Windows there are no signals, and a killed process has the exit code that the killer chose: 1
    for the Task Manager, taskkill and Python. A child that fails by itself exits with
    `child.main.FAILED`, so 1 means a kill, unless Python ended before flowq's code began.
    """
    if not hasattr(os, "killpg") and code == 1:
        return True
    return code < 0 and any(code == -getattr(signal, name, 0) for name in _KILLS)


@dataclass(frozen=True)
class StartMethod:
    """How children are started, and what follows from it; no other code compares names of modes.

    Attributes:
        context: multiprocessing's context, for the lock of the shared state.
        has_process_per_job: the child forks a process for each job. So it gets one job at a time;
            a job may change its process, and is killed without the child.
        linger_s: how long `Pool.rest` keeps an idle child while other children work, whose jobs may
            lead to more. Children that start slowly are kept longer.
    """

    context: Literal["fork", "spawn"]
    start: Callable[[tuple[Any, ...], Sequence[Connection]], Process]
    has_process_per_job: bool
    linger_s: float

    @property
    def needs_fork(self) -> bool:
        """Whether it works only on a platform with `os.fork`."""
        return self.context == "fork"


def start_process(
    method: StartMethod, settings: Settings, others: Sequence[Connection]
) -> tuple[Process, Connection, Connection, SharedState]:
    """Start the process of a child; return it, its channel, its lifeline and its shared state.

    `others`: the channels and lifelines of the other children, which a forked one must close.
    """
    ours, theirs = multiprocessing.Pipe()
    hold, held = multiprocessing.Pipe(duplex=False)
    shared = SharedState(multiprocessing.get_context(method.context))
    process = method.start((theirs, hold, shared, settings), [ours, held, *others])
    theirs.close()
    hold.close()
    return process, ours, held, shared


def _spawn(arguments: tuple[Any, ...], _: Sequence[Connection]) -> Process:
    from flowq.workers.processes.spawn import Spawned  # noqa: PLC0415 - by mode

    return Spawned(child_module.main, arguments)


def _fork(arguments: tuple[Any, ...], inherited: Sequence[Connection]) -> Process:
    from flowq.workers.processes.fork import Forked  # noqa: PLC0415 - POSIX only

    return Forked(partial(_be_child, child_module.main, arguments, inherited))


def _fork_server(arguments: tuple[Any, ...], inherited: Sequence[Connection]) -> Process:
    from flowq.workers.processes.fork import Forked, serve_forks  # noqa: PLC0415 - POSIX only

    return Forked(partial(_be_child, serve_forks, arguments, inherited))


START_METHODS: dict[Mode, StartMethod] = {
    "fork": StartMethod("fork", _fork_server, has_process_per_job=True, linger_s=1.0),
    "multiprocessing": StartMethod("spawn", _spawn, has_process_per_job=False, linger_s=10.0),
    "warm": StartMethod("fork", _fork, has_process_per_job=False, linger_s=1.0),
}


def _be_child(body: Any, arguments: tuple[Any, ...], inherited: Sequence[Connection]) -> None:
    for connection in inherited:  # else other children would not notice the supervisor's end
        connection.close()
    body(*arguments)


END_S = 2.0


def await_end(process: Process) -> int:
    """Wait for the end of a process that was told to end; kill it after END_S."""
    deadline = time.monotonic() + END_S
    while (code := process.find_end()) is None:
        if time.monotonic() > deadline:
            process.kill()
            deadline += END_S
        time.sleep(0.001)
    return code


def kill_group(pid: int) -> None:
    """Kill a child's process group; only the child, if it has not made its group yet."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        return


def end_rest(pid: int) -> None:
    """Kill the processes that a dead job process has left in its group (not on Windows).

    They would go on beside the next execution of the job.
    """
    if hasattr(os, "killpg"):
        with suppress(OSError):  # the group is empty
            os.killpg(pid, signal.SIGKILL)


# Process 1 of a container ------------------------------------------------------------------------
# It inherits the processes that jobs leave behind, and must wait for each of them after its end, or
# the container fills up with zombies. Outside of containers, the system's process 1 does that.

INIT = 1
PER_CALL = 1_000


def reap_orphans(own: Iterable[int]) -> None:
    """Wait for orphans that have ended, if this is process 1. Does not block.

    `own`: children for which other code here waits. Those in the process group of this process are
    left alone too: a program that contains a worker waits for them itself.
    """
    if os.getpid() != INIT or not hasattr(os, "waitid"):
        return
    kept, group = set(own), os.getpgrp()
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT
    with suppress(OSError):  # no child is left
        for _ in range(PER_CALL):
            found = os.waitid(os.P_ALL, 0, look)
            # A child of ours is found again until its own code waits for it, so stop here.
            if found is None or found.si_pid in kept or os.getpgid(found.si_pid) == group:
                return
            os.waitpid(found.si_pid, os.WNOHANG)
