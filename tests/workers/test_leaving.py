"""What a worker in a burst leaves behind: nothing that maintenance would go on with by now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import groups, keys, maintenance, runs
from flowq.spec import Concurrency, JobSpec, Retry, Workflow
from flowq.status import RunStatus

Drain = Callable[..., Any]


@pytest.fixture(autouse=True)
def only_the_first_maintenance_comes_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowq.workers.periodic.TIDY_S", 1000.0)


def call(name: str, function: str, **more: Any) -> JobSpec:
    return JobSpec(name, f"worker_jobs:{function}", **more)


def submit(connection: Redis, run_id: str, *jobs: JobSpec, **more: Any) -> None:
    runs.submit(make_plan(build_graph(Workflow("w", jobs, **more)), {}, run_id), connection)


def status_of(connection: Redis, run_id: str = "r1") -> RunStatus:
    return runs.get_status(run_id, connection)


END = call("end", "nothing", is_final=True)
INNER = Workflow("inner", (call("a", "nothing"), call("b", "nothing", needs=("a",))))


def test_the_run_ends_whose_workflow_could_not_be_begun(
    connection: Redis, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no release")

    monkeypatch.setattr(groups, "release_added", fail)  # children are forked from this process
    submit(connection, "r1", JobSpec("w", workflow="inner"), END, workflows={"inner": INNER})
    drain()
    status = status_of(connection)
    assert (status.state, status.jobs["end"].state) == ("failed", "finished")
    assert not connection.exists(keys.TODO)


def test_all_runs_of_a_concurrency_group_are_executed(connection: Redis, drain: Drain) -> None:
    for number in range(3):
        submit(connection, f"r{number}", call("a", "nothing"), concurrency=Concurrency("one"))
    drain()
    states = [status_of(connection, f"r{number}").state for number in range(3)]
    assert states == ["succeeded"] * 3


def test_a_workflow_that_is_tried_again_at_once_is(connection: Redis, drain: Drain) -> None:
    inner = Workflow("inner", (call("a", "fail", with_={"text": "again"}),))
    again = JobSpec("w", workflow="inner", retries=Retry(2))
    submit(connection, "r1", again, END, workflows={"inner": inner})
    drain()
    status = status_of(connection)
    assert status.jobs["w.a"].attempts == 3
    assert (status.state, status.jobs["end"].state) == ("failed", "finished")


@pytest.mark.parametrize("number", [1, maintenance.PER_PASS + 10])
def test_what_it_cannot_do_does_not_keep_it(
    connection: Redis, drain: Drain, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    passes: list[Redis] = []

    def count_pass(connection: Redis) -> maintenance.Pass:
        passes.append(connection)
        if len(passes) == 20:
            pytest.fail("it makes one pass after the other")
        return maintenance.make_pass(connection)

    monkeypatch.setattr("flowq.workers.periodic.make_pass", count_pass)
    newer = {f"defragment:r{each}" for each in range(number)}  # a newer version's
    connection.zadd(keys.TODO, dict.fromkeys(newer, 1))
    submit(connection, "r1", call("a", "nothing"))
    drain()
    assert status_of(connection).state == "succeeded"
    assert set(connection.zrange(keys.TODO, 0, -1)) == {each.encode() for each in newer}
