"""`on_blocker_failure: wait` in a run: it says when only a failure holds a job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq.registry import FailedJobRegistry

from flowq.runtime import runs
from flowq.runtime.job import get_job
from tests.runtime.language import RUN, Runs, job

Work = Callable[..., None]


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def _said(run: Runs, name: str) -> list[str]:
    """What the run has told of a job while it was held."""
    events = runs.read_events(RUN, run.connection)
    return [event.reason for event in events if (event.name, event.state) == (name, "deferred")]


def _requeue(run: Runs, name: str) -> None:
    """As `rq requeue` does, which knows nothing of our jobs."""
    FailedJobRegistry("default", connection=run.connection).requeue(f"{RUN}-{name}")


def test_a_run_says_that_a_job_waits_for_a_blocker_that_has_failed_until_it_runs_again(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    run.submit(
        job("bad", "fail_unless", with_={"path": f"{tmp_path}/gate"}),
        job("good", "my_id"),
        job("join", "my_id", needs=("bad", "good"), on_blocker_failure="wait"),
        job("last", "my_id", needs=("join",)),
    )
    work(max_jobs=1)
    assert _said(run, "join") == []  # good may take its time
    work()
    stuck = "waits for a blocker to succeed: bad failed"
    assert (_said(run, "join"), run.reason("join")) == ([stuck], stuck)
    assert run.status.jobs["join"].is_stuck
    assert not run.status.jobs["last"].is_stuck
    assert run.state == "waiting"

    _requeue(run, "bad")
    work()
    again = ["a blocker runs again", stuck]
    assert _said(run, "join") == [stuck, *again]

    (tmp_path / "gate").touch()
    _requeue(run, "bad")
    work()
    assert _said(run, "join") == [stuck, *again, again[0]]
    assert (run.state, run.reason("join")) == ("succeeded", "")


def test_as_long_as_one_of_them_has_failed_the_job_is_said_to_wait(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    run.submit(
        job("one", "fail_unless", with_={"path": f"{tmp_path}/gate"}),
        job("two", "fail"),
        job("join", "my_id", needs=("one", "two"), on_blocker_failure="wait"),
    )
    work()
    (tmp_path / "gate").touch()
    _requeue(run, "one")
    work()
    assert run.states == {"one": "finished", "two": "failed", "join": "deferred"}
    assert run.status.jobs["join"].is_stuck
    get_job(f"{RUN}-two", run.connection).delete()
    work()
    assert run.states["join"] == "finished"


def test_a_run_that_is_canceled_says_nothing_of_the_kind(run: Runs, work: Work) -> None:
    run.submit(
        job("bad", "fail"),
        job("join", "my_id", needs=("bad",), on_blocker_failure="wait"),
    )
    runs.cancel(RUN, run.connection)
    work()
    assert run.states == {"bad": "canceled", "join": "canceled"}
    assert _said(run, "join") == []
