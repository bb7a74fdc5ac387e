"""`max_parallel` over jobs that are workflows: how many of these run at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.runtime import keys, retry, runs
from flowq.runtime.explain import explain
from flowq.runtime.maintenance import examine
from flowq.spec import ALL_TOLERATED, Input, JobSpec, Matrix, Workflow
from flowq.status import ENDED
from flowq.workers.redis_side import Capacity, RedisSide
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]

CHAIN = Workflow(
    "chain",
    (
        job("a", "fail_unless", with_={"path": "${{ inputs.path }}"}),
        job("b", "my_id"),
        job("c", "my_id"),
        job("d", "my_id", needs=("a", "b", "c")),
    ),
    inputs=(Input("path"),),
)


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def chains(paths: list[str], limit: int = 2, **more: Any) -> JobSpec:
    with_ = {"path": "${{ item }}"}
    return JobSpec(
        "chains",
        workflow=more.pop("workflow", "chain"),
        for_each=each(paths),
        with_=with_,
        max_parallel=limit,
        **more,
    )


def most_at_a_time(connection: Redis, group: str = "chains") -> int:
    """How many items of a group were on their way at most: from a job queued to the join's end."""
    most, active = 0, set()
    for event in runs.read_events(RUN, connection):
        item, closes, rest = event.name.removeprefix(group).partition("]")
        if not closes or not event.name.startswith(f"{group}["):
            continue
        if event.state == "queued":
            active.add(item)
        elif event.state in ENDED and not rest:
            active.discard(item)
        most = max(most, len(active))
    return most


def queued(connection: Redis) -> list[str]:
    ids: Any = connection.lrange(keys.queue("default"), 0, -1)
    return [raw.decode().removeprefix(f"{RUN}-chains--") for raw in ids]


def leftovers(connection: Redis) -> list[Any]:
    return [
        *connection.keys("rq:flowq:1:slots:*"),
        *connection.keys("rq:flowq:1:waiting:*"),
        *connection.keys("rq:flowq:1:behind:*"),
    ]


