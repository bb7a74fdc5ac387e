"""`retries` of a job that is a workflow: what did not succeed inside runs again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.client import Run
from flowq.render.groups import collapse
from flowq.runtime import keys, maintenance, retry, runs
from flowq.runtime.attempts import Failure
from flowq.runtime.explain import explain
from flowq.runtime.job import get_job
from flowq.spec import ALL_TOLERATED, Approval, Input, JobSpec, Retry, Workflow
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]

INNER = Workflow(
    "inner",
    (
        job("a", "give", with_={"value": "${{ inputs.path }}"}),
        job("b", "fail_unless", with_={"path": "${{ jobs.a.result }}", "value": 1}),
        job("items", "give", needs=("b",), for_each=each([1, 2]), with_={"value": "${{ item }}"}),
        JobSpec("deep", workflow="deepest", needs=("b",)),
    ),
    inputs=(Input("path"),),
    outputs={"value": "${{ jobs.b.result }}", "items": "${{ jobs.items.results }}"},
    workflows={"deepest": Workflow("deepest", (job("x", "my_id"),))},
)


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def submit(run: Runs, path: Path, *others: JobSpec, most: int = 2, **more: Any) -> None:
    sub = JobSpec(
        "sub",
        workflow="inner",
        with_={"path": str(path / "gate")},
        retries=Retry(most, more.pop("backoff_s", 0)),
        **more,
    )
    run.submit(sub, *others, workflows={"inner": INNER})


def begin_rounds(connection: Redis) -> None:
    """As if the back-offs were over."""
    for join in connection.zrange(keys.ROUNDS, 0, -1):
        connection.zadd(keys.ROUNDS, {join: 1})
    maintenance.tidy(connection)


def test_what_failed_inside_runs_again_and_what_follows_it(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    submit(run, tmp_path, job("after", "give", with_={"value": "${{ jobs.sub.result }}"}))
    work()
    assert (run.state, run.states["sub"]) == ("running", "scheduled")
    assert run.reason("sub") == "attempt 1 failed: sub.b failed; again"
    begin_rounds(connection)
    work()
    assert run.reason("sub") == "attempt 2 failed: sub.b failed; again"
    (tmp_path / "gate").touch()
    begin_rounds(connection)
    work()
    assert run.state == "succeeded"
    assert run.result("after") == {"value": 1, "items": [1, 2]}
    attempts = {name: each.attempts for name, each in run.status.jobs.items()}
    assert (attempts["sub.a"], attempts["sub.b"], attempts["sub"]) == (1, 3, 3)
    assert attempts["sub.items(list)"] == attempts["sub.deep.x"] == 1
    assert collapse(run.status)["sub"].state == "finished"
    assert connection.zcard(keys.ROUNDS) == connection.exists(f"rq:flowq:1:again:{RUN}-sub") == 0


def test_after_the_last_attempt_it_has_failed(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    submit(run, tmp_path, job("after", "my_id", needs=("sub",)), most=1)
    work()
    begin_rounds(connection)
    work()
    assert run.state == "failed"
    assert (run.states["sub"], run.reason("sub")) == ("failed", "sub.b failed, attempt 2")
    assert (run.status.jobs["sub"].attempts, run.states["after"]) == (2, "skipped")


def test_a_retry_of_the_run_begins_to_count_anew(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    submit(run, tmp_path, most=1)
    work()
    begin_rounds(connection)
    work()
    retry.retry(RUN, connection)
    work()
    assert (run.state, run.states["sub"]) == ("running", "scheduled")
    (tmp_path / "gate").touch()
    begin_rounds(connection)
    work()
    assert run.state == "succeeded"


def test_it_waits_for_its_back_off_and_says_until_when(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    submit(run, tmp_path, backoff_s=600)
    work()
    maintenance.tidy(connection)
    [(_, at_s)] = connection.zrange(keys.ROUNDS, 0, -1, withscores=True)
    assert 590 < at_s - time.time() <= 600
    assert run.reason("sub") == "attempt 1 failed: sub.b failed; again in 10m"
    assert "attempt 1 failed" in str(explain(f"{RUN}-sub", connection))


def test_a_cancel_ends_one_that_waits_to_run_again(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    submit(run, tmp_path, backoff_s=600)
    work()
    runs.cancel(RUN, connection)
    assert (run.state, run.states["sub"]) == ("canceled", "canceled")
    assert connection.zcard(keys.ROUNDS) == 0
    assert run.states["sub.b"] == "failed"


def test_a_retry_after_that_does_not_meet_the_round_that_was_canceled(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    submit(run, tmp_path, backoff_s=600)
    work()
    runs.cancel(RUN, connection)
    retry.retry(RUN, connection)
    begin_rounds(connection)
    assert run.states["sub.b"] == "queued"
    assert run.reason("sub") == "the run is retried"


def test_one_that_took_too_long_runs_again_with_its_time_anew(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    (tmp_path / "gate").touch()
    submit(run, tmp_path, timeout_s=600)
    work(max_jobs=1)
    connection.zadd(keys.DEADLINES, {f"{RUN}-sub": 1})
    maintenance.tidy(connection)
    work()
    assert run.reason("sub") == "attempt 1 failed: timed out after 10m; again"
    assert connection.zcard(keys.DEADLINES) == 0
    begin_rounds(connection)
    late_at_s: Any = connection.zscore(keys.DEADLINES, f"{RUN}-sub")
    assert 590 < late_at_s - time.time() <= 600
    work()
    assert (run.state, run.states["sub"]) == ("succeeded", "finished")


def test_one_whose_inputs_do_not_fit_runs_again_as_a_whole(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    (tmp_path / "gate").touch()
    first = tmp_path / "first"
    run.submit(
        job("bad", "give", with_={"value": 7}),
        JobSpec(
            "sub",
            workflow="inner",
            with_={"path": "${{ jobs.bad.result }}"},
            retries=Retry(1),
            continue_on_error=ALL_TOLERATED,
        ),
        job("after", "my_id", needs=("sub",)),
        workflows={"inner": INNER},
    )
    work()
    assert run.reason("sub") == "attempt 1 failed: it could not begin; again"
    begin_rounds(connection)
    work()
    assert run.reason("sub") == "tolerated: it could not begin, attempt 2"
    assert (run.state, run.states["after"], first.exists()) == ("succeeded", "finished", False)


def test_each_workflow_of_a_group_runs_again_by_itself(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    good, late = tmp_path / "good", tmp_path / "late"
    good.touch()
    run.submit(
        JobSpec(
            "sub",
            workflow="inner",
            for_each=each([str(good), str(late)]),
            with_={"path": "${{ item }}"},
            retries=Retry(1),
        ),
        job("last", "give", with_={"value": "${{ len(jobs.sub.results) }}"}),
        workflows={"inner": INNER},
    )
    work()
    assert (run.states["sub[0]"], run.states["sub[1]"]) == ("finished", "scheduled")
    assert collapse(run.status)["sub"].state == "scheduled"
    late.touch()
    begin_rounds(connection)
    work()
    assert (run.state, run.result("last")) == ("succeeded", 2)
    assert run.status.jobs["sub[0].a"].attempts == 1


def test_whoever_begins_a_round_may_die_at_any_step(
    run: Runs, work: Work, connection: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(run, tmp_path)
    work()
    (tmp_path / "gate").touch()
    monkeypatch.setattr(retry, "finish", lambda *_: None)
    begin_rounds(connection)
    assert run.states["sub.b"] == "failed"  # its list is there, and nothing has come of it
    monkeypatch.undo()
    maintenance.tidy(connection)
    work()
    assert run.state == "succeeded"


def test_where_nothing_inside_can_run_again_it_has_failed(
    run: Runs, work: Work, connection: Redis
) -> None:
    inner = Workflow("inner", (job("a", "fail"),))
    run.submit(JobSpec("sub", workflow="inner", retries=Retry(3)), workflows={"inner": inner})
    work()
    get_job(f"{RUN}-sub--a", connection).delete()
    begin_rounds(connection)
    assert (run.state, run.states["sub"]) == ("failed", "failed")


def test_a_workflow_that_waits_to_run_again_ends_with_a_late_one_around_it(
    run: Runs, work: Work, connection: Redis
) -> None:
    low = Workflow("low", (job("a", "fail"),))
    mid = Workflow(
        "mid",
        (
            JobSpec("low", workflow="low", retries=Retry(3, 60)),
            job("clean", "my_id", needs=("low",), if_="always()"),
        ),
        workflows={"low": low},
    )
    run.submit(JobSpec("sub", workflow="mid", timeout_s=600), workflows={"mid": mid})
    work()
    assert run.states["sub.low"] == "scheduled"
    connection.zadd(keys.DEADLINES, {f"{RUN}-sub": 1})
    maintenance.tidy(connection)
    work()
    assert (run.states["sub.low"], run.states["sub"]) == ("canceled", "canceled")
    assert run.reason("sub.low") == "the workflow timed out after 10m"
    assert run.states["sub.clean"] == "finished"
    assert connection.zcard(keys.ROUNDS) == 0


def test_a_workflow_that_fails_in_a_late_one_does_not_run_again(
    run: Runs, work: Work, connection: Redis
) -> None:
    low = Workflow("low", (job("a", "fail", if_="always()"),))
    mid = Workflow(
        "mid", (JobSpec("low", workflow="low", retries=Retry(3)),), workflows={"low": low}
    )
    run.submit(JobSpec("sub", workflow="mid", timeout_s=600), workflows={"mid": mid})
    work(max_jobs=2)
    connection.zadd(keys.DEADLINES, {f"{RUN}-sub": 1})
    maintenance.tidy(connection)
    work()
    assert (run.states["sub.low.a"], run.states["sub.low"]) == ("failed", "canceled")
    assert run.states["sub"] == "canceled"


def test_a_workflow_that_waits_to_run_again_ends_when_its_group_is_closed(
    run: Runs, work: Work, connection: Redis
) -> None:
    low = Workflow(
        "low",
        (
            job("a", "fail_if", with_={"value": "${{ inputs.n }}", "bad": 1}),
            job("b", "fail", needs=("a",), approval=Approval(), if_="inputs.n == 2"),
        ),
        inputs=(Input("n", "int"),),
    )
    run.submit(
        JobSpec(
            "sub",
            workflow="low",
            for_each=each([1, 2]),
            with_={"n": "${{ item }}"},
            retries=Retry(1, 60),
            fail_fast=True,
        ),
        workflows={"low": low},
    )
    work()
    assert run.states["sub[0]"] == "scheduled"
    connection.hset(keys.job(f"{RUN}-sub--1"), "flowq_round", 1)  # its last attempt
    Run(RUN, connection).approve("sub[1].b")
    work()
    assert (run.states["sub[1]"], run.states["sub[0]"]) == ("failed", "canceled")
    assert run.reason("sub[0]") == "sub[1] failed"
    assert run.state == "failed"
    retry.retry(RUN, connection)
    assert connection.zcard(keys.ROUNDS) == 0


@pytest.mark.parametrize(
    "written", ['{"names":5,"later":"x"}', '{"names":[{}],"exit_code":{},"later":-1}', '"it"']
)
def test_a_failure_that_makes_no_sense_counts_as_one_that_nobody_knows(
    run: Runs, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setattr(Failure, "write", lambda failure: written)
    submit(run, tmp_path)
    work()
    assert run.reason("sub") == "attempt 1 failed: sub.b failed; again"
