"""What jobs print, at the level of file descriptors, so that C code and subprocesses are caught.

Each child writes to a scratch file of its own. When a job ends, what it wrote goes to the log of
that job (or to where the worker itself prints), and the scratch file is emptied: a job that prints
nothing costs one look at the file's size. After a death the supervisor reads the scratch file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowq.workers.perform import Settings

LOG_BYTES = 1_000_000
"""How much of one job's output is kept: the first and the last half of that."""

RUNAWAY_BYTES = 64_000_000
"""How long a scratch file may get while its job runs."""

TAIL_BYTES = 2_000

BINARY = getattr(os, "O_BINARY", 0)
"""Windows would change line ends, and take a Ctrl-Z for the end of the file."""


class Capture:
    """In the child: sends descriptors 1 and 2 to the scratch file, and from there to the log."""

    def __init__(self, settings: Settings) -> None:
        self._log_folder = settings.log_folder
        self._scratch: int | None = None
        self._terminal = 1
        if settings.scratch_folder:
            self._redirect(scratch_path(settings.scratch_folder, os.getpid()))

    def _redirect(self, path: Path) -> None:
        self._terminal = os.dup(1)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC | BINARY
        self._scratch = os.open(path, flags, 0o600)
        os.dup2(self._scratch, 1)
        os.dup2(self._scratch, 2)

    def end(self, job_id: str | None) -> None:
        """Move what was written since the last call to the job's log."""
        if self._scratch is None or not os.lseek(self._scratch, 0, os.SEEK_END):
            return
        text = read_bounded(self._scratch)
        os.ftruncate(self._scratch, 0)
        if self._log_folder and job_id:
            append_log(self._log_folder, job_id, text)
        else:
            _write_all(self._terminal, text)


def scratch_path(folder: str, pid: int) -> Path:
    """Return where the child with that process id writes."""
    return Path(folder) / f"child-{pid}.out"


def read_bounded(descriptor: int) -> bytes:
    """Return what is in the file, without the middle when it is long."""
    size = os.fstat(descriptor).st_size
    if size <= LOG_BYTES:
        return _read_at(descriptor, 0, size)
    half = LOG_BYTES // 2
    note = f"\n[… {size - 2 * half:,} bytes left out …]\n".encode()
    return _read_at(descriptor, 0, half) + note + _read_at(descriptor, size - half, half)


def _read_at(descriptor: int, at: int, size: int) -> bytes:
    os.lseek(descriptor, at, os.SEEK_SET)
    parts = []
    while size > 0 and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def append_log(folder: str, job_id: str, text: bytes) -> None:
    """Add to the log of a job; a retry goes below what was there."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    with (path / f"{job_id}.log").open("ab") as file:
        file.write(text)


def _write_all(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]
