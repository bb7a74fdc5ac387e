"""`flowq.progress`: how far a running job says that it has come.

The last report of an attempt counts. It is kept in the job's hash and, in a run, as one event that
the next report replaces: a job that reports for hours adds one event to the log, not thousands.

In a child of flowq's workers a report goes to memory that the child shares with its supervisor,
which writes it to Redis every half second, and with the end of the job: reporting takes
microseconds, waits for no server, and what a killed process has reported last is known. RQ's own
workers have no such memory, so there the job writes it itself, at most as often. Commands of
shell jobs report by a file (`command_progress.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError
from rq import get_current_job

from flowq.reports import Progress, check_progress, write_progress
from flowq.runtime import scripts
from flowq.runtime.connections import is_passing
from flowq.runtime.masking import Mask

EVERY_S = 0.5
"""The shortest time between two writes about a job."""

Report = Callable[[Progress], None]

log = logging.getLogger("rq.worker")

_report: Report | None = None


def set_reporter(report: Report | None) -> None:
    """Have `progress` call this, in a child of flowq's workers."""
    global _report  # noqa: PLW0603 - a process executes one job at a time
    _report = report


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """Report how far the running job has come: `done` of `total`, if that is known.

        for number, page in enumerate(pages):
            flowq.progress(number, len(pages), f"reading {page}")

    Call it as often as you like: the last report is shown, at most twice a second, and with the
    end of the job. Another attempt of the job begins without one. It never fails because of the
    server, and does nothing outside of jobs, as in a test that calls the function. Secrets are
    hidden in the message, of which 200 characters are kept.

    Errors: UsageError for a `done` or a `total` that is no finite number, is negative, or is above
    10**15; for a `total` of 0; and for a message that is no text.
    """
    (_report or _write_itself)(check_progress(done, total, message))


# In RQ's own workers --------------------------------------------------------------------------

_last: tuple[str, float] = ("", 0.0)
"""The job about which this process has written last, and when."""

_pending: tuple[Any, str] | None = None
"""What it has not written, because it wrote a moment ago: the job, and the text."""

_mask = Mask()


def hide_with(mask: Mask) -> None:
    """Hide these secrets in the messages of this process's reports."""
    global _mask  # noqa: PLW0603 - a process executes one job at a time
    _mask = mask


def _write_itself(said: Progress) -> None:
    global _pending  # noqa: PLW0603 - a process executes one job at a time
    job = get_current_job()
    if job is None:
        return
    _pending = job, write_progress(said, _mask.hide)
    if job.id != _last[0] or time.monotonic() - _last[1] >= EVERY_S:
        flush(job.id)


def flush(job_id: str) -> None:
    """Write what this process has not written yet about a job, which is about to end."""
    global _last, _pending  # noqa: PLW0603 - a process executes one job at a time
    if _pending is None or _pending[0].id != job_id:
        return
    (job, text), _pending = _pending, None
    _last = job.id, time.monotonic()
    try:
        scripts.PROGRESS.call(job.connection, job.key, job.worker_name or "", job.id, "", "", text)
    except RedisError as error:
        if not is_passing(error):
            log.warning("the progress of job %s is not written: %s", job.id, error)
