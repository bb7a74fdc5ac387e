"""The schedules that the server knows: what the process that serves one has written down.

A `Scheduler` (flowq/scheduling.py) records what it serves when it begins to, and once an hour. A
schedule that nothing has served for `FORGOTTEN_AFTER_S` is not listed any more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from rq.utils import as_text

from flowq.cron import find_next
from flowq.runtime import keys
from flowq.runtime.connections import read_clock, read_each
from flowq.runtime.run_lists import RunFilter, iterate_runs
from flowq.spec import Schedule
from flowq.status import RunRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

FORGOTTEN_AFTER_S = 30 * 86_400.0

MOST_WORKFLOWS = 1_000
"""How many workflows with a schedule are listed: those that were recorded last."""

MOST_SCHEDULES = 100
"""How many schedules of one workflow are recorded."""

RUNS_LOOKED_AT = 200
"""Among so many of a workflow's last runs, those are looked for that its schedule has submitted."""

_FIELDS = ("schedules", "served_at", "paused")


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    """The schedule of a workflow, as far as the server knows it. Units: instants are aware UTC.

    Attributes:
        schedules: without their inputs; empty if a process of an older version serves them.
        next_due_at: when the first one is due next, also while it is paused.
        served_at: until when due times have been dealt with; None if nothing has served it yet.
        host, pid: the process that submits its runs; empty and None if there is none now.
        runs: those that it has submitted, newest first.
    """

    workflow: str
    schedules: tuple[Schedule, ...]
    next_due_at: datetime | None
    is_paused: bool
    served_at: datetime | None
    host: str
    pid: int | None
    runs: tuple[RunRecord, ...] = ()


def record_schedule(
    workflow: str, schedules: Sequence[Schedule], connection: Redis, now_s: float
) -> None:
    """Write down which schedules of a workflow this process serves from now on."""
    told = [
        {"cron": each.cron, "timezone": each.timezone, "catch_up": each.catch_up}
        for each in schedules[:MOST_SCHEDULES]
    ]
    with connection.pipeline() as pipeline:
        pipeline.hset(keys.schedule(workflow), "schedules", json.dumps(told))
        list_schedule(workflow, now_s, pipeline)
        pipeline.execute()


def list_schedule(workflow: str, now_s: float, connection: Redis) -> None:
    """Put a workflow into the list, and take the oldest out of it. `connection`: or a pipeline."""
    connection.zadd(keys.SCHEDULES, {workflow: now_s})
    connection.zremrangebyscore(keys.SCHEDULES, "-inf", now_s - FORGOTTEN_AFTER_S)
    connection.zremrangebyrank(keys.SCHEDULES, 0, -MOST_WORKFLOWS - 1)


def list_schedules(connection: Redis, runs: int = 5) -> list[ScheduleRecord]:
    """Return the schedules, those that are due first; with at most so many of their last runs."""
    now = datetime.fromtimestamp(read_clock(connection), UTC)
    names = [as_text(raw) for raw in connection.zrange(keys.SCHEDULES, 0, -1)]  # type: ignore[arg-type]
    answers = read_each(
        names,
        connection,
        lambda pipe, name: (
            pipe.hmget(keys.schedule(name), _FIELDS),
            pipe.get(keys.scheduler(name)),
        ),
    )
    found = [
        _make_record(name, values, holder, now, tuple(_find_runs(name, connection, runs)))
        for name, (values, holder) in answers
    ]
    return sorted(found, key=lambda each: (each.next_due_at is None, each.next_due_at or now))


def _find_runs(name: str, connection: Redis, most: int) -> Iterator[RunRecord]:
    left = most
    if not left:
        return
    looked_at = iterate_runs(connection, RunFilter(workflow=name))
    for record, _ in zip(looked_at, range(RUNS_LOOKED_AT), strict=False):
        if record.due_at is None:
            continue
        yield record
        left -= 1
        if not left:
            return


def _make_record(
    name: str, values: Any, holder: Any, now: datetime, runs: tuple[RunRecord, ...]
) -> ScheduleRecord:
    told, served_at, paused = values
    schedules = tuple(
        Schedule(each["cron"], each["timezone"], catch_up=each["catch_up"])
        for each in json.loads(told or b"[]")
    )
    return ScheduleRecord(
        name,
        schedules,
        min(_find_dues(schedules, now), default=None),
        paused is not None,
        datetime.fromtimestamp(float(served_at), UTC) if served_at else None,
        *read_holder(as_text(holder or b"")),
        runs,
    )


def _find_dues(schedules: Sequence[Schedule], now: datetime) -> Iterator[datetime]:
    for each in schedules:
        with suppress(
            ValueError, KeyError, OSError
        ):  # the database of time zones may be another one here
            yield find_next(each.cron, ZoneInfo(each.timezone), now)


def read_holder(token: str) -> tuple[str, int | None]:
    """Return the host and the id of the process that holds the lease of a schedule."""
    host, pid, _ = token.rsplit(" ", 2) if token.count(" ") > 1 else ("", "", "")
    return (host, int(pid)) if pid.isdecimal() else ("", None)
