"""`schedule`: runs that are submitted when their time has come."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import redis
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

import flowq
import flowq.aio
from flowq import scheduling
from flowq.client import Run, submit
from flowq.compiling import compile_plan
from flowq.errors import RunNotFound, UsageError, WorkflowInvalid, WrongState
from flowq.runtime import keys, retry, run_lists, runs
from flowq.runtime.connections import read_clock
from flowq.runtime.steps import finish
from flowq.scheduling import Due, Scheduler, find_due, find_next_due, plan_due, submit_scheduled
from flowq.spec import Input, Schedule, Workflow
from tests.reading import parse_workflow
from tests.runtime.language import job

Work = Callable[..., None]
JOBS = (job("only", "give", with_={"value": "${{ inputs.word }}"}),)
INPUTS = (Input("word"),)
BEGIN = datetime(2026, 11, 29, 12, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)


def scheduled(cron: str = "0 6 * * *", timezone: str = "Asia/Tokyo", **more: Any) -> Workflow:
    return Workflow("demo", JOBS, INPUTS, schedule=Schedule(cron, timezone, **more))


class Clock:
    """The clock of the server, as schedulers read it."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self, connection: Redis) -> float:
        return self.now.timestamp()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that a test sets."""
    clock = Clock()
    monkeypatch.setattr(scheduling, "read_clock", clock)
    return clock


def due_of_runs(connection: Redis) -> list[str]:
    """When the runs were due, in UTC, in order; without those that were never committed."""
    records = run_lists.iterate_runs(connection)
    found = (record.due_at for record in records if record.state != "staged")
    return sorted(f"{at.astimezone(UTC):%d %H:%M}" for at in found if at)


def begun(workflow: Workflow, connection: Redis) -> Scheduler:
    """A scheduler that has looked at the clock once."""
    scheduler = Scheduler(workflow, {"word": "hi"}, connection)
    scheduler.tick()
    return scheduler


def test_times_are_those_of_the_workflows_zone() -> None:
    due = find_next_due(scheduled(), BEGIN)
    assert due.at.astimezone(UTC).hour == 21
    assert f"{due.at:%H:%M %Z}" == "06:00 JST"


def test_due_times_that_passed_while_nobody_looked_are_made_up_for_within_an_hour(
    connection: Redis, clock: Clock
) -> None:
    scheduler = begun(scheduled("*/10 * * * *"), connection)
    clock.now += timedelta(days=2)  # the machine stood still
    scheduler.tick()
    scheduler.tick()
    expected = [f"01 {time}" for time in ("11:10", "11:20", "11:30", "11:40", "11:50", "12:00")]
    assert due_of_runs(connection) == expected


def test_a_run_is_submitted_when_its_time_has_come_and_once(
    connection: Redis, work: Work, clock: Clock
) -> None:
    scheduler = begun(scheduled(), connection)
    scheduler.tick()
    assert due_of_runs(connection) == []
    clock.now = find_next_due(scheduled(), BEGIN).at
    for _ in range(3):
        scheduler.tick()
    work()
    (record,) = list(run_lists.iterate_runs(connection))
    assert (record.state, record.inputs) == ("succeeded", {"word": "hi"})
    assert (record.due_at, record.submitted_by) == (clock.now, "schedule")


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        ("none", []),
        ("last", ["01 12:00"]),
        ("all", ["29 18:00", "30 12:00", "30 18:00", "01 12:00"]),
    ],
)
def test_what_fell_due_while_no_scheduler_ran_is_made_up_for_as_declared(
    catch_up: Any, expected: list[str], connection: Redis, clock: Clock
) -> None:
    workflow = scheduled("0 12,18 * * *", "UTC", catch_up=catch_up)
    begun(workflow, connection).leave()
    clock.now = BEGIN + timedelta(days=2)
    begun(workflow, connection).tick()
    assert due_of_runs(connection) == sorted(expected)


def test_what_fell_due_just_before_another_process_took_over_is_not_missed(
    connection: Redis, clock: Clock
) -> None:
    begun(scheduled("*/10 * * * *"), connection).leave()
    clock.now = BEGIN + timedelta(minutes=5, seconds=30)
    begun(scheduled("*/10 * * * *"), connection)
    assert due_of_runs(connection) == ["29 12:10"]


def test_many_due_times_are_submitted_in_parts_and_none_is_left_out(
    connection: Redis, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "PER_TICK", 2)
    more = (Schedule("5,35 * * * *", inputs={"word": "half"}),)
    own = scheduled("0 * * * *", "UTC", catch_up="all", inputs={"word": "whole"})
    scheduler = Scheduler(replace(own, more_schedules=more), {}, connection)
    scheduler.tick()
    clock.now += timedelta(hours=3)
    for _ in range(6):
        scheduler.tick()
    hours = ["29 13:00", "29 14:00", "29 15:00"]
    assert due_of_runs(connection) == sorted([*hours, "29 14:35", "29 15:05"])


def test_two_schedules_lose_no_due_time_in_the_hour_that_comes_twice(
    connection: Redis, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "PER_TICK", 3)
    clock.now = begin = datetime(2026, 10, 24, 23, 50, tzinfo=UTC)
    workflow = scheduled("*/20 * * * *", "Europe/Berlin", catch_up="all")
    more = (Schedule("5-59/20 * * * *", "Europe/Berlin", catch_up="all"),)
    workflow = replace(workflow, more_schedules=more)
    scheduler = begun(workflow, connection)
    clock.now += 3 * HOUR
    expected = [f"25 {hour:02}:{at:02}" for hour in range(3) for at in (0, 5, 20, 25, 40, 45)]
    for _ in range(len(expected) // 3):
        scheduler.tick()
    assert due_of_runs(connection) == expected
    assert (
        connection.hget(keys.schedule("demo"), "served_at") == str(clock.now.timestamp()).encode()
    )
    found = [
        find_due(workflow, begin, clock.now),
        scheduling.find_range(workflow, "2026-10-25T01:50", "2026-10-25T03:50", clock.now),
        scheduling.find_range(workflow, "2026-10-25T02:00", "2026-10-25T02:45", clock.now),
    ]
    times = [[f"{due.at.astimezone(UTC):%d %H:%M}" for due in dues] for dues in found]
    assert times == [expected, expected, expected[:12]]


def test_a_paused_schedule_submits_nothing_and_goes_on_as_declared(
    connection: Redis, clock: Clock
) -> None:
    for catch_up, expected in (("none", ["29 15:00"]), ("last", ["29 14:00", "29 15:00"])):
        connection.flushdb()
        clock.now = BEGIN
        scheduler = begun(scheduled("0 * * * *", "UTC", catch_up=catch_up), connection)
        assert scheduling.pause("demo", connection)
        assert not scheduling.pause("demo", connection)
        clock.now += 2 * HOUR
        scheduler.tick()
        assert due_of_runs(connection) == []
        assert scheduling.is_paused("demo", connection)
        assert scheduling.resume("demo", connection)
        assert not scheduling.resume("demo", connection)
        scheduler.tick()
        clock.now += HOUR
        scheduler.tick()
        assert due_of_runs(connection) == expected


def test_a_clock_that_is_put_back_makes_nothing_due_twice(connection: Redis, clock: Clock) -> None:
    workflow = scheduled("0 * * * *", "UTC", catch_up="all")
    scheduler = begun(workflow, connection)
    clock.now += 3 * HOUR
    scheduler.tick()
    clock.now -= 2 * HOUR
    scheduler.tick()
    clock.now += 3 * HOUR
    scheduler.tick()
    begun(workflow, connection).tick()
    assert due_of_runs(connection) == ["29 13:00", "29 14:00", "29 15:00", "29 16:00"]
    connection.hset(keys.schedule("demo"), "served_at", 4e9)  # the year was wrong
    clock.now += HOUR
    scheduler.tick()
    clock.now += HOUR
    scheduler.tick()
    assert due_of_runs(connection)[4:] == ["29 18:00"]


# Inputs, and the due time ------------------------------------------------------------------------

REGIONS = """\
name: regions
inputs: {day: {type: str}, region: {type: str, default: eu}}
labels: {day: "${{ inputs.day }}"}
schedule:
  - {cron: "30 2 * * *", timezone: Europe/Berlin, inputs: {day: "${{ run.due_at[:10] }}"}}
  - cron: "30 2 * * *"
    timezone: Europe/Berlin
    inputs: {day: "${{ run.due_at[:10] }}", region: us}
