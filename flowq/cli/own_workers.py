"""The workers that a command starts for its run."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress

from flowq.cli import logs
from flowq.cli.display import Display
from flowq.cli.place import Place
from flowq.client import Run
from flowq.errors import FlowqError
from flowq.status import RunStatus
from flowq.workers import serving
from flowq.workers.reaping import reap_orphans

MAX_STARTS, STARTS_WITHIN_S = 4, 60.0
END_S = 5.0


class OwnWorkers:
    """Workers for one run. They end when the run has ended, whatever becomes of this process.

    Those that are killed are replaced; maintenance finds the jobs that they were executing.
    """

    def __init__(self, run: Run, place: Place, concurrency: int | None) -> None:
        self._run = run
        self._place = place
        self._concurrency = concurrency
        self._log_folder = logs.find_folder()
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
                f"the workers end again and again ({ending}), so the run is canceled; "
                f"they may have said why in {self._log_folder}/{logs.WORKER_LOG}"
            )
        display.note(f"the workers are gone ({ending}); starting others")
        self._process = self._start()

    def end(self) -> None:
        """Let them end now; by themselves they would a moment after the run.

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
