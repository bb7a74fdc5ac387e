"""Children by multiprocessing's spawn, on every platform. They inherit only pickled values."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

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
            kill_tree(self.pid)
            self._process.kill()


def kill_tree(pid: int) -> None:
    """Kill a process and those that it started, by its group or (on Windows) by taskkill."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):  # it may not have made its group yet
            os.killpg(pid, signal.SIGKILL)
        return
    command = ["taskkill", "/F", "/T", "/PID", str(pid)]
    with suppress(FileNotFoundError):
        subprocess.run(command, capture_output=True, check=False)  # noqa: S603
