"""The outputs of a run: what its workflow declares, evaluated when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from flowq.client import Run
from flowq.errors import RunNotFound, WorkflowInvalid, WrongState
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


@pytest.fixture
def handle(connection: Redis) -> Run:
    return Run(RUN, connection)


def test_the_outputs_are_made_of_inputs_results_and_the_run(
    run: Runs, handle: Run, work: Work
) -> None:
    run.submit(
        job("one", "square", with_={"number": 3}),
        job("many", "square", for_each=each([1, 2]), with_={"number": "${{ item }}"}),
        inputs={"plus": 1, "text": "${{ run.id }}"},
        outputs={
            "sum": "${{ jobs.one.result + inputs.plus }}",
            "all": ["${{ jobs.many.results }}", {"how": "${{ jobs.many.status }}"}],
            "note": "${{ run.id }} of ${{ run.workflow }}: ${{ jobs.one.result }}",
            "data": "${{ inputs.text }}",
            "plain": 7,
        },
    )
    with pytest.raises(WrongState, match="when it has ended"):
        handle.outputs()
    work()
    assert handle.outputs() == {
        "sum": 10,
        "all": [[1, 4], {"how": "finished"}],
        "note": f"{RUN} of demo: 9",
        "data": "${{ run.id }}",
        "plain": 7,
    }


def test_a_run_without_outputs_has_none(run: Runs, handle: Run, work: Work) -> None:
    run.submit(job("one", "my_id"))
    work()
    assert handle.outputs() == {}
    handle.remove()
    with pytest.raises(RunNotFound):
        handle.outputs()


def test_what_did_not_come_to_a_result_is_none_also_in_a_failed_run(
    run: Runs, handle: Run, work: Work
) -> None:
    run.submit(
        job("good", "give", with_={"value": 1}),
        job("bad", "fail"),
        job("after", "give", needs=("bad",), with_={"value": 2}),
        job("items", "square", for_each=each("${{ jobs.bad.result }}"), with_={"number": 1}),
        outputs={name: f"${{{{ jobs.{name}.result }}}}" for name in ("good", "bad", "after")}
        | {"items": "${{ jobs.items.results }}", "status": "${{ jobs.bad.status }}"},
    )
    work()
    assert run.state == "failed"
    assert handle.outputs() == {
        "good": 1,
        "bad": None,
        "after": None,
        "items": [],
        "status": "failed",
    }


def test_an_expression_without_a_value_says_so_and_leaves_the_others_alone(
    run: Runs, handle: Run, work: Work
) -> None:
    run.submit(
        job("one", "give", with_={"value": 1}),
        outputs={"good": "${{ jobs.one.result }}", "bad": "${{ jobs.one.result.length }}"},
    )
    work()
    assert run.state == "succeeded"
    with pytest.raises(WorkflowInvalid, match=r"FQ305 .*jobs\.one\.result\.length"):
        handle.outputs()
    told: dict[str, str] = {}
    found = handle.outputs(instead=lambda name, error: told.setdefault(name, str(error)))
    assert found["good"] == 1
    assert list(told) == ["bad"]


def test_the_outputs_of_a_retried_run_are_new(
    run: Runs, handle: Run, work: Work, tmp_path: Path
) -> None:
    gate = f"{tmp_path}/gate"
    run.submit(
        job("one", "fail_unless", with_={"path": gate, "value": 1}),
        outputs={"one": "${{ jobs.one.result }}"},
    )
    work()
    assert handle.outputs() == {"one": None}
    (tmp_path / "gate").touch()
    handle.retry()
    with pytest.raises(WrongState):
        handle.outputs()
    work()
    assert handle.outputs() == {"one": 1}
