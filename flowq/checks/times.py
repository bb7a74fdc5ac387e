"""The rules of schedules and timeouts: they can be understood, and mean something."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

from flowq.cron import find_next
from flowq.durations import write_duration
from flowq.errors import Problem
from flowq.graph import Graph
from flowq.nearest import find_nearest
from flowq.problems import BAD_CRON, TIMEOUT_TOO_LONG, UNKNOWN_TIME_ZONE
from flowq.spec import Path, Workflow

SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)
"""Whether there is a next time does not depend on the day on which that is asked."""

_MAX_CRON = 1_000
"""Characters of a cron expression."""


def check_schedule(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """The `cron` and the `timezone` of a schedule can be understood."""
    schedule = workflow.schedule
    if schedule is None:
        return
    if reason := _find_refusal(schedule.cron):
        where = workflow.places.find("schedule", "cron")
        hint = 'five fields: minute hour day month weekday, as in "30 2 * * 1-5"'
        message = f"{schedule.cron!r:.200} is no cron expression{reason}"
        yield Problem(BAD_CRON, message, where, hint)
    if not _is_zone(schedule.timezone):
        where = workflow.places.find("schedule", "timezone")
        message = f"there is no time zone {schedule.timezone!r:.200}"
        near = find_nearest(schedule.timezone[:200], sorted(available_timezones()))
        hint = f"did you mean {near!r}?" if near else "write one of IANA's, as in Europe/Berlin"
        yield Problem(UNKNOWN_TIME_ZONE, message, where, hint)


def check_timeouts(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A job may not take longer than the workflow around it (a warning)."""
    if (most := workflow.timeout_s) is None:
        return
    said: list[tuple[Path, str, float | None]] = [
        (("jobs", job.name, "timeout"), f"job {job.name} has", job.timeout_s)
        for job in workflow.jobs
    ]
    default = workflow.defaults.timeout_s
    for path, owner, timeout_s in [(("defaults", "timeout"), "`defaults` has", default), *said]:
        if timeout_s is not None and timeout_s > most:
            own, whole = write_duration(timeout_s), write_duration(most)
            message = f"{owner} a timeout of {own}, and the workflow one of {whole}"
            where = workflow.places.find(*path)
            hint = "the whole run is canceled first: make one of them shorter, or the other longer"
            yield Problem(TIMEOUT_TOO_LONG, message, where, hint, severity="warning")


def _find_refusal(cron: str) -> str:
    if len(cron) > _MAX_CRON:
        return f": it has more than {_MAX_CRON:,} characters"
    fields = len(cron.split())
    if fields != 5:
        return f": it has {fields} field{'' if fields == 1 else 's'}, not 5"
    try:
        find_next(cron, UTC, SOME_DAY)
    except (ValueError, KeyError):
        return " that has a next time"
    return ""


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return False
    return True
