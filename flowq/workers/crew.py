"""The children of one supervisor: who does what, what has ended, who has died.

Nothing in here knows Redis. `Crew.ends` collects what has to be told to it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import time
from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol

from flowq.workers import child as child_module
from flowq.workers.cell import Cell
from flowq.workers.claims import Claim, End
from flowq.workers.output import TAIL_BYTES, append_log, read_bounded, scratch_path
from flowq.workers.perform import Settings, failed

Mode = Literal["fork", "multiprocessing", "warm"]

MAX_UNREAD_BYTES = 32_000
"""What may wait in the channel of a busy child: a full channel would make both sides wait."""

log = logging.getLogger("rq.worker")


class Process(Protocol):
    """A running process; the port that fork.py and spawn.py serve."""

    pid: int

    def find_end(self) -> str | None:
        """Say how it ended; None while it lives."""

    def kill(self) -> None:
        """End it with what it started. Idempotent."""


class Child:
    """One child and what it holds. Shape: `claims` in the order of handing over."""

    def __init__(self, process: Process, channel: Connection, lifeline: Connection, cell: Cell):
        self.process = process
        self.channel = channel
        self.lifeline = lifeline
        self.cell = cell
        self.claims: dict[int, Claim] = {}
        self.concluding: Claim | None = None
        self.load_s = 0.0
        self.jobs_left: int | None = None
        self.is_recalled = False
        self.is_leaving = False
        self.killed_because = ""

    @property
    def is_idle(self) -> bool:
        """Whether it can take any job."""
        return not self.claims and self.concluding is None and not self.is_leaving

    @property
    def executing(self) -> Claim | None:
        """What it executes at this moment."""
        return self.claims.get(self.cell.begun)

    @property
    def waiting(self) -> list[Claim]:
        """What was handed over and has not begun."""
        begun = self.cell.begun
        return [claim for number, claim in self.claims.items() if number > begun]

    @property
    def unread_bytes(self) -> int:
        """At most how much waits in its channel."""
        return sum(claim.size_bytes for claim in self.claims.values())


class Crew:
    """Up to `size` children of one mode."""

    def __init__(self, size: int, mode: Mode, settings: Settings, jobs_per_child: int | None):
        self.size = size
        self.mode = mode
        self.settings = settings
        self.children: list[Child] = []
        self.ends: deque[tuple[Claim, End]] = deque()
        self.orphans: deque[Claim] = deque()
        self.is_closing = False
        self._jobs_per_child = jobs_per_child
        self._number = 0
        self._barren_deaths = 0
        kind = "spawn" if mode == "multiprocessing" else "fork"
        self._context = multiprocessing.get_context(kind)

    # Hiring --------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Start the children that are missing."""
        while len(self.children) < self.size and not self.is_closing:
            self.children.append(self._hire())

    def _hire(self) -> Child:
        if self._barren_deaths > 3 * self.size:
            raise RuntimeError("children end before they take a job; see the messages above")
        ours, theirs = multiprocessing.Pipe()
        hold, held = multiprocessing.Pipe(duplex=False)
        cell = Cell(self._context)
        process = self._start(theirs, hold, cell, [ours, held])
        theirs.close()
        hold.close()
        child = Child(process, ours, held, cell)
        child.jobs_left = self._jobs_per_child
        return child

    def _start(
        self, channel: Connection, lifeline: Connection, cell: Cell, ours: list[Connection]
    ) -> Process:
        arguments = (channel, lifeline, cell, self.settings)
        if self.mode == "multiprocessing":
            from flowq.workers.spawn import Spawned  # noqa: PLC0415 - by mode

            return Spawned(child_module.main, arguments)
        from flowq.workers.fork import Forked, nurse  # noqa: PLC0415 - POSIX only

        body = nurse if self.mode == "fork" else child_module.main
        return Forked(partial(self._be_child, body, arguments, ours))

    def _be_child(self, body: Any, arguments: tuple[Any, ...], ours: list[Connection]) -> None:
        for other in self.children:
            ours = [*ours, other.channel, other.lifeline]
        for connection in ours:  # or nobody would notice the supervisor's end
            connection.close()
        body(*arguments)

    # Handing over --------------------------------------------------------------------------------

    @property
    def idle(self) -> list[Child]:
        """The children that can take any job."""
        return [child for child in self.children if child.is_idle]

    def find_hungry(self, batch_s: float) -> list[Child]:
        """Return busy children whose short jobs will soon be done."""
        if self.mode == "fork":
            return []
        return [
            child
            for child in self.children
            if child.claims
            and not (child.is_leaving or child.is_recalled or child.concluding)
            and 0 < child.load_s < batch_s / 2
            and child.jobs_left is None
        ]

    def hand_over(
        self, claims: Iterable[Claim], cost_by_kind: Mapping[str, float], batch_s: float
    ) -> None:
        """Share claims out: long and unknown ones alone, short ones where the least waits.

        What finds no child stays in `orphans`.
        """
        idle = self.idle
        shares: dict[int, list[Claim]] = {}
        short: list[Claim] = []
        for claim in claims:
            if claim.kind in cost_by_kind and self.mode != "fork":
                short.append(claim)
            elif idle:
                self._give(idle.pop(0), [claim], 0.0)
            else:
                self.orphans.append(claim)
        takers = idle + self.find_hungry(batch_s)
        loads = [child.load_s for child in takers]
        for claim in short:
            if not takers:
                self.orphans.append(claim)
                continue
            index = loads.index(min(loads))
            shares.setdefault(index, []).append(claim)
            loads[index] += cost_by_kind[claim.kind]
        for index, share in shares.items():
            self._give(takers[index], share, loads[index])

    def _give(self, child: Child, claims: list[Claim], load_s: float) -> None:
        if child.claims:
            size = child.unread_bytes + sum(claim.size_bytes for claim in claims)
            if size > MAX_UNREAD_BYTES:
                self.orphans.extend(claims)
                return
        for claim in claims:
            self._number += 1
            claim.number = self._number
            child.claims[claim.number] = claim
        child.load_s = load_s
        child.is_recalled = False
        child.cell.allow(next(iter(child.claims)), self._number + 1)
        self._send(child, ("run", [claim.task for claim in claims]))

    def conclude(self, claim: Claim, end: End) -> bool:
        """Let an idle child end an execution by RQ's own code; False when none is idle."""
        idle = self.idle
        if not idle:
            return False
        claim.tries += 1
        idle[0].concluding = claim
        self._send(idle[0], ("conclude", claim.task, end))
        return True

    def _send(self, child: Child, message: tuple[Any, ...]) -> None:
        try:
            child.channel.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
        except OSError:  # it has died; `receive` will find out
            log.debug("child %d is gone", child.process.pid)

    def recall(self, child: Child) -> list[Claim]:
        """Take back what a child has not begun."""
        begun = child.cell.take_back()
        if begun is None:
            return []
        taken = [claim for number, claim in child.claims.items() if number > begun]
        for claim in taken:
            del child.claims[claim.number]
        child.is_recalled = True
        child.load_s = 0.0
        return taken

    # Listening -----------------------------------------------------------------------------------

    def receive(self, child: Child) -> None:
        """Read what a child has sent, and notice its death."""
        try:
            while child.channel.poll():
                message = child.channel.recv_bytes()
                self._take(child, pickle.loads(message))  # noqa: S301 - from our own child
        except (EOFError, OSError):
            self._bury(child)

    def _take(self, child: Child, message: Any) -> None:
        if message[0] == "died":  # only a nursery says that; it lives, and its job does not
            self._charge(child, message[1])
            self._let_go(child)
            return
        end: End = message
        if child.concluding is not None:
            claim, child.concluding = child.concluding, None
            self.ends.append((claim, end))
            return
        claim = child.claims.pop(end.number)
        self._barren_deaths = 0
        if not child.claims:
            child.load_s = 0.0
        self.ends.append((claim, end))
        if child.jobs_left is not None:
            child.jobs_left -= 1
        if (end.is_spent or child.jobs_left == 0) and self.mode != "fork":
            self.dismiss(child)

    def dismiss(self, child: Child) -> None:
        """Let a child go when it has done what it is doing."""
        child.is_leaving = True
        self.orphans.extend(self.recall(child))
        if not child.claims:
            child.channel.close()
            self._bury(child)

    def _bury(self, child: Child) -> None:
        child.channel.close()
        child.lifeline.close()
        how = await_end(child.process)
        self.children.remove(child)
        if not child.is_leaving:
            log.warning("child %d ended: %s", child.process.pid, how)
            self._barren_deaths += not child.claims
        self._charge(child, how)
        self._let_go(child)
        self._drop_scratch(child)

    def _let_go(self, child: Child) -> None:
        """Take from a child what others have to do now."""
        if child.concluding is not None:
            claim, child.concluding = child.concluding, None
            self.ends.append((claim, claim.end or died(claim, "it did not end", "", 0.0)))
        self.orphans.extend(child.claims.values())
        child.claims.clear()
        child.load_s = 0.0

    def _charge(self, child: Child, how: str) -> None:
        """Fail the job that was being executed; the others that the child held are not at fault."""
        claim = child.executing
        if claim is None:
            return
        del child.claims[claim.number]
        seconds = time.monotonic() - child.cell.begun_at
        tail = self._save_output(child, claim)
        self.ends.append((claim, died(claim, child.killed_because or how, tail, seconds)))
        child.killed_because = ""

    # Output --------------------------------------------------------------------------------------

    def _save_output(self, child: Child, claim: Claim) -> str:
        folder = self.settings.scratch_folder
        if folder is None:
            return ""
        try:
            descriptor = os.open(scratch_path(folder, child.process.pid), os.O_RDWR)
        except OSError:
            return ""
        try:
            text = read_bounded(descriptor)
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
        if text and self.settings.log_folder:
            append_log(self.settings.log_folder, claim.job_id, text)
        return text[-TAIL_BYTES:].decode(errors="replace")

    def _drop_scratch(self, child: Child) -> None:
        if self.settings.scratch_folder:
            scratch_path(self.settings.scratch_folder, child.process.pid).unlink(missing_ok=True)

    # Ending --------------------------------------------------------------------------------------

    def kill(self, child: Child, because: str) -> None:
        """End what a child executes, now. The reason goes into the error of the job."""
        child.killed_because = because
        if self.mode == "fork" and child.executing is not None and child.cell.pid:
            from flowq.workers.fork import kill_group  # noqa: PLC0415 - POSIX only

            kill_group(child.cell.pid)
        else:
            child.process.kill()

    def close(self) -> list[Claim]:
        """End all children; return what they held."""
        self.is_closing = True
        left = list(self.orphans)
        self.orphans.clear()
        for child in self.children:
            left += child.claims.values()
            if child.concluding:
                left.append(child.concluding)
            if child.claims or child.concluding:
                if self.mode == "fork" and child.cell.pid:
                    self.kill(child, "the worker stops")
                child.process.kill()
            child.channel.close()
            child.lifeline.close()
        for child in self.children:
            await_end(child.process)
            self._drop_scratch(child)
        self.children.clear()
        return left


END_S = 2.0


def await_end(process: Process) -> str:
    """Wait until a process that should end has ended; kill it when it does not."""
    deadline = time.monotonic() + END_S
    while (how := process.find_end()) is None:
        if time.monotonic() > deadline:
            process.kill()
            deadline += END_S
        time.sleep(0.001)
    return how


def died(claim: Claim, how: str, tail: str, seconds: float) -> End:
    """Return the end of a job whose process was ended: by itself, by us, or by the system."""
    now = time.time()
    text = how if how.startswith("rq.") else f"The process of the job ended unexpectedly: {how}"
    if tail:
        text += f"\n\nThe last that it wrote:\n{tail}"
    end = failed(claim.number, text, now - seconds, now, how="died")
    return end._replace(status="stopped") if claim.stop_asked else end
