"""Children by multiprocessing's spawn, on every platform. They inherit only pickled values."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial
from typing import Any

from flowq.subprocesses import kill_tree
from flowq.workers.child import main as child


class Spawned:
    """A spawned process, seen from the supervisor."""

    def __init__(self, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        body = partial(target, *arguments)
        self._process = context.Process(target=child.live, args=(body,), name="flowq-child")
        self._process.start()
        self.pid: int = self._process.pid or 0

    def find_end(self) -> int | None:
        """Return its exit code, or a signal as a negative one; None while it lives."""
        return self._process.exitcode

    def kill(self) -> None:
        """Kill it and the processes that it started. Idempotent."""
        if self._process.exitcode is None:
            kill_tree(self.pid)  # it may not lead its group yet
            self._process.kill()
