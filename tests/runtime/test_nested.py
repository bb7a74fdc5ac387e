"""`workflow:` jobs: a workflow inside another, as one job; or one for each item."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.runtime import approvals, groups, planned, retry
from flowq.spec import Approval, Input, JobSpec, Matrix, Workflow
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]

CHAIN = Workflow(
    "chain",
    (
        job("square", "square", with_={"number": "${{ inputs.number }}"}),
        job("plus", "give", with_={"value": "${{ jobs.square.result + inputs.offset }}"}),
    ),
    inputs=(Input("number", "int"), Input("offset", "int", default=0, required=False)),
    outputs={"value": "${{ jobs.plus.result }}", "from": "${{ inputs.number }}"},
)


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def nested(name: str, workflow: str = "chain", **more: Any) -> JobSpec:
    return JobSpec(name, workflow=workflow, **more)


def test_a_nested_workflow_gets_inputs_and_gives_outputs(run: Runs, work: Work) -> None:
    run.submit(
        job("first", "give", with_={"value": 3}),
        nested("inner", with_={"number": "${{ jobs.first.result }}", "offset": 1}),
        job("last", "give", with_={"value": "${{ jobs.inner.result }}"}),
        workflows={"chain": CHAIN},
    )
    work()
    assert run.state == "succeeded"
    assert run.result("last") == {"value": 10, "from": 3}
    assert set(run.states) == {
        "first",
        "inner(start)",
        "inner.square",
        "inner.plus",
        "inner",
        "last",
    }
    assert run.status.jobs["inner.plus"].job_id == f"{RUN}-inner--plus"


def test_each_item_has_its_own_chain(run: Runs, work: Work) -> None:
    run.submit(
        job("numbers", "make_list", with_={"count": 4}),
        nested(
            "chains", for_each=each("${{ jobs.numbers.result }}"), with_={"number": "${{ item }}"}
        ),
        job("last", "give", with_={"value": "${{ jobs.chains.results }}"}),
        workflows={"chain": CHAIN},
    )
    work()
    assert run.state == "succeeded"
    assert [found["value"] for found in run.result("last")] == [0, 1, 4, 9]
    assert run.status.jobs["chains[2].square"].job_id == f"{RUN}-chains--2--square"


def test_a_matrix_of_workflows(run: Runs, work: Work) -> None:
    run.submit(
        nested("legs", matrix=Matrix({"n": [2, 3]}), with_={"number": "${{ matrix.n }}"}),
        job("last", "give", with_={"value": "${{ jobs.legs.by_key['3'].value }}"}),
        workflows={"chain": CHAIN},
    )
    work()
    assert run.result("last") == 9


def test_a_failure_inside_is_a_failure_of_the_whole(run: Runs, work: Work, tmp_path: Path) -> None:
    inner = Workflow(
        "inner",
        (
            job("bad", "fail_unless", with_={"path": "${{ inputs.path }}"}),
            job("clean", "my_id", needs=("bad",), if_="always()"),
        ),
        inputs=(Input("path"),),
    )
    run.submit(
        nested("all", "inner", with_={"path": f"{tmp_path}/gate"}),
        job("last", "my_id", needs=("all",)),
        workflows={"inner": inner},
    )
    work()
    assert run.state == "failed"
    assert run.states["all.clean"] == "finished"
    assert (run.states["all"], run.reason("all")) == ("failed", "all.bad failed")
    assert (run.states["last"], run.reason("last")) == ("skipped", "all failed")
    (tmp_path / "gate").touch()
    retry.retry(RUN, run.connection)
    work()
    assert run.state == "succeeded"
    assert run.status.jobs["all(start)"].attempts == 1


def test_a_false_condition_skips_the_whole_neutrally(run: Runs, work: Work) -> None:
    run.submit(
        nested("inner", with_={"number": 1}, if_="false"),
        job("last", "give", with_={"value": "${{ jobs.inner.result }}"}),
        workflows={"chain": CHAIN},
    )
    work()
    assert run.states == {"inner(start)": "skipped", "inner": "skipped", "last": "finished"}
    assert run.reason("inner") == run.reason("inner(start)") == "its `if` is false: false"
    assert run.state == "succeeded"


def test_a_condition_is_judged_for_each_chain(run: Runs, work: Work) -> None:
    run.submit(
        nested("chains", for_each=each([1, 2]), with_={"number": "${{ item }}"}, if_="item > 1"),
        job("last", "give", with_={"value": "${{ jobs.chains.results }}"}),
        workflows={"chain": CHAIN},
    )
    work()
    assert run.state == "succeeded"
    assert run.result("last") == [None, {"value": 4, "from": 2}]


def test_inputs_that_do_not_fit_are_refused_where_they_are_known(run: Runs, work: Work) -> None:
    run.submit(
        job("first", "give", with_={"value": "many"}),
        nested("inner", with_={"number": "${{ jobs.first.result }}"}),
        workflows={"chain": CHAIN},
    )
    work()
    assert run.state == "failed"
    assert "number" in run.error("inner--0")


def test_groups_and_workflows_nest(run: Runs, work: Work) -> None:
    row = Workflow(
        "row",
        (
            job(
                "cells",
                "square",
                for_each=each("${{ range(inputs.n) }}"),
                with_={"number": "${{ item }}"},
            ),
            nested("deep", with_={"number": "${{ len(jobs.cells.results) }}"}),
        ),
        inputs=(Input("n", "int"),),
        outputs={"sum": "${{ jobs.cells.results }}", "deep": "${{ jobs.deep.result.value }}"},
        workflows={"chain": CHAIN},
    )
    run.submit(
        nested("rows", "row", for_each=each([1, 3]), with_={"n": "${{ item }}"}),
        job("last", "give", with_={"value": "${{ jobs.rows.results }}"}),
        workflows={"row": row},
    )
    work()
    assert run.state == "succeeded"
    assert run.result("last") == [{"sum": [0], "deep": 1}, {"sum": [0, 1, 4], "deep": 9}]
    assert run.states["rows[1].cells[2]"] == run.states["rows[1].deep.square"] == "finished"


def test_a_chain_finds_more_chains(run: Runs, work: Work) -> None:
    page = Workflow(
        "page",
        (job("read", "children_of", with_={"number": "${{ inputs.n }}", "limit": 5}),),
        inputs=(Input("n", "int"),),
        outputs={"links": "${{ jobs.read.result.links }}"},
    )
    run.submit(
        nested(
            "pages",
            "page",
            for_each=each([1], key="item", more="result.links"),
            with_={"n": "${{ item }}"},
        ),
        job("last", "give", with_={"value": "${{ len(jobs.pages.results) }}"}),
        workflows={"page": page},
    )
    work()
    assert run.state == "succeeded"
    assert run.result("last") == 5


def test_a_chain_that_fails_leaves_the_others_alone(
    run: Runs, work: Work, tidy: Callable[[], None]
) -> None:
    inner = Workflow(
        "inner",
        (
            job("a", "fail_if", with_={"value": "${{ inputs.n }}", "bad": 1}),
            job("b", "my_id", needs=("a",)),
        ),
        inputs=(Input("n", "int"),),
    )
    run.submit(
        nested(
            "chains", "inner", for_each=each([1, 2, 3]), with_={"n": "${{ item }}"}, max_parallel=1
        ),
        workflows={"inner": inner},
    )
    work()
    tidy()
    assert run.states["chains[0]"] == "failed"
    assert run.states["chains[2]"] == "finished"
    assert run.state == "failed"


def test_a_nested_workflow_can_ask_for_an_approval(run: Runs, work: Work) -> None:
    run.submit(
        nested("inner", with_={"number": 2}, approval=Approval()), workflows={"chain": CHAIN}
    )
    work()
    assert run.state == "waiting"
    approvals.approve(RUN, "inner", run.connection)
    work()
    assert run.result("inner") == {"value": 4, "from": 2}


@pytest.mark.parametrize("per_call", [1, 50])
def test_a_start_that_dies_in_its_middle_runs_nothing_and_is_taken_up_again(
    per_call: int, run: Runs, work: Work, tidy: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = groups.add_planned

    def add_and_die(enqueues: Any, *rest: Any, **more: Any) -> None:
        real(enqueues, *rest, **more)
        if any(each.name == "inner.plus" for each in enqueues):
            monkeypatch.setattr(groups, "add_planned", real)
            raise RuntimeError("killed")

    monkeypatch.setattr(groups, "add_planned", add_and_die)
    monkeypatch.setattr(groups, "batches", lambda all_: planned.batches(all_, per_call))
    run.submit(nested("inner", with_={"number": 2}), workflows={"chain": CHAIN})
    work()
    tidy()
    work()
    assert run.state == "failed"
    assert run.states["inner(start)"] == "failed"
    assert run.states["inner.plus"] == "canceled"
    retry.retry(RUN, run.connection)
    work()
    assert run.state == "succeeded"
    assert run.result("inner") == {"value": 4, "from": 2}


def test_chains_that_were_added_and_not_released_are_released_by_the_next_attempt(
    run: Runs, work: Work, tidy: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        monkeypatch.undo()
        raise RuntimeError("killed")

    monkeypatch.setattr(groups, "release_added", die)
    run.submit(
        nested("chains", for_each=each([1, 2]), with_={"number": "${{ item }}"}),
        job("last", "give", with_={"value": "${{ jobs.chains.results }}"}),
        workflows={"chain": CHAIN},
    )
    work()
    tidy()
    assert run.state == "failed"
    retry.retry(RUN, run.connection)
    work()
    assert run.state == "succeeded"
    assert [found["value"] for found in run.result("last")] == [1, 4]


def test_a_finished_chain_that_failed_inside_is_retried_without_its_expansion(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    inner = Workflow(
        "inner",
        (
            job("a", "give", with_={"value": "${{ inputs.path }}"}),
            job("b", "fail_unless", with_={"path": "${{ jobs.a.result }}", "value": 1}),
        ),
        inputs=(Input("path"),),
        outputs={"value": "${{ jobs.b.result }}"},
    )
    paths = [str(tmp_path), f"{tmp_path}/gate"]
    run.submit(
        nested("chains", "inner", for_each=each(paths), with_={"path": "${{ item }}"}),
        job("last", "give", with_={"value": "${{ jobs.chains.results }}"}),
        workflows={"inner": inner},
    )
    work()
    assert run.state == "failed"
    (tmp_path / "gate").touch()
    retry.retry(RUN, run.connection)
    work()
    assert run.state == "succeeded"
    assert run.result("last") == [{"value": 1}, {"value": 1}]
    attempts = {name: each.attempts for name, each in run.status.jobs.items()}
    assert attempts["chains(list)"] == attempts["chains[1](start)"] == attempts["chains[1].a"] == 1
    assert attempts["chains[1].b"] == 2
