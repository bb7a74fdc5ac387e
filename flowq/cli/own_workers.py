"""The workers that a command starts for its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from flowq import workers
from flowq.cli import logs
from flowq.cli.display import Display
from flowq.client import Run
from flowq.errors import FlowqError
from flowq.status import RunStatus

MAX_STARTS, STARTS_WITHIN_S = 4, 60.0
END_S = 5.0


class OwnWorkers:
    """Workers for one run. They end when the run has ended, whatever becomes of this process.

    Those that are killed are replaced; maintenance finds the jobs that they were executing.
    """

    def __init__(self, run: Run, url: str, concurrency: int | None) -> None:
        self._run = run
        self._url = url
        jobs = run.facts()
        self._queues = sorted({job.queue for job in jobs.values()})
        self._folders = run.record().folders
        self._concurrency = max(1, min(concurrency or count_cores(), len(jobs)))
        self._log_folder = logs.find_folder()
        self._started_at: list[float] = []
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._started_at.append(time.monotonic())
        return workers.start(
            url=self._url,
            queues=self._queues,
            concurrency=self._concurrency,
            paths=_paths(self._folders),
            log_folder=str(self._log_folder) if self._log_folder else None,
            until_run=self._run.run_id,
            mode="warm" if sys.platform == "linux" else "multiprocessing",
        )

    def look(self, status: RunStatus, display: Display) -> None:
        """Replace them when they are gone before the run has ended.

        Errors: FlowqError when they are gone again and again; the run is canceled then.
        """
        if status.is_ended or self._process.poll() is None:
            return
        ending = _ending(self._process.returncode)
        recent = [at for at in self._started_at if time.monotonic() - at < STARTS_WITHIN_S]
        if len(recent) >= MAX_STARTS:
            self._run.cancel()
            raise FlowqError(
                f"the workers end again and again ({ending}), so the run is canceled; "
                f"they may have said why in {self._log_folder}/{logs.WORKER_LOG}"
            )
        display.note(f"the workers are gone ({ending}); starting others")
        self._process = self._start()

    def end(self) -> None:
        """Let them end now; by themselves they would a moment after the run.

        Blocks: for a few seconds at most, when they are busy with another run.
        """
        if self._process.poll() is not None:
            return
        if hasattr(signal, "SIGKILL"):  # else `terminate` would not ask them, but kill them
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _paths(folders: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys([str(Path.cwd()), *folders]))


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
