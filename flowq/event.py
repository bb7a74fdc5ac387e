"""Events of runs as programs get them: from `flowq.events`, on asyncio, and by `--json-lines`.

`flowq.status.Event` is an entry of a run's log, as scripts write it; `Event` here is what is said
of it, with the names and units that JSON has. `render/json.py` writes exactly these fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flowq import status
from flowq.history import Attempt
from flowq.reports import Progress
from flowq.status import STATE_BY_EVENT

__all__ = ["Event", "EventError", "Progress"]


@dataclass(frozen=True, slots=True)
class EventError:
    """Why an attempt failed: the exception's class where one is known, and its first line.

    `exit_code` is that of a command.
    """

    type: str | None
    message: str
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One transition of a job, or of the run itself: then `name` and `job_id` are empty.

    Attributes:
        id: its position, for `after=`.
        at: when the run was told, as aware UTC.
        run: the id of the run.
        event: what happened: a state of a job or of a run, or `handed` (a worker has the job, and
            has not begun it), `returned` (it gave the job back), `progressed`, or `removed` (what
            the job is a part of begins anew). There may be others in later versions.
        status: the state of the job, or of the run, since then.
        name: what the run calls the job.
        started_at, duration_s: of the attempt that has ended.
        progress: of `progressed`: what the job has reported.
        act, by: what somebody has done, `approve`, `reject`, `cancel`, `release` or `retry`, if
            that is why there is this event; and who, which is not verified. There is one event for
            each act. Of a `cancel`, the run goes on until its jobs have ended.
        target: to which job or group they did it; empty for the run.
    """

    id: str
    at: datetime
    run: str
    event: str
    status: str
    name: str = ""
    job_id: str = ""
    reason: str = ""
    worker: str = ""
    started_at: datetime | None = None
    duration_s: float | None = None
    error: EventError | None = None
    progress: Progress | None = None
    act: str = ""
    by: str = ""
    target: str = ""


def read_entry(run_id: str, entry: status.Event, position: str = "") -> Event:
    """Return what an entry of a run's log says; `position` is its id if it has another one."""
    error = None
    if entry.error or entry.exit_code is not None:
        attempt = Attempt(0, error=entry.error)
        error = EventError(attempt.error_type, attempt.error_message, entry.exit_code)
    return Event(
        id=position or entry.id,
        at=entry.at,
        run=run_id,
        event=entry.state,
        status=STATE_BY_EVENT.get(entry.state, entry.state),
        name=entry.name,
        job_id=entry.job_id,
        reason=entry.reason,
        worker=entry.worker,
        started_at=entry.began_at,
        duration_s=None if entry.took_ms is None else entry.took_ms / 1000,
        error=error,
        progress=entry.progress,
        act=entry.act,
        by=entry.by,
        target=entry.acted_on,
    )
