"""The killer: picks a victim, ends it with SIGKILL, and writes down whom, when, and what it was."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from chaos_jobs import append

AIMED = 0.7
"""How often a kill of a child looks for one that is executing a job."""

TAIL_BYTES = 20_000


def parents() -> dict[int, int]:
    """Return the parent of every process, from /proc."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                if status[0] != "Z":
                    found[int(entry.name)] = int(status[1])
    return found


def descendants(pid: int, parent_by_pid: dict[int, int]) -> Iterator[int]:
    """Yield everything below a process."""
    for child, parent in parent_by_pid.items():
        if parent == pid:
            yield child
            yield from descendants(child, parent_by_pid)


class Killer:
    """Kills by dice of its own, and keeps the log of it."""

    def __init__(self, log: str, dice: random.Random) -> None:
        self.log = log
        self.dice = dice

    def kill(self, kind: str, pid: int, worker: str = "") -> bool:
        """Kill one process; False when it was gone already."""
        at = time.monotonic()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.note(kind, pid, at, worker)
        return True

    def note(self, kind: str, pid: int, at: float, worker: str = "", **more: float) -> None:
        """Write one line about a kill."""
        append(self.log, {"kind": kind, "pid": pid, "at": at, "worker": worker, **more})

    def kill_child(self, worker_pid: int, worker: str, busy: set[int]) -> bool:
        """Kill one of the processes below a worker, most often one that executes a job."""
        parent_by_pid = parents()
        below = sorted(descendants(worker_pid, parent_by_pid))
        executing = [pid for pid in below if pid in busy]
        if executing and self.dice.random() < AIMED:
            return self.kill("child", self.dice.choice(executing), worker)
        if not below:
            return False
        pid = self.dice.choice(below)
        return self.kill(_kind(pid, parent_by_pid), pid, worker)


def _kind(pid: int, parent_by_pid: dict[int, int]) -> str:
    """Say what a process below a worker is."""
    with suppress(OSError):
        if b"resource_tracker" in Path("/proc", str(pid), "cmdline").read_bytes():
            return "tracker"  # the multiprocessing module's own
    return "nursery" if pid in parent_by_pid.values() else "child"


def find_busy(log: Path) -> set[int]:
    """Return the processes that have begun a job and not ended it, as the last lines tell."""
    if not log.exists():
        return set()
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = file.read().decode().split("\n")[1:-1]
    busy: set[int] = set()
    for line in map(json.loads, lines):
        (busy.add if line["what"] == "start" else busy.discard)(line["pid"])
    return busy
