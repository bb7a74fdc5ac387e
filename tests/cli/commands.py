"""`flowq` as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

WITHIN_S = 40.0


@dataclass
class Flowq:
    """Calls `flowq` in a folder; what it started is gone at the end of the test."""

    folder: Path
    env: dict[str, str]
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
        """End what still runs."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


class Said(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str
