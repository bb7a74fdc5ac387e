"""`concurrency`: at most one run of a group at a time."""

from __future__ import annotations

from collections.abc import Callable

from language import job
from redis import Redis

from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import runs
from flowq.spec import Concurrency, Workflow

Work = Callable[..., None]


def submit(run_id: str, connection: Redis, place: str = "x", *, cancels: bool = False) -> None:
    concurrency = Concurrency("deploy-${{ inputs.place }}", cancels)
    workflow = Workflow("demo", (job("only", "my_id"),), concurrency=concurrency)
    runs.submit(make_plan(build_graph(workflow), {"place": place}, run_id), connection)


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
