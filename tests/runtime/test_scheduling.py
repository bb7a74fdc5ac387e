"""`schedule`: runs that are submitted when their time has come."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from flowq.errors import UsageError
from flowq.runtime import run_lists
from flowq.scheduling import find_due, make_scheduler, submit_scheduled
from flowq.spec import Input, Schedule, Workflow
from tests.runtime.language import job

Work = Callable[..., None]
JOBS = (job("only", "give", with_={"value": "${{ inputs.word }}"}),)
INPUTS = (Input("word"),)


def scheduled(cron: str = "0 6 * * *", timezone: str = "Asia/Tokyo") -> Workflow:
    return Workflow("demo", JOBS, INPUTS, schedule=Schedule(cron, timezone))


def test_times_are_those_of_the_workflows_zone(connection: Redis) -> None:
    scheduler = make_scheduler(scheduled(), {"word": "hi"}, connection)
    assert scheduler.get_jobs()[0].next_enqueue_time.astimezone(UTC).hour == 21
    assert f"{find_due(scheduler):%H:%M %Z}" == "06:00 JST"


def test_due_times_that_passed_while_nobody_looked_are_made_up_for_within_an_hour(
    connection: Redis, work: Work
) -> None:
    scheduler = make_scheduler(scheduled("*/10 * * * *"), {"word": "hi"}, connection)
    each = scheduler.get_jobs()[0]
    each.next_enqueue_time -= timedelta(days=2)
    while scheduler.enqueue_jobs():
        pass
    assert each.next_enqueue_time > datetime.now(UTC)
    work()
    assert len(list(run_lists.iterate_runs(connection))) in (
        7,
        8,
    )  # one more when the next one is due meanwhile


def test_a_run_is_submitted_when_its_time_has_come_and_once(connection: Redis, work: Work) -> None:
    scheduler = make_scheduler(scheduled(), {"word": "hi"}, connection)
    assert scheduler.enqueue_jobs() == []
    scheduler.get_jobs()[0].next_enqueue_time = datetime.now(UTC) - timedelta(seconds=1)
    assert len(scheduler.enqueue_jobs()) == 1
    work()
    (record,) = list(run_lists.iterate_runs(connection))
    assert (record.state, record.inputs) == ("succeeded", {"word": "hi"})


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


@pytest.mark.parametrize(
    ("workflow", "says"),
    [
        (Workflow("demo", JOBS, INPUTS), "has no schedule"),
        (scheduled("every day"), "is not a cron"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(
    workflow: Workflow, says: str, connection: Redis
) -> None:
    inputs: dict[str, Any] = {"word": "hi"}
    with pytest.raises(UsageError, match=says):
        make_scheduler(workflow, inputs, connection)
