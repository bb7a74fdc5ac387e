"""Jobs on RQ's schedule: when one goes on, from the reason in its event, and what its polls found.

A job is on the schedule while it waits for the back-off of a retry, sleeps, or waits for its next
poll. `flowq/runtime/work.py` and `lua/pauses.lua` write what is read here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flowq.durations import parse_duration

SLEEPING = "sleeps until"
POLLED = "polled"
PAUSES = (SLEEPING, POLLED)
"""What the reason of a job begins with that pauses: `sleeps until 2026-12-24T08:00:00Z`, `polled 3
times; again in 30s`. The execution before is no attempt."""

_AGAIN = re.compile(r"; again in ([^;]+)$")
"""How long a job waits that tries or polls again, at the end of the reason."""


@dataclass(frozen=True, slots=True)
class Polls:
    """What the polls of a job have found so far.

    `last` has the newest of them, each with a view of its result (`flowq.runtime.views`). Units:
    instants are aware UTC.
    """

    count: int
    since: datetime
    last: tuple[tuple[datetime, Any], ...] = ()


def find_due(reason: str, at: datetime) -> datetime | None:
    """Return when a job goes on that was scheduled at that instant, for that reason."""
    again = _AGAIN.search(reason)
    try:
        if reason.startswith(SLEEPING):
            return datetime.fromisoformat(reason.rpartition(" ")[2])
        return None if again is None else at + timedelta(seconds=parse_duration(again[1]))
    except (ValueError, OverflowError):  # in the words of another version
        return None


def find_sleep(
    state: str, reason: str, at: datetime, since: datetime | None = None
) -> datetime | None:
    """Return since when a job sleeps, or has slept, after an event; `since`: the same before it."""
    if state == "scheduled" and reason.startswith(SLEEPING):
        return since or at
    return since if state in ("queued", "handed", "returned", "started") else None


def read_polls(written: str) -> Polls | None:
    """Return the polls in a field of the job, which user code may have changed; None for others."""
    try:
        said = json.loads(written) if written else None
        if not said:
            return None
        last = tuple((_to_instant(at), json.loads(view)) for at, view in said["last"])
        return Polls(int(said["count"]), _to_instant(said["since"]), last)
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return None


def _to_instant(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)
