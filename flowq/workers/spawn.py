"""Children by `multiprocessing`'s spawn: on every platform, started from nothing but values."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from flowq.workers import child


class Spawned:
    """A spawned process, seen from the supervisor."""

    def __init__(self, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        body = partial(target, *arguments)
        self._process = context.Process(target=child.live, args=(body,), name="flowq-child")
        self._process.start()
        self.pid: int = self._process.pid or 0

    def find_end(self) -> str | None:
        """Say how it ended; None while it lives."""
        code = self._process.exitcode
        if code is None:
            return None
        return f"signal {-code} ({_name(-code)})" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """End it with what it started. Idempotent."""
        if self._process.exitcode is None:
            kill_tree(self.pid)
            self._process.kill()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def kill_tree(pid: int) -> None:
    """Kill a process and what it started, by the means that this platform has."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):  # it may not have made its group yet
            os.killpg(pid, signal.SIGKILL)
        return
    command = ["taskkill", "/F", "/T", "/PID", str(pid)]
    with suppress(FileNotFoundError):
        subprocess.run(command, capture_output=True, check=False)  # noqa: S603
