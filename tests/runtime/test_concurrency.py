"""`concurrency`: at most one run of a group at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from flowq.errors import WrongState
from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import approvals, keys, retry, run_lists, runs
from flowq.runtime.explain import explain
from flowq.runtime.job import get_job
from flowq.runtime.steps import step
from flowq.spec import Concurrency, JobSpec, Workflow
from flowq.workers.redis_side import Capacity, RedisSide
from tests.runtime.language import job

Work = Callable[..., None]


def submit(
    run_id: str,
    connection: Redis,
    place: str = "x",
    *,
    cancels: bool = False,
    is_held: bool = False,
    does: JobSpec | None = None,
    limit: int = 1,
) -> None:
    concurrency = Concurrency("deploy-${{ inputs.place }}", cancels, limit)
    workflow = Workflow("demo", (does or job("only", "my_id"),), concurrency=concurrency)
    plan = make_plan(build_graph(workflow), {"place": place}, run_id)
    runs.submit(plan, connection, is_held=is_held)


def waits_for(gate: Path) -> JobSpec:
    return job("only", "fail_unless", with_={"path": str(gate)})


def states(connection: Redis, *run_ids: str) -> list[str]:
    return [runs.get_status(run_id, connection).state for run_id in run_ids]


def test_runs_of_a_group_go_one_after_the_other_in_their_order(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    for run_id in ("a", "b", "c"):
        submit(run_id, connection)
    submit("other", connection, "y")
    assert states(connection, "a", "b", "c", "other") == [
        "running",
        "waiting",
        "waiting",
        "running",
    ]
    assert [record.state for record in list(run_lists.iterate_runs(connection))][1:3] == [
        "waiting",
        "waiting",
    ]
    work()
    tidy()
    assert states(connection, "a", "b", "c", "other") == [
        *("succeeded", "running", "waiting", "succeeded")
    ]
    work()
    tidy()
    work()
    assert states(connection, "b", "c") == ["succeeded", "succeeded"]
    assert connection.keys("*concurrency*") == []


def test_so_many_runs_of_a_group_go_at_a_time(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    for run_id in ("a", "b", "c", "d", "e"):
        submit(run_id, connection, limit=2)
    assert states(connection, "a", "b", "c", "d", "e") == [
        *("running", "running", "waiting", "waiting", "waiting")
    ]
    work(max_jobs=1)
    tidy()
    assert states(connection, "a", "b", "c", "d") == ["succeeded", "running", "running", "waiting"]
    runs.remove("c", connection)
    runs.cancel("b", connection)
    tidy()
    assert states(connection, "d", "e") == ["running", "running"]
    submit("f", connection, limit=2, cancels=True)
    tidy()
    assert states(connection, "d", "e", "f") == ["canceled", "running", "running"]
    work()
    assert connection.keys("*concurrency*") == []


def test_no_run_overtakes_one_that_waits_with_a_lower_limit(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    submit("a", connection, limit=3)
    submit("b", connection, limit=1)
    submit("c", connection, limit=3)
    assert states(connection, "a", "b", "c") == ["running", "waiting", "waiting"]
    work()
    tidy()
    assert states(connection, "b", "c") == ["running", "running"]


def test_a_run_that_is_canceled_or_removed_makes_way(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    for run_id in ("a", "b", "c", "d"):
        submit(run_id, connection)
    runs.cancel("b", connection)
    runs.remove("a", connection)
    tidy()
    assert states(connection, "b", "c", "d") == ["canceled", "running", "waiting"]
    work()
    tidy()
    work()
    assert states(connection, "d") == ["succeeded"]


def test_a_new_run_can_cancel_those_in_progress(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    for run_id in ("a", "b", "c"):
        submit(run_id, connection, cancels=True)
    tidy()
    work()
    assert states(connection, "a", "b", "c") == ["canceled", "canceled", "succeeded"]


def test_a_retried_run_lines_up_again(
    connection: Redis, work: Work, tidy: Callable[[], None], tmp_path: Path
) -> None:
    for run_id in ("a", "b", "c"):
        submit(run_id, connection, does=waits_for(tmp_path / "gate"))
    work()
    assert states(connection, "a", "b", "c") == ["failed", "running", "waiting"]
    (tmp_path / "gate").touch()
    retry.retry("a", connection)
    assert states(connection, "a", "b", "c") == ["waiting", "running", "waiting"]
    order = [reason.text for reason in explain("a-only", connection).reasons]
    assert order == ["its run waits for its turn in the `concurrency` group deploy-x, after b, c"]
    with pytest.raises(WrongState, match="waits for its turn"):
        approvals.release_run("a", connection)
    work()
    tidy()
    assert states(connection, "a", "b", "c") == ["waiting", "succeeded", "running"]
    work()
    tidy()
    assert states(connection, "a", "c") == ["running", "succeeded"]
    work()
    assert states(connection, "a") == ["succeeded"]
    assert connection.keys("*concurrency*") == []


def test_its_turn_may_come_while_the_retry_is_still_prepared(
    connection: Redis,
    work: Work,
    tidy: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit("a", connection, does=waits_for(tmp_path / "gate"))
    work()
    submit("b", connection)
    (tmp_path / "gate").touch()
    monkeypatch.setattr(retry, "finish", lambda *arguments: None)  # it dies before that
    monkeypatch.setattr(retry, "go", lambda *arguments: None)
    retry.retry("a", connection)
    work()  # b ends
    while step(connection, "run:a").more:
        pass
    assert states(connection, "b") == ["succeeded"]
    tidy()
    work()
    assert states(connection, "a") == ["succeeded"]
    assert connection.keys("*concurrency*") == []


def test_of_two_runs_retried_at_once_one_goes_first(
    connection: Redis, work: Work, tidy: Callable[[], None], tmp_path: Path
) -> None:
    for run_id in ("a", "b"):
        submit(run_id, connection, does=waits_for(tmp_path / "gate"))
        work()
        tidy()
        work()
    assert states(connection, "a", "b") == ["failed", "failed"]
    (tmp_path / "gate").touch()
    retry.retry("b", connection)
    retry.retry("a", connection)
    assert states(connection, "a", "b") == ["waiting", "running"]
    assert connection.lrange(keys.queue("default"), 0, -1) == [b"b-only"]
    runs.remove("b", connection)
    tidy()
    work()
    assert states(connection, "a") == ["succeeded"]


def test_a_retry_cancels_those_in_progress_if_the_workflow_says_so(
    connection: Redis, work: Work, tidy: Callable[[], None], tmp_path: Path
) -> None:
    submit("a", connection, cancels=True, does=waits_for(tmp_path / "gate"))
    work()
    submit("b", connection, cancels=True)
    (tmp_path / "gate").touch()
    retry.retry("a", connection)
    tidy()
    assert states(connection, "a", "b") == ["running", "canceled"]
    work()
    assert states(connection, "a") == ["succeeded"]


def test_a_held_run_lines_up_when_it_is_released_and_not_before(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    submit("held", connection, is_held=True, cancels=True)
    submit("a", connection)
    assert states(connection, "held", "a") == ["waiting", "running"]
    (reason,) = explain("held-only", connection).reasons
    assert (reason.text, reason.hint) == ("its run is held", "flowq release held")
    assert approvals.release_run("held", connection)
    tidy()
    assert states(connection, "held", "a") == ["running", "canceled"]
    work()
    assert states(connection, "held") == ["succeeded"]
    assert connection.keys("*concurrency*") == []


def test_a_run_that_a_requeue_opens_again_keeps_others_waiting(
    connection: Redis, work: Work, tidy: Callable[[], None], tmp_path: Path
) -> None:
    submit("a", connection, does=waits_for(tmp_path / "gate"))
    work()
    submit("b", connection)
    submit("c", connection)
    get_job("a-only", connection).requeue(at_front=True)
    [claim] = RedisSide(connection, "w", ["default"], 30).turn([], Capacity(1, 1, 1)).claims
    assert claim.job_id == "a-only"
    work()  # b ends
    tidy()
    assert states(connection, "a", "b", "c") == ["running", "succeeded", "waiting"]
    RedisSide(connection, "other", ["default"], 30).recover("w", 9)
    work()
    tidy()
    assert states(connection, "a", "c") == ["failed", "running"]
