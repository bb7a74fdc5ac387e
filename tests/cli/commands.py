"""`flowq` as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

WITHIN_S = 60.0
MARK = "STARTED_BY_TEST"
"""The variable by which processes are found that a test's commands have started."""


@dataclass
class Flowq:
    """Calls `flowq` in a folder; what it started is gone at the end of the test."""

    folder: Path
    env: dict[str, str]  # with MARK
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __call__(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(*words, **env)
        stdout, stderr = process.communicate(timeout=WITHIN_S)
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)

    def start(
        self,
        *words: str,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        **env: str,
    ) -> subprocess.Popen[str]:
        """Start a command."""
        process = subprocess.Popen(
            [sys.executable, "-m", "flowq", *words],
            cwd=self.folder,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        """End what still runs, workers of the commands included.

        On the test server, they would do the maintenance of the next test's jobs.
        """
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        while workers := list(self._find_workers()):
            for pid in workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)

    def _find_workers(self) -> Iterator[int]:
        """Yield the processes of workers that a command of ours has started (on Linux)."""
        mark = f"\0{MARK}={self.env[MARK]}\0".encode()
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                is_worker = b"flowq/workers/" in (place / "cmdline").read_bytes()
                if is_worker and mark in b"\0" + (place / "environ").read_bytes():
                    yield int(place.name)


class Said(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str
