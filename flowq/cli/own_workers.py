"""The workers that a command starts for its run, and the logs that they write.

There is one log file for each job, in the state folder of the private server.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from flowq.cli.display import Display
from flowq.cli.place import Place
from flowq.client import Run
from flowq.errors import FlowqError, StateUnusable
from flowq.server import private, state
from flowq.status import JobStatus, RunStatus
from flowq.texts import ATTEMPT_LINE
from flowq.workers import serving
from flowq.workers.processes import reap_orphans

MAX_STARTS, STARTS_WITHIN_S = 4, 60.0
END_S = 5.0


class OwnWorkers:
    """Workers for one run. They exit when the run has ended, even if this process dies first.

    Killed workers are replaced; maintenance recovers the jobs that they were executing.
    """

    def __init__(self, run: Run, place: Place, concurrency: int | None) -> None:
        self._run = run
        self._place = place
        self._concurrency = concurrency
        self._log_folder = find_folder()
        self._started_at: list[float] = []
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._started_at.append(time.monotonic())
        run, place, folder = self._run, self._place, self._log_folder
        start = serving.serve if place.is_embedded else serving.serve_with_others
        return start(
            run.run_id,
            run.connection,
            place.url,
            concurrency=self._concurrency,
            log_folder=str(folder) if folder else None,
        )

    def look(self, status: RunStatus, display: Display) -> None:
        """Replace them when they are gone before the run has ended.

        Errors: FlowqError when they are gone again and again; the run is canceled then.
        """
        reap_orphans([self._process.pid])
        if status.is_ended or self._process.poll() is None:
            return
        ending = _ending(self._process.returncode)
        recent = [at for at in self._started_at if time.monotonic() - at < STARTS_WITHIN_S]
        if len(recent) >= MAX_STARTS:
            self._run.cancel(may_wait=False)
            raise FlowqError(
                f"the workers keep ending ({ending}), so the run is canceled; "
                f"they may have said why in {self._log_folder}/{WORKER_LOG}"
            )
        display.note(f"the workers have ended ({ending}); starting others")
        self._process = self._start()

    def end(self) -> None:
        """Stop the workers now; otherwise they exit shortly after the run.

        Blocks: for a few seconds at most.
        """
        if self._process.poll() is not None:
            return
        if hasattr(signal, "SIGKILL"):  # else `terminate` would not ask them, but kill them
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


KEEP_S = 7 * 86_400.0
MAX_READ_BYTES = 1_000_000
_ATTEMPT_LINE = re.compile(ATTEMPT_LINE.format("[0-9]+"))
WORKER_LOG = "worker.log"
MAX_WORKER_LOG_BYTES = 5_000_000


def has_log(job_id: str) -> bool:
    """Whether workers of this folder have a log of the job's output."""
    path = _path_of(job_id)
    return path is not None and path.exists()


def _path_of(job_id: str) -> Path | None:
    try:
        return state.find().logs / f"{job_id}.log"
    except StateUnusable:
        return None


def find_folder() -> Path | None:
    """Create the folder for new logs, and remove old logs; return None if that is not possible.

    Errors: StateUnusable, if the existing folder is not flowq's.
    """
    try:
        found = state.find()
    except StateUnusable:
        if state.VARIABLE in os.environ:
            raise
        return None  # no home folder is known
    try:
        state.make(found)
        private.make_folder(found.logs)
        for log in found.logs.iterdir():
            _remove_if_old(log)
    except private.Untrusted as error:
        raise StateUnusable(str(found.logs), str(error)) from error
    except OSError:
        return None
    return found.logs


def _remove_if_old(log: Path) -> None:
    with suppress(FileNotFoundError):  # another run does the same
        status = log.lstat()
        private.check_status(status, log)
        if time.time() - status.st_mtime > KEEP_S:
            log.unlink()
        elif log.name == WORKER_LOG and status.st_size > MAX_WORKER_LOG_BYTES:
            os.close(private.open_file(log, os.O_WRONLY | os.O_TRUNC))


def read_all(job_id: str) -> list[str]:
    """Return the lines that a job printed in all of its attempts; empty if they are not on this
    host."""
    return list(_read_lines(job_id))


def read_last(job_id: str, lines: int | None = None) -> list[str]:
    """Return the output of a job's last attempt, or its last lines, oldest first."""
    last: deque[str] = deque(maxlen=lines)
    for line in _read_lines(job_id):
        if _ATTEMPT_LINE.fullmatch(line):
            last.clear()
        else:
            last.append(line)
    return list(last)


def _read_lines(job_id: str) -> Iterator[str]:
    path = _path_of(job_id)
    if path is None:
        return
    with suppress(OSError):
        descriptor = private.open_file(path, os.O_RDONLY)
        with open(descriptor, encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123
            yield from (line.rstrip("\n") for line in file)


class Tail:
    """Shows the output of jobs while they run."""

    def __init__(self) -> None:
        self._read_bytes: dict[str, int] = {}
        self._rests: dict[str, bytes] = {}
        self._done: set[tuple[str, int]] = set()

    def look(self, status: RunStatus, display: Display) -> None:
        """Show what has been printed since the last look."""
        for job in status.jobs.values():
            attempt = (job.job_id, job.attempts)
            if not job.attempts or attempt in self._done:
                continue
            for line in self.new_lines(job):
                display.output(job.name, line)
            if job.ended_at is not None:
                self._done.add(attempt)

    def new_lines(self, job: JobStatus) -> Iterator[str]:
        """Yield the complete lines that were not yielded before; at the end, all remaining ones."""
        is_last = job.ended_at is not None
        *lines, rest = self._new_bytes(job.job_id, is_last).split(b"\n")
        if is_last and rest:
            lines.append(rest)
        elif rest:
            self._rests[job.job_id] = rest
        shown = (line.removesuffix(b"\r").decode(errors="backslashreplace") for line in lines)
        yield from (line for line in shown if not _ATTEMPT_LINE.fullmatch(line))

    def _new_bytes(self, job_id: str, is_last: bool) -> bytes:
        rest, path = self._rests.pop(job_id, b""), _path_of(job_id)
        try:
            if path is None:
                return rest
            with open(private.open_file(path, os.O_RDONLY), "rb") as file:  # noqa: PTH123
                file.seek(self._read_bytes.get(job_id, 0))
                rest += file.read(-1 if is_last else MAX_READ_BYTES)
                self._read_bytes[job_id] = file.tell()
        except OSError:
            pass  # it has not printed anything
        return rest
