"""`retries` of a job that is a workflow, with a policy: the same rule as for other jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.client import Run
from flowq.durations import parse_duration
from flowq.runtime import keys, maintenance
from flowq.runtime.job import get_job
from flowq.spec import JobSpec, Retry, Shell, Workflow
from flowq.workers import Worker
from tests import JOBS_FOLDER
from tests.runtime.language import RUN, Runs, job

Work = Callable[..., None]


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def submit(run: Runs, *inside: JobSpec, retries: Retry, **more: Any) -> None:
    sub = JobSpec("sub", workflow="inner", retries=retries, **more)
    run.submit(sub, workflows={"inner": Workflow("inner", inside)})


def fail_as(kind: str, path: Path, name: str = "a", **more: Any) -> JobSpec:
    log = f"{path}/{more.pop('with_log', name)}"
    arguments = {"kind": kind, "log": log, "times": more.pop("times", 9)}
    return job(name, "fail_as", with_=arguments, **more)


@pytest.mark.parametrize(
    ("kind", "retries", "reason"),
    [
        ("broken", Retry(2, on=("OSError",)), "attempt 1 failed: sub.a failed; again"),
        ("broken", Retry(2, 90, on=("OSError",)), "attempt 1 failed: sub.a failed; again in 90s"),
        ("broken", Retry(2, 1.5, 2, 60), "attempt 1 failed: sub.a failed; again in 1500ms"),
        (
            "broken",
            Retry(2, on=("ValueError",)),
            "sub.a failed; not tried again: `on` does not name language_jobs:Broken",
        ),
        (
            "broken",
            Retry(2, never_on=("OSError",)),
            "sub.a failed; not tried again: `never_on` names OSError",
        ),
        (
            "gone",
            Retry(2),
            "sub.a failed; not tried again: it raised language_jobs:Gone, which is final",
        ),
        ("later", Retry(2), "attempt 1 failed: sub.a failed; again in 600s"),
        (
            "broken",
            Retry(2, 90, within_s=80),
            "sub.a failed; not tried again: that would begin later than `within` allows, 80s",
        ),
    ],
)
def test_the_failure_of_the_last_job_inside_decides(
    run: Runs, work: Work, tmp_path: Path, kind: str, retries: Retry, reason: str
) -> None:
    after = job("after", "my_id", needs=("a",))
    submit(run, fail_as(kind, tmp_path), after, retries=retries)
    work()
    state = "scheduled" if "again in" in reason or reason.endswith("again") else "failed"
    assert (run.states["sub"], run.reason("sub")) == (state, reason)


def test_a_long_wait_that_is_not_whole_is_written_without_an_exponent(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    submit(run, fail_as("broken", tmp_path), retries=Retry(2, 50_000.25, jitter=0.5))
    work()
    again = run.reason("sub").partition("; again in ")[2]
    assert 25_000 <= parse_duration(again) <= 75_001
    assert again.removesuffix("s").isdecimal()


@pytest.mark.parametrize("log", ["log", "log-\udcff"])
def test_a_view_that_is_no_text_does_not_hide_the_failure_inside(
    run: Runs, connection: Redis, tmp_path: Path, log: str
) -> None:
    """Neither an error with bytes that are no text, nor an argument."""
    inside = fail_as("no text", tmp_path, with_log=log)
    submit(run, inside, retries=Retry(3, never_on=("ValueError",)))
    worker = Worker(["default"], connection=connection, paths=[JOBS_FOLDER], mode="warm")
    worker.work(burst=True, logging_level="CRITICAL")
    why = "sub.a failed; not tried again: `never_on` names ValueError"
    assert (run.states["sub"], run.reason("sub")) == ("failed", why)


def test_an_exit_code_inside_decides(run: Runs, work: Work) -> None:
    submit(run, JobSpec("a", run=Shell("exit 3")), retries=Retry(2, on=("1-3",)))
    work()
    assert run.states["sub"] == "scheduled"


def test_it_is_the_failure_in_a_workflow_further_inside(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    deepest = Workflow("deepest", (fail_as("broken", tmp_path),))
    inner = Workflow(
        "inner", (JobSpec("deep", workflow="deepest"),), workflows={"deepest": deepest}
    )
    never = JobSpec("never", workflow="inner", retries=Retry(2, never_on=("OSError",)))
    again = JobSpec("again", workflow="inner", retries=Retry(2, on=("OSError",)))
    run.submit(never, again, workflows={"inner": inner})
    work()
    assert (run.states["never"], run.states["again"]) == ("failed", "scheduled")


def test_the_waits_grow_from_attempt_to_attempt(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    submit(run, fail_as("broken", tmp_path), retries=Retry(3, 100, 2, jitter=0.1))
    for least_s in (100, 200, 400):
        work()
        [(join, at_s)] = connection.zrange(keys.ROUNDS, 0, -1, withscores=True)
        wait_s = at_s - float(connection.time()[0])
        assert least_s - 5 <= wait_s <= 1.1 * least_s + 1  # the seconds are cut
        connection.zadd(keys.ROUNDS, {join: 1})
        maintenance.tidy(connection)


def test_a_workflow_that_was_given_up_has_its_retries_again_when_the_run_is_retried(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    submit(run, fail_as("broken", tmp_path, times=1), retries=Retry(2, 60))
    work()
    get_job(f"{RUN}-sub--a", connection).delete()
    connection.zadd(keys.ROUNDS, {f"{RUN}-sub": 1})
    maintenance.tidy(connection)
    assert (run.state, run.states["sub"]) == ("failed", "failed")
    (tmp_path / "a").unlink()
    Run(RUN, connection).retry("sub")
    work()
    assert (run.states["sub"], connection.zcard(keys.ROUNDS)) == ("scheduled", 1)
