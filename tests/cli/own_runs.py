"""Runs of one folder that wait on its private server, and the processes that serve them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import redis

from flowq import server
from flowq.client import Run
from tests.cli.commands import Flowq

WITHIN_S = 30.0


class OwnRuns:
    """Starts runs that nobody follows; knows who serves them."""

    def __init__(self, flowq: Flowq) -> None:
        self._flowq = flowq
        self.url = server.ensure(flowq.folder).url
        self.connection: redis.Redis = server.ensure(flowq.folder).connect()

    def start(self, file: str = "gated.yaml", **env: str) -> Run:
        """Start one, and wait until nothing can happen in it, and no child is left."""
        said = self._flowq("run", "--detach", file, **env)
        run = Run(said.stdout.strip(), self.connection)
        self.wait_until(lambda: run.status().state == "waiting" and find_supervisors(run))
        self.wait_until(lambda: not find_children(run))
        return run

    def wait_until(self, predicate: Callable[[], object]) -> None:
        """Fail when that does not become true."""
        deadline = time.monotonic() + WITHIN_S
        while not predicate():
            assert time.monotonic() < deadline, predicate
            time.sleep(0.02)

    def results(self, run: Run) -> dict[str, object]:
        """Wait for the end of a run, and return its results."""
        self.wait_until(lambda: run.status().is_ended)
        return run.results()


def find_supervisors(run: Run) -> list[int]:
    """Return the ids of the processes that serve a run, waiting or not, without their children."""
    ours = {pid: parent for pid, parent, words in _list_processes() if run.run_id in words}
    return sorted(pid for pid, parent in ours.items() if parent not in ours)


def find_children(run: Run) -> list[int]:
    """Return the ids of those that execute its jobs, or are there to do so."""
    supervisors = find_supervisors(run)
    return [pid for pid, parent, _ in _list_processes() if parent in supervisors]


def _list_processes() -> list[tuple[int, int, str]]:
    command = ["ps", "-axww", "-o", "pid=,ppid=,stat=,args="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    fields = (line.split(None, 3) for line in listed.stdout.splitlines())
    return [
        (int(pid), int(parent), words[0])
        for pid, parent, state, *words in fields
        if words and not state.startswith("Z") and "flowq/workers/" in words[0]
    ]
