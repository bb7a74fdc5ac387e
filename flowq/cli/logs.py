"""What jobs print: a file for each of them, under the folder that flowq run was called in."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from flowq.cli.display import Display
from flowq.status import JobStatus, RunStatus

STATE = ".flowq"
KEEP_S = 7 * 86_400.0
MAX_READ_BYTES = 1_000_000


def folder_of(run_id: str) -> Path:
    """Return the folder that the output of a run's jobs is in, if its workers were started here."""
    return Path.cwd() / STATE / "logs" / run_id


def make_folder(run_id: str) -> Path:
    """Create the folder for a new run, and remove those of runs that nobody looks at any more."""
    folder = folder_of(run_id)
    state = folder.parent.parent
    state.mkdir(mode=0o700, exist_ok=True)
    ignore = state / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    folder.mkdir(parents=True)
    for old in folder.parent.iterdir():
        if time.time() - old.stat().st_mtime > KEEP_S:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def read_last(job_id: str, run_id: str, lines: int | None = None) -> list[str]:
    """Return the last lines that a job printed, oldest first; none when they are not here."""
    path = folder_of(run_id) / f"{job_id}.log"
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return list(deque((line.rstrip("\n") for line in file), maxlen=lines))
    except OSError:
        return []


class Tail:
    """Shows what jobs print while they run."""

    def __init__(self, run_id: str) -> None:
        self._folder = folder_of(run_id)
        self._read_bytes: dict[str, int] = {}
        self._rests: dict[str, bytes] = {}
        self._done: set[tuple[str, int]] = set()

    def look(self, status: RunStatus, display: Display) -> None:
        """Show what has been printed since the last look."""
        for job in status.jobs.values():
            attempt = (job.job_id, job.attempts)
            if not job.attempts or attempt in self._done:
                continue
            for line in self._new_lines(job):
                display.output(job.name, line)
            if job.ended_at is not None:
                self._done.add(attempt)

    def _new_lines(self, job: JobStatus) -> Iterator[str]:
        is_last = job.ended_at is not None
        *lines, rest = self._new_bytes(job.job_id, is_last).split(b"\n")
        if is_last and rest:
            lines.append(rest)
        elif rest:
            self._rests[job.job_id] = rest
        yield from (line.decode(errors="replace") for line in lines)

    def _new_bytes(self, job_id: str, is_last: bool) -> bytes:
        rest = self._rests.pop(job_id, b"")
        try:
            with (self._folder / f"{job_id}.log").open("rb") as file:
                file.seek(self._read_bytes.get(job_id, 0))
                rest += file.read(-1 if is_last else MAX_READ_BYTES)
                self._read_bytes[job_id] = file.tell()
        except OSError:
            pass  # it has not printed anything
        return rest
