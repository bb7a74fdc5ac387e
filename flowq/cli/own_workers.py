"""The workers that a command starts for its run, and the log that they write about themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from flowq.cli.display import Display
from flowq.cli.place import Place
from flowq.client import Run
from flowq.errors import FlowqError, StateUnusable
from flowq.server import private, state
from flowq.status import RUN_ENDED, RunStatus
from flowq.workers import launch, serving
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

    def wait(self) -> None:
        """Wait until those have ended that were started first. Blocks."""
        self._process.wait()

    def look(self, status: RunStatus, display: Display) -> None:
        """Replace them when they are gone before the run has ended.

        Errors: FlowqError when they are gone again and again; the run is canceled then.
        """
        reap_orphans([self._process.pid])
        if status.is_ended or self._process.poll() is None:
            return
        if self._run.record().state in RUN_ENDED:  # the status is older: a display may be slow
            return
        ending = launch.describe_ending(self._process.returncode)
        recent = [at for at in self._started_at if time.monotonic() - at < STARTS_WITHIN_S]
        if len(recent) >= MAX_STARTS:
            self._run.cancel(may_wait=False)
            raise FlowqError(
                f"the workers keep ending ({ending}), so the run is canceled; "
                f"they may have said why in {self._log_folder}/{launch.WORKER_LOG}"
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


KEEP_S = 7 * 86_400.0
"""How long files of older versions stay in the folder, which had one for the output of each job."""

MAX_WORKER_LOG_BYTES = 5_000_000


def find_folder() -> Path | None:
    """Create the folder for the workers' log, and cut a long one; None if that is not possible.

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
        elif log.name == launch.WORKER_LOG and status.st_size > MAX_WORKER_LOG_BYTES:
            os.close(private.open_file(log, os.O_WRONLY | os.O_TRUNC))
