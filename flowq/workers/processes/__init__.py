"""One child as the supervisor has it, and how one is started in each mode."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol

from flowq.workers.child import main as child_module
from flowq.workers.child.execute import Settings
from flowq.workers.messages import Claim
from flowq.workers.scratch import Secrets
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


class Child:
    """One child and what it holds. Shape: `claims` in the order of handing over. `open_turns`:
    how many turns are under way that may bring it something. `has_enough`: nothing is to be put
    behind what it has. `is_replacement`: it came for one that is gone. `idle_since`: noted where
    children end that have nothing to do."""

    def __init__(
        self, process: Process, channel: Connection, lifeline: Connection, shared: SharedState
    ):
        self.process = process
        self.channel = channel
        self.lifeline = lifeline
        self.shared = shared
        self.claims: dict[int, Claim] = {}
        self.started_at = time.monotonic()
        self.idle_since: float | None = None
        self.concluding: Claim | None = None
        self.chore_since: float | None = None
        self.load_s = 0.0
        self.open_turns = 0
        self.jobs_left: int | None = None
        self.has_enough = False
        self.is_leaving = False
        self.is_replacement = False
        self.is_ready = False  # set by its message: only that one is in order with the others
        self.killed_because = ""
        self.secrets = Secrets()

    @property
    def is_idle(self) -> bool:
        """Whether it can take any job."""
        is_busy = self.claims or self.concluding is not None or self.chore_since is not None
        return not is_busy and not self.is_leaving

    @property
    def executing(self) -> Claim | None:
        """What it executes at this moment."""
        return self.claims.get(self.shared.begun)

    @property
    def waiting(self) -> list[Claim]:
        """What was handed over and has not begun."""
        begun = self.shared.begun
        return [claim for number, claim in self.claims.items() if number > begun]

    @property
    def unread_bytes(self) -> int:
        """At most how much waits in its channel."""
        return sum(claim.size_bytes for claim in self.waiting)


def start_child(mode: Mode, settings: Settings, siblings: Sequence[Child]) -> Child:
    """Start a child. `siblings`: those that live; a forked one must not keep their channels."""
    context = multiprocessing.get_context("spawn" if mode == "multiprocessing" else "fork")
    ours, theirs = multiprocessing.Pipe()
    hold, held = multiprocessing.Pipe(duplex=False)
    shared = SharedState(context)
    arguments = (theirs, hold, shared, settings)
    if mode == "multiprocessing":
        process = _spawn(arguments)
    else:
        inherited = [ours, held]
        for sibling in siblings:
            inherited += [sibling.channel, sibling.lifeline]
        process = _fork(mode, arguments, inherited)
    theirs.close()
    hold.close()
    return Child(process, ours, held, shared)


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