def test_so_many_chains_run_at_a_time_in_their_order_whatever_is_in_them(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    run.submit(chains([str(tmp_path)] * 5), workflows={"chain": CHAIN})
    work(max_jobs=3)
    assert queued(connection) == [*("0--a", "0--b", "0--c"), *("1--a", "1--b", "1--c")]
    explained = explain(f"{RUN}-chains--2--0", connection)
    assert [reason.kind for reason in explained.reasons] == ["slot"]
    assert explained.reasons[0].job_ids == (f"{RUN}-chains--0", f"{RUN}-chains--1")
    work()
    assert run.state == "succeeded"
    assert most_at_a_time(connection) == 2
    begun = [e.name for e in runs.read_events(RUN, connection) if e.state == "started"]
    assert [name for name in begun if name.endswith("(start)")] == [
        f"chains[{index}](start)" for index in range(5)
    ]
    assert leftovers(connection) == []


def test_a_matrix_of_workflows_is_limited_too(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    matrix, with_ = Matrix({"n": [1, 2, 3]}), {"path": str(tmp_path)}
    legs = JobSpec("legs", workflow="chain", matrix=matrix, with_=with_, max_parallel=1)
    run.submit(legs, workflows={"chain": CHAIN})
    work()
    assert run.state == "succeeded"
    assert most_at_a_time(connection, "legs") == 1


@pytest.mark.parametrize("tolerance", [None, ALL_TOLERATED])
def test_chains_that_fail_make_way(
    tolerance: Any, run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    paths = [f"{tmp_path}/no", f"{tmp_path}/no", str(tmp_path), f"{tmp_path}/no"]
    run.submit(
        chains(paths, 1, continue_on_error=tolerance),
        workflows={"chain": CHAIN},
    )
    work()
    assert run.state == ("failed" if tolerance is None else "succeeded")
    assert run.states["chains[2]"] == "finished"
    assert most_at_a_time(connection) == 1
    assert leftovers(connection) == []


def test_a_retry_keeps_to_the_limit_though_the_chains_have_begun_already(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    run.submit(chains([f"{tmp_path}/gate"] * 5), workflows={"chain": CHAIN})
    work()
    assert run.state == "failed"
    (tmp_path / "gate").touch()
    connection.delete(keys.run_events(RUN))
    retry.retry(RUN, connection)
    assert queued(connection) == ["0--a", "1--a"]
    work()
    assert run.state == "succeeded"
    assert most_at_a_time(connection) == 2
    assert leftovers(connection) == []


def test_more_jobs_of_a_chain_wait_than_one_step_calls_up(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    wide = Workflow(
        "wide",
        (
            job(
                "many",
                "fail_unless",
                for_each=each("${{ range(105) }}"),
                with_={"path": "${{ inputs.path }}"},
            ),
        ),
        inputs=(Input("path"),),
    )
    run.submit(chains([f"{tmp_path}/gate"] * 2, 1, workflow="wide"), workflows={"wide": wide})
    work()
    assert run.state == "failed"
    (tmp_path / "gate").touch()
    connection.delete(keys.run_events(RUN))
    retry.retry(RUN, connection)
    work()
    assert run.state == "succeeded"
    assert most_at_a_time(connection) == 1
    assert leftovers(connection) == []


def test_a_worker_that_dies_with_a_job_of_a_chain_leaves_the_chain_its_place(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    run.submit(chains([str(tmp_path)] * 3, 1), workflows={"chain": CHAIN})
    for at, before in enumerate((1, 1, 1, 2)):  # the start, a job, another, the last one
        work(max_jobs=before)
        lost = RedisSide(connection, f"lost-{at}", ["default"], 30)
        claims = lost.turn([], Capacity(2, 2, 2)).claims
        assert claims
        assert RedisSide(connection, "other", ["default"], 30).recover(f"lost-{at}", 9) == []
        assert {name.partition("--")[0] for name in queued(connection)} == {"0"}
    work()
    assert run.state == "succeeded"
    assert most_at_a_time(connection) == 1
    assert leftovers(connection) == []


def test_a_chain_that_is_deleted_behind_our_back_makes_way(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    run.submit(chains([str(tmp_path)] * 2, 1), workflows={"chain": CHAIN})
    work(max_jobs=1)
    assert queued(connection) == ["0--0"]
    connection.delete(keys.queue("default"), keys.job(f"{RUN}-chains--0--0"))
    examine(connection)
    work()
    assert run.states["chains[0](start)"] == "deleted"
    assert run.states["chains[0]"] == "failed"
    assert run.states["chains[1]"] == "finished"
    assert leftovers(connection) == []


def test_limits_inside_of_chains_hold_beside_that_of_the_chains(
    run: Runs, work: Work, connection: Redis
) -> None:
    row = Workflow(
        "row",
        (
            job(
                "cells",
                "give",
                for_each=each([1, 2, 3]),
                with_={"value": "${{ item }}"},
                max_parallel=2,
            ),
            JobSpec(
                "deep",
                workflow="leaf",
                for_each=each([1, 2, 3]),
                with_={"n": "${{ item }}"},
                max_parallel=1,
            ),
        ),
        inputs=(Input("path"),),
        workflows={
            "leaf": Workflow(
                "leaf", (job("x", "my_id"), job("y", "my_id")), inputs=(Input("n", "int"),)
            )
        },
    )
    run.submit(chains(["1", "2", "3"], 2, workflow="row"), workflows={"row": row})
    work()
    assert run.state == "succeeded"
    assert most_at_a_time(connection) == 2
    for index in range(3):
        assert most_at_a_time(connection, f"chains[{index}].deep") == 1
        assert most_at_a_time(connection, f"chains[{index}].cells") == 2
    assert leftovers(connection) == []


def test_a_nested_workflow_has_a_limit_of_its_own(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    narrow = Workflow("narrow", CHAIN.jobs, inputs=CHAIN.inputs, max_parallel=1)
    run.submit(
        JobSpec("one", workflow="narrow", with_={"path": str(tmp_path)}),
        job("free", "my_id"),
        workflows={"narrow": narrow},
    )
    seen = set()
    while run.state == "running":
        seen.add(len([name for name in queued(connection) if "one--" in name]))
        work(max_jobs=1)
    assert max(seen) == 1
    assert run.state == "succeeded"
    assert leftovers(connection) == []
    runs.remove(RUN, connection)
    assert [key for key in connection.keys("*") if RUN.encode() in key] == []


def test_a_canceled_run_leaves_no_places_and_can_be_retried(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    run.submit(chains([str(tmp_path)] * 4), workflows={"chain": CHAIN})
    work(max_jobs=4)
    runs.cancel(RUN, connection)
    assert run.state == "canceled"
    assert leftovers(connection) == []
    connection.delete(keys.run_events(RUN))
    retry.retry(RUN, connection)
    work()
    assert run.state == "succeeded"
    assert most_at_a_time(connection) == 2


def test_a_chain_that_has_begun_goes_on_when_its_group_is_closed(
    run: Runs, work: Work, tidy: Work, connection: Redis, tmp_path: Path
) -> None:
    run.submit(
        chains([f"{tmp_path}/no", str(tmp_path), str(tmp_path)], 2, fail_fast=True),
        workflows={"chain": CHAIN},
    )
    work()
    tidy()
    states = [run.states[f"chains[{index}]"] for index in range(3)]
    assert states == ["failed", "finished", "canceled"]
    assert run.reason("chains[2]") == "chains[0] failed"
    assert leftovers(connection) == []


def test_chains_that_find_chains_keep_to_the_limit(
    run: Runs, work: Work, connection: Redis
) -> None:
    page = Workflow(
        "page",
        (job("read", "children_of", with_={"number": "${{ inputs.n }}", "limit": 7}),),
        inputs=(Input("n", "int"),),
        outputs={"links": "${{ jobs.read.result.links }}"},
    )
    pages = JobSpec(
        "pages",
        workflow="page",
        for_each=each([1], key="item", more="result.links"),
        with_={"n": "${{ item }}"},
        max_parallel=2,
    )
    run.submit(pages, workflows={"page": page})
    work()
    assert run.state == "succeeded"
    assert len([name for name in run.states if name.endswith("]")]) == 7
    assert most_at_a_time(connection, "pages") == 2
    assert leftovers(connection) == []


def test_a_stop_lets_chains_that_have_begun_go_on(
    run: Runs, work: Work, tidy: Work, connection: Redis
) -> None:
    inner = Workflow(
        "inner",
        (job("a", "give", with_={"value": "${{ inputs.path }}"}),),
        inputs=(Input("path"),),
        outputs={"path": "${{ jobs.a.result }}"},
    )
    group = chains(["x", "stop", "y", "z"], 2, workflow="inner")
    stopping = replace(
        group, for_each=each(["x", "stop", "y", "z"], stop_when="result.path == 'x'")
    )
    run.submit(stopping, workflows={"inner": inner})
    work()
    tidy()
    assert run.state == "succeeded"
    states = [run.states[f"chains[{index}]"] for index in range(4)]
    assert states == ["finished", "finished", "skipped", "skipped"]
    assert run.states["chains[3](start)"] == "skipped"
    assert leftovers(connection) == []
