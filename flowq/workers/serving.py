"""Workers for one run: on the private server of a folder each run has its own.

A run submitted with `is_apart` has its own queue, and its workers serve only that queue, with the
environment of the command that started them and the modules of its folder. Children exist only
while there is work, so they import the code as it is at that time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rq.utils import as_text

from flowq.runtime import keys
from flowq.runtime.listening import end_start, note_start
from flowq.runtime.runs import get_record, read_job_records, set_apart, will_grow
from flowq.workers import launch
from flowq.workers.processes import Mode

if TYPE_CHECKING:
    from redis import Redis

REST_AFTER_S = 30
"""After so long without work, a small process takes the place of the workers (resting.py)."""


def serve(
    run_id: str,
    connection: Redis,
    url: str,
    *,
    concurrency: int | None = None,
    log_folder: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start workers for a run of the private server; they end with it.

    A run that shared its queues until now gets one of its own. `concurrency`: how many jobs at a
    time, by default one for each core. Errors: RunNotFound; OSError when it cannot be started.
    """
    queue = set_apart(run_id, connection)
    note_start(run_id, connection)
    start = partial(
        launch.start,
        url=url,
        queues=[queue],
        concurrency=concurrency or _find_concurrency(run_id, connection),
        paths=_import_path(run_id, connection),
        log_folder=log_folder,
        until_run=run_id,
        mode=own_mode(),
        can_rest=True,
        max_idle_time=REST_AFTER_S,
        client_name=keys.server_of_run(run_id),
        allow=[],  # the code belongs to the user who started the run
    )
    try:
        return start()
    except OSError:
        end_start(run_id, connection)
        raise


def serve_with_others(
    run_id: str,
    connection: Redis,
    url: str,
    *,
    concurrency: int | None = None,
    log_folder: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start workers on the queues of a run of a shared server, which end with the run.

    They execute all jobs on these queues, and other workers may take jobs of the run.
    Errors: as `serve`.
    """
    ids = [as_text(job_id) for job_id in connection.lrange(keys.run_jobs(run_id), 0, -1)]
    records = read_job_records(ids, connection).values()
    return launch.start(
        url=url,
        queues=sorted({job.origin for job in records}),
        concurrency=concurrency or _find_concurrency(run_id, connection),
        paths=_import_path(run_id, connection),
        log_folder=log_folder,
        until_run=run_id,
        mode=own_mode(),
    )


def own_mode() -> Mode:
    """Return the start method for workers that a command starts: kept children, started safely."""
    return "warm" if sys.platform == "linux" else "multiprocessing"


def _find_concurrency(run_id: str, connection: Redis) -> int:
    """Return one for each core, but no more than the run has jobs if it will get no others."""
    cores = count_cores()
    jobs: int = connection.llen(keys.run_jobs(run_id))
    if jobs >= cores or will_grow(run_id, connection):
        return cores
    return max(1, jobs)


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _import_path(run_id: str, connection: Redis) -> list[str]:
    """Return the folders in which to look for the run's modules, in the order of `flowq check`.

    These are the workflow's folder, the current one, then the folders of nested workflows.
    """
    first, *others = [*get_record(run_id, connection).folders, ""]
    return [*dict.fromkeys(filter(None, [first, str(Path.cwd()), *others]))]