workflows:
  inner: {outputs: {at: "${{ jobs.a.result }}"}, jobs: {a: {run: [echo, "${{ run.due_at }}"]}}}
outputs: {at: "${{ run.due_at }}", inner: "${{ jobs.nested.result.at }}"}
jobs:
  load: {run: [echo, "${{ inputs.day }}", "${{ inputs.region }}", "${{ run.due_at }}"]}
  nested: {workflow: inner, needs: load}
"""


def test_each_schedule_has_its_inputs_and_jobs_know_when_they_were_due(
    connection: Redis, work: Work, clock: Clock
) -> None:
    workflow = parse_workflow(REGIONS, "regions.yaml")
    workflow = replace(workflow, more_schedules=workflow.more_schedules * 2)
    scheduler = Scheduler(workflow, {}, connection)
    scheduler.tick()
    clock.now = datetime(2026, 11, 30, 1, 30, tzinfo=UTC)
    scheduler.tick()
    records = list(run_lists.iterate_runs(connection))
    assert sorted(record.inputs["region"] for record in records) == ["eu", "us"]
    assert {record.labels["day"] for record in records} == {"2026-11-30"}
    work()
    due_at = "2026-11-30T02:30:00+01:00"
    for record in records:
        run = Run(record.run_id, connection)
        assert run.result("load") == f"2026-11-30 {record.inputs['region']} {due_at}"
        assert run.outputs() == {"at": due_at, "inner": due_at}
        retry.retry(record.run_id, connection, "load")
    clock.now += HOUR
    work()
    assert run.result("load").endswith(due_at)


def test_a_run_that_no_schedule_submitted_has_no_due_time(connection: Redis, work: Work) -> None:
    flow = Workflow("plain", (job("only", "give", with_={"value": "${{ run.due_at or 'no' }}"}),))
    run = submit(compile_plan(flow), connection)
    work()
    assert run.result("only") == "no"
    assert run.record().due_at is None


@pytest.mark.parametrize(
    ("workflow", "says"),
    [
        (Workflow("demo", JOBS, INPUTS), "has no schedule"),
        (scheduled("every day"), "is not a cron"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(workflow: Workflow, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        list(find_due(workflow, BEGIN, BEGIN + HOUR))


def test_inputs_without_a_value_keep_no_other_run_from_being_submitted(
    connection: Redis, clock: Clock
) -> None:
    more = (Schedule("0 * * * *", inputs={"word": "${{ run.due_at[99] }}"}),)
    told: list[str] = []
    workflow = replace(scheduled("0 * * * *", inputs={"word": "x"}), more_schedules=more)
    scheduler = Scheduler(workflow, {}, connection, told.append)
    scheduler.tick()
    clock.now += HOUR
    scheduler.tick()
    scheduler.tick()
    assert due_of_runs(connection) == ["29 13:00"]
    assert sum("is not submitted" in each for each in told) == 1
    with pytest.raises(WorkflowInvalid, match="FQ305"):
        plan_due(workflow, Due(BEGIN, more[0]), {})


def test_a_run_that_was_removed_while_it_was_submitted_is_submitted_again(
    connection: Redis, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = begun(scheduled("0 * * * *"), connection)
    answers = [RunNotFound("x"), None]

    def submit_slowly(*arguments: Any, **options: Any) -> Any:
        if answer := answers.pop(0):
            raise answer
        return submit(*arguments, **options)

    monkeypatch.setattr(scheduling, "submit", submit_slowly)
    clock.now += HOUR
    scheduler.tick()
    assert due_of_runs(connection) == []
    clock.now += HOUR / 4
    scheduler.tick()
    assert due_of_runs(connection) == ["29 13:00"]


def test_a_scheduler_goes_on_after_an_outage_and_gives_its_lease_back_at_the_end(
    connection: Redis, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    scheduler = Scheduler(scheduled("0 * * * *"), {"word": "hi"}, connection, told.append)
    looks, revivals, tick = iter(range(9)), [], scheduler.tick

    def look() -> None:
        if next(looks) in (1, 2):
            raise redis.ConnectionError("Connection refused.")
        tick()

    def wait(seconds: float) -> bool:
        clock.now += HOUR / 2
        return len(due_of_runs(connection)) == 2

    monkeypatch.setattr(scheduler, "tick", look)
    scheduling.serve([scheduler], wait, lambda: revivals.append(1))
    assert due_of_runs(connection) == ["29 13:00", "29 14:00"]
    away = "the server cannot be used, and is asked again: Connection refused."
    assert (told[0], told.count(away), revivals) == (away, 1, [1, 1])
    assert not connection.exists(keys.scheduler("demo"))
    monkeypatch.setattr(scheduler, "tick", lambda: connection.lpush(keys.schedule("demo"), 1))
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        scheduling.serve([scheduler], wait)


# Several processes -------------------------------------------------------------------------------


def test_of_several_schedulers_one_works_at_a_time(connection: Redis, clock: Clock) -> None:
    told: list[str] = []
    first = begun(scheduled("0 * * * *"), connection)
    second = Scheduler(scheduled("0 * * * *"), {"word": "second"}, connection, told.append)
    clock.now += HOUR
    second.tick()
    assert due_of_runs(connection) == []
    first.tick()
    first.leave()
    clock.now += timedelta(minutes=55, seconds=10)
    second.tick()
    first.tick()
    assert due_of_runs(connection) == ["29 13:00", "29 14:00"]
    assert (
        told[0] == f"demo is scheduled by process {os.getpid()} on {os.uname().nodename}; waiting"
    )
    assert told[1] == "this process schedules demo now"
    second.leave()
    first.leave()
    assert not connection.exists(keys.scheduler("demo"))


@pytest.mark.parametrize(
    ("holder", "says"),
    [
        ("my old laptop 12 ab", "process 12 on my old laptop"),
        (" 12 ab", "process 12 on "),
        ("other", "another process"),
    ],
)
def test_the_process_that_schedules_is_named_whatever_its_host_is_called(
    holder: str, says: str, connection: Redis
) -> None:
    told: list[str] = []
    connection.set(keys.scheduler("demo"), holder)
    Scheduler(scheduled(), {}, connection, told.append).tick()
    assert told == [f"demo is scheduled by {says}; waiting"]


def test_of_two_processes_that_submit_one_due_time_one_succeeds(connection: Redis) -> None:
    due = Due(BEGIN, Schedule("0 * * * *"))
    plans = [plan_due(scheduled(), due, {"word": "hi"}) for _ in range(2)]
    submit(plans[0], connection)
    with pytest.raises(WrongState, match="that was due at 2026-11-29T12:05:00"):
        submit(plans[1], connection)  # it has looked before the other one committed
    assert connection.get(keys.due(plans[0].claim)) == plans[0].run_id.encode()
    assert connection.ttl(keys.due(plans[0].claim)) > 29 * 86_400
    assert not connection.keys(f"*{plans[1].run_id}*")
    assert scheduling.submit_due(scheduled(), due, {"word": "hi"}, connection) is None


def _serve(url: str, workflow: Workflow) -> None:
    connection = Redis.from_url(url)
    scheduler = Scheduler(workflow, {"word": "hi"}, connection)

    def wait(seconds: float) -> bool:
        time.sleep(0.05)
        return False

    scheduling.serve([scheduler], wait)


@pytest.fixture
def start(redis_url: str) -> Iterator[Callable[[Workflow], Any]]:
    """Starts schedulers, each in a process of its own."""
    started = []

    def begin(workflow: Workflow) -> Any:
        process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(redis_url, workflow)
        )
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.join()


def test_another_process_takes_over_when_one_is_killed_and_submits_nothing_twice(
    connection: Redis, start: Callable[[Workflow], Any], wait_until: Callable[..., None]
) -> None:
    workflow = scheduled("0 * * * *", "UTC", catch_up="all")
    state, lease = keys.schedule("demo"), keys.scheduler("demo")
    now_s = read_clock(connection)
    connection.hset(state, "served_at", now_s - 3 * 3_600)
    first = start(workflow)
    wait_until(lambda: len(due_of_runs(connection)) >= 3)
    assert str(first.pid).encode() in (connection.get(lease) or b"").split()
    second = start(workflow)
    os.kill(first.pid, signal.SIGKILL)
    connection.hset(state, "served_at", now_s - 5 * 3_600)  # as if it had died before it said so
    wait_until(lambda: len(due_of_runs(connection)) >= 5)
    wait_until(lambda: float(connection.hget(state, "served_at") or 0) >= now_s)
    assert str(second.pid).encode() in (connection.get(lease) or b"").split()
    assert len(due_of_runs(connection)) == len(set(due_of_runs(connection))) in (5, 6)


# Backfills ---------------------------------------------------------------------------------------


def backfilled(workflow: Workflow, begin: str, end: str) -> list[str]:
    now = datetime(2026, 12, 1, tzinfo=UTC)
    dues = scheduling.find_range(workflow, begin, end, now)
    return [f"{due.at:%m-%d %H:%M %z}" for due in dues]


def test_a_range_has_both_of_its_days_in_the_zone_of_the_schedule() -> None:
    daily = scheduled("30 2 * * *", "Europe/Berlin")
    spring = ["03-28 02:30 +0100", "03-29 03:00 +0200", "03-30 02:30 +0200"]
    assert backfilled(daily, "2026-03-28", "2026-03-30") == spring
    autumn = ["10-24 02:30 +0200", "10-25 02:30 +0200", "10-26 02:30 +0100"]
    assert backfilled(daily, "2026-10-24", "2026-10-26") == autumn
    ends = scheduled("0 0 31 * *", "UTC")
    assert backfilled(ends, "2026-01-01", "2026-06-30") == [
        "01-31 00:00 +0000",
        "03-31 00:00 +0000",
        "05-31 00:00 +0000",
    ]
    hourly = scheduled("0 * * * *", "Asia/Tokyo")
    both = ["11-29 06:00 +0900", "11-29 07:00 +0900"]
    assert backfilled(hourly, "2026-11-29T06:00", "2026-11-29T07:00") == both
    assert backfilled(hourly, "2026-11-28T21:00Z", "2026-11-28T22:00Z") == both
    assert len(backfilled(hourly, "2026-12-01", "2026-12-31")) == 10  # not what is still to come
    assert len(backfilled(scheduled("0 0 * * *", "UTC"), "2026-11-01", "2026-11-30")) == 30


@pytest.mark.parametrize(
    ("begin", "workflow", "says"),
    [
        ("yesterday", scheduled(), "'yesterday' is not a date; write a date or an instant"),
        ("1999-01-01", scheduled("* * * * *"), "more than 10,000 due times"),
        ("2026-11-01", Workflow("demo", JOBS, INPUTS), "has no schedule"),
    ],
)
def test_a_range_without_due_times_is_refused(begin: str, workflow: Workflow, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        backfilled(workflow, begin, "2026-11-02")


def test_a_backfill_submits_what_is_missing_and_at_most_some_at_a_time(
    connection: Redis, work: Work
) -> None:
    workflow = scheduled("0 6 * * *", "UTC")
    dues = scheduling.find_range(workflow, "2026-11-01", "2026-11-06", BEGIN)
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        """Let the runs end at every second look; stop after four runs."""
        if seconds:
            waits.append(seconds)
            active = [each for each in run_lists.iterate_runs(connection) if not each.ended_at]
            assert len(active) == 2
            if len(waits) % 2 == 0:
                work()
        return len(due_of_runs(connection)) == 4

    def call(wait: Callable[[float], bool]) -> list[str | None]:
        made = scheduling.backfill(
            workflow, dues, {"word": "hi"}, connection, max_parallel=2, wait=wait
        )
        return [run_id for _, run_id in made]

    first = call(wait)
    assert len(first) == 4
    assert None not in first
    assert len(waits) == 3
    work()
    assert [bool(each) for each in call(lambda seconds: False)] == 4 * [False] + 2 * [True]
    assert due_of_runs(connection) == [f"0{day} 06:00" for day in range(1, 7)]


def test_a_due_time_can_have_another_run_once_its_run_was_removed_by_hand(
    connection: Redis,
) -> None:
    workflow = scheduled("0 6 * * *", "UTC")
    dues = scheduling.find_range(workflow, "2026-11-01", "2026-11-02", BEGIN)

    def call() -> list[str | None]:
        made = scheduling.backfill(
            workflow, dues, {"word": "hi"}, connection, wait=lambda seconds: False
        )
        return [run_id for _, run_id in made]

    first, second = (Run(run_id or "", connection) for run_id in call())
    first.cancel()
    first.remove()
    finish(connection, f"purge:{second.run_id}")  # as when its retention is over
    again, left = call()
    assert (bool(again), left) == (True, None)
    loser = replace(plan_due(workflow, dues[1], {"word": "hi"}), run_id="loser")
    with pytest.raises(WrongState, match="was submitted before"):
        submit(loser, connection)
    runs.remove("loser", connection)
    runs.remove(first.run_id, connection)
    assert call() == [None, None], "only a run's own claim is given up"


# Jobs of older versions --------------------------------------------------------------------------


def test_a_job_that_is_executed_again_submits_no_second_run(
    connection: Redis, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Current:
        id = "job-1"

        def __init__(self) -> None:
            self.connection = connection

    monkeypatch.setattr("flowq.scheduling.get_current_job", Current)
    first = submit_scheduled(scheduled(), {"word": "hi"})
    assert submit_scheduled(scheduled(), {"word": "hi"}) == first
    assert len(list(run_lists.iterate_runs(connection))) == 1


def test_a_program_submits_a_backfill(connection: Redis, redis_url: str, work: Work) -> None:
    workflow, word = scheduled("0 6 * * *", "UTC"), {"word": "hi"}
    made = flowq.backfill(workflow, "2024-11-01", date(2024, 11, 3), word, connection=connection)
    work()
    assert [run.wait(60).state for run in made] == 3 * ["succeeded"]
    assert due_of_runs(connection) == [f"0{day} 06:00" for day in (1, 2, 3)]

    async def submit_soon() -> int:
        async with AsyncRedis.from_url(redis_url) as client:
            until = datetime(2024, 11, 4, 7, tzinfo=UTC)
            return len(
                await flowq.aio.backfill(workflow, "2024-11-01", until, word, connection=client)
            )

    assert asyncio.run(submit_soon()) == 1
    none = flowq.backfill(workflow, "2024-11-01T07:00", "2024-11-01", word, connection=connection)
    assert none == []
    for wrong, says in {"0": "at least 1", "1": "is not a date"}.items():
        with pytest.raises(UsageError, match=says):
            flowq.backfill(
                workflow, "then", "now", word, max_parallel=int(wrong), connection=connection
            )
