"""The list of schedules that the server knows."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from flowq import scheduling
from flowq.client import list_schedules, submit
from flowq.compiling import compile_plan
from flowq.runtime import keys
from flowq.runtime.schedules import record_schedule
from flowq.spec import Schedule
from tests.runtime.test_scheduling import HOUR, Clock, begun, scheduled

Work = Callable[..., None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that schedulers read, which a test sets."""
    clock = Clock()
    monkeypatch.setattr(scheduling, "read_clock", clock)
    return clock


def test_a_schedule_is_listed_with_its_next_time_its_process_and_its_last_runs(
    connection: Redis, work: Work, clock: Clock
) -> None:
    workflow = replace(scheduled("0 * * * *", "UTC"), name="hourly report")
    scheduler = begun(workflow, connection)
    for _ in range(7):
        clock.now += HOUR
        scheduler.tick()
    work()
    submit(compile_plan(workflow, {"word": "by hand"}, imports=False), connection)
    (record,) = list_schedules(connection)
    assert (record.workflow, record.is_paused) == ("hourly report", False)
    assert record.schedules == (Schedule("0 * * * *", "UTC"),)
    assert record.next_due_at is not None
    left = record.next_due_at - datetime.now(UTC)  # of the server, whose clock nobody has set
    assert timedelta(0) < left <= HOUR + timedelta(minutes=1)
    assert (record.host, record.pid) == (socket.gethostname(), os.getpid())
    assert record.served_at == clock.now
    assert [each.state for each in record.runs] == ["succeeded"] * 5
    assert all(each.due_at for each in record.runs)
    assert list_schedules(connection, 0)[0].runs == ()
    scheduler.leave()
    assert scheduling.pause("hourly report", connection)
    (record,) = list_schedules(connection)
    assert (record.is_paused, record.host, record.pid) == (True, "", None)


def test_a_schedule_is_recorded_once_an_hour_and_by_who_takes_over(
    connection: Redis, clock: Clock
) -> None:
    first, second = begun(scheduled(), connection), begun(scheduled("0 7 * * *"), connection)
    connection.delete(keys.SCHEDULES)
    for each in (first, second, first, second):
        each.tick()
    assert list_schedules(connection) == []
    clock.now += timedelta(minutes=61)
    first.tick()
    assert [each.schedules[0].cron for each in list_schedules(connection)] == ["0 6 * * *"]
    first.leave()
    second.tick()
    assert [each.schedules[0].cron for each in list_schedules(connection)] == ["0 7 * * *"]


def test_the_list_of_schedules_is_bounded_and_forgets_what_nobody_serves(
    connection: Redis, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.runtime.schedules.MOST_WORKFLOWS", 3)
    for number in range(5):
        clock.now += timedelta(seconds=1)
        begun(replace(scheduled(), name=f"flow{number}"), connection)
    names = sorted(each.workflow for each in list_schedules(connection))
    assert names == ["flow2", "flow3", "flow4"]
    clock.now += timedelta(days=31)
    begun(replace(scheduled(), name="late"), connection)
    assert [each.workflow for each in list_schedules(connection)] == ["late"]


def test_a_schedule_that_an_older_version_has_paused_or_that_has_an_unknown_zone_is_listed(
    connection: Redis,
) -> None:
    scheduling.pause("older", connection)
    (record,) = list_schedules(connection)
    assert (record.schedules, record.next_due_at, record.served_at) == ((), None, None)
    record_schedule("older", [Schedule("0 6 * * *", "Mars/Olympus")], connection, time.time())
    (record,) = list_schedules(connection)
    assert (record.schedules[0].timezone, record.next_due_at) == ("Mars/Olympus", None)
