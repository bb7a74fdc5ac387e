"""Retries of runs with workflows and groups that begin anew, as what they are told has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.runtime import keys, retry, runs
from flowq.spec import ALL_TOLERATED, Input, JobSpec, Matrix, Workflow
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]

REPORT = Workflow(
    "report",
    (
        job("many", "square", for_each=each("${{ range(inputs.n) }}"), with_={"number": 2}),
        job("legs", "give", matrix=Matrix({"x": [1, 2]}), with_={"value": "${{ inputs.n }}"}),
        JobSpec("deep", workflow="leaf", with_={"n": "${{ len(jobs.many.results) }}"}),
        job(
            "sum", "give", with_={"value": "${{ [inputs.n, jobs.legs.results, jobs.deep.result] }}"}
        ),
    ),
    inputs=(Input("n", "int"),),
    outputs={"sum": "${{ jobs.sum.result }}", "n": "${{ inputs.n }}"},
    workflows={
        "leaf": Workflow(
            "leaf",
            (job("leaf", "give", with_={"value": "${{ inputs.n }}"}),),
            inputs=(Input("n", "int"),),
            outputs={"leaf": "${{ jobs.leaf.result }}"},
        )
    },
)


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def submit(run: Runs, gate: Path, **more: Any) -> None:
    run.submit(
        job("build", "fail_unless", with_={"path": str(gate), "value": more.pop("value", 3)}),
        JobSpec(
            "report",
            workflow="report",
            if_="always()",
            with_={"n": "${{ jobs.build.result or 1 }}"},
            **more,
        ),
        job("last", "give", if_="always()", with_={"value": "${{ jobs.report.result }}"}),
        workflows={"report": REPORT},
    )


def test_a_workflow_that_ran_always_runs_again_with_its_new_inputs(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    submit(run, tmp_path / "gate")
    work()
    assert run.state == "failed"
    assert run.result("last") == {"sum": [1, [1, 1], {"leaf": 1}], "n": 1}
    (tmp_path / "gate").touch()
    again = retry.retry(RUN, connection)
    assert set(again) == {f"{RUN}-{name}" for name in ("build", "report", "report--0", "last")}
    assert "report.sum" not in run.states
    work()
    assert run.state == "succeeded"
    assert run.result("last") == {"sum": [3, [3, 3], {"leaf": 3}], "n": 3}
    assert set(run.states.values()) == {"finished"}
    assert len([name for name in run.states if name.startswith("report.many[")]) == 3
    ids = connection.lrange(keys.run_jobs(RUN), 0, -1)
    assert len(ids) == len(set(ids)) == len(run.states)
    assert connection.hget(keys.run(RUN), "left") == b"0"
    runs.remove(RUN, connection)
    assert [key for key in connection.keys("*") if RUN.encode() in key] == []


def test_what_is_not_there_any_more_is_not_shown(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    submit(run, tmp_path / "gate", value=-1)
    work()
    assert "report.many[0]" in run.states
    (tmp_path / "gate").touch()
    retry.retry(RUN, connection)
    work()
    assert run.state == "succeeded"
    assert "report.many[0]" not in run.states
    assert run.result("last")["sum"] == [-1, [-1, -1], {"leaf": 0}]


@pytest.mark.parametrize("tolerance", [None, ALL_TOLERATED])
def test_failures_inside_of_what_begins_anew_are_forgotten(
    tolerance: Any, run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    inner = Workflow(
        "inner",
        (
            job("a", "fail_if", with_={"value": "${{ inputs.n }}", "bad": 0}),
            job("b", "my_id", needs=("a",)),
        ),
        inputs=(Input("n", "int"),),
    )
    run.submit(
        job("build", "fail_unless", with_={"path": f"{tmp_path}/gate", "value": 3}),
        JobSpec(
            "check",
            workflow="inner",
            if_="always()",
            continue_on_error=tolerance,
            with_={"n": "${{ jobs.build.result or 0 }}"},
        ),
        workflows={"inner": inner},
    )
    work()
    assert run.states["check"] == "failed"
    (tmp_path / "gate").touch()
    retry.retry(RUN, connection)
    work()
    assert run.state == "succeeded"
    assert run.states["check.b"] == run.states["check"] == "finished"
    counts = connection.hmget(keys.run(RUN), "left", "bad")
    assert counts == [b"0", b"0"]
    assert connection.hget(keys.future(f"{RUN}-check"), "hurt") in (None, b"0")


def test_a_retry_of_a_retry_begins_anew_again(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    submit(run, tmp_path / "gate")
    work()
    retry.retry(RUN, connection)
    work()
    assert run.state == "failed"
    assert run.result("last")["n"] == 1
    (tmp_path / "gate").touch()
    retry.retry(RUN, connection)
    work()
    assert run.state == "succeeded"
    assert run.result("last")["n"] == 3


def test_a_group_that_was_made_of_something_else_is_made_anew(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    run.submit(
        job("build", "fail_unless", with_={"path": f"{tmp_path}/gate", "value": [7, 8]}),
        job("first", "give", with_={"value": 0}),
        job(
            "items",
            "give",
            for_each=each("${{ jobs.build.result or [1, 2, 3] }}"),
            with_={"value": "${{ [item, jobs.build.status] }}"},
            if_="always()",
            max_parallel=2,
        ),
        JobSpec(
            "chains",
            workflow="leaf",
            for_each=each("${{ jobs.build.result or [1, 2, 3] }}"),
            with_={"n": "${{ item }}"},
            if_="always()",
            max_parallel=1,
        ),
        job(
            "last",
            "give",
            if_="always()",
            with_={"value": "${{ [jobs.first.result, jobs.items.results, jobs.chains.results] }}"},
        ),
        workflows=REPORT.workflows,
    )
    work()
    assert run.state == "failed"
    told = [[item, "failed"] for item in (1, 2, 3)]
    assert run.result("last") == [0, told, [{"leaf": item} for item in (1, 2, 3)]]
    (tmp_path / "gate").touch()
    retry.retry(RUN, connection)
    work()
    assert run.state == "succeeded"
    told = [[item, "finished"] for item in (7, 8)]
    assert run.result("last") == [0, told, [{"leaf": item} for item in (7, 8)]]
    assert "items[2]" not in run.states
    assert run.status.jobs["first"].attempts == 1
    assert connection.hmget(keys.run(RUN), "left", "bad") == [b"0", b"0"]
    blockers = connection.lrange(keys.blockers(f"{RUN}-last"), 0, -1)
    assert len(blockers) == len(set(blockers)) == 7
    assert connection.hmget(keys.future(f"{RUN}-last"), "total", "pending") == [b"5", b"0"]
    assert connection.keys("rq:flowq:1:slots:*") == []
    runs.remove(RUN, connection)
    assert [key for key in connection.keys("*") if RUN.encode() in key] == []


def test_items_that_found_others_are_made_anew_with_them(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    run.submit(
        job("build", "fail_unless", with_={"path": f"{tmp_path}/gate", "value": 3}),
        job(
            "pages",
            "children_of",
            for_each=each("${{ [jobs.build.result or 1] }}", key="item", more="result.links"),
            with_={"number": "${{ item }}", "limit": 7},
            if_="always()",
        ),
        job("last", "give", if_="always()", with_={"value": "${{ len(jobs.pages.results) }}"}),
    )
    work()
    assert run.result("last") == 7
    (tmp_path / "gate").touch()
    retry.retry(RUN, connection)
    work()
    assert run.state == "succeeded"
    assert run.result("last") == 3  # 3, 6 and 7
