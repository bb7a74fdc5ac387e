"""`matrix`: a job for each combination, known before the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from flowq.errors import WorkflowInvalid
from flowq.matrix import expand_matrix
from flowq.runtime.job import get_job
from flowq.spec import Matrix
from tests.runtime.language import RUN, Runs, job

Work = Callable[..., None]
AXES = {"os": ["linux", "mac"], "python": ["3.10", "3.11"]}


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def test_the_first_axis_changes_slowest() -> None:
    assert list(expand_matrix(Matrix(AXES))) == [
        "linux,3.10",
        "linux,3.11",
        "mac,3.10",
        "mac,3.11",
    ]


def test_exclude_takes_all_combinations_away_that_it_fits() -> None:
    matrix = Matrix(AXES, exclude=({"os": "mac", "python": "3.10"}, {"python": "3.11"}))
    assert list(expand_matrix(matrix)) == ["linux,3.10"]


def test_include_adds_keys_where_it_fits_and_a_combination_where_it_does_not() -> None:
    matrix = Matrix(
        {"os": ["linux", "mac"]},
        include=({"os": "mac", "slow": True}, {"os": "windows"}, {"colour": "red"}),
    )
    assert list(expand_matrix(matrix).values()) == [
        {"os": "linux", "colour": "red"},
        {"os": "mac", "slow": True, "colour": "red"},
        {"os": "windows"},
    ]


def test_include_alone_is_a_list_of_combinations() -> None:
    matrix = Matrix(include=({"os": "linux"}, {"os": "mac", "n": 1}))
    assert list(expand_matrix(matrix)) == ["linux", "mac,1"]


def test_combinations_that_include_adds_count(run: Runs) -> None:
    matrix = Matrix({"n": [*range(9_999)]}, include=({"n": -1}, {"n": -2}))
    with pytest.raises(WorkflowInvalid, match="has 10,001 combinations"):
        run.submit(job("a", "give", matrix=matrix, with_={"value": 1}))


def test_a_matrix_that_would_take_long_to_make_is_refused_when_its_results_are_known(
    run: Runs, work: Work
) -> None:
    matrix = Matrix({"n": "${{ jobs.l.result }}"}, include=({"n": -1},) * 1_000)
    run.submit(
        job("l", "give", with_={"value": [*range(2_001)]}),
        job("a", "give", matrix=matrix, with_={"value": 1}),
    )
    work()
    assert run.states == {"l": "finished", "a(list)": "failed"}
    assert "which are 2,001,000 comparisons: at most 2,000,000" in run.error("a")


def test_each_combination_runs_and_is_found_by_its_key(run: Runs, work: Work) -> None:
    text = "${{ matrix.os }} ${{ matrix.python }} ${{ inputs.word }} ${{ jobs.first.result }}"
    run.submit(
        job("first", "give", with_={"value": "!"}),
        job("test", "give", matrix=Matrix(AXES), with_={"value": text}),
        job(
            "report",
            "give",
            with_={
                "value": [
                    "${{ jobs.test.by_key['mac,3.10'] }}",
                    "${{ jobs.test.results }}",
                    "${{ jobs.test.outcomes[3].item.os }}",
                ]
            },
        ),
        inputs={"word": "hi"},
    )
    work()
    assert run.state == "succeeded"
    one, all_of_them, item = run.result("report")
    assert (one, item) == ("mac 3.10 hi !", "mac")
    assert all_of_them[0] == "linux 3.10 hi !"
    assert len(all_of_them) == 4
    assert run.states["test[linux,3.11]"] == "finished"


def test_axes_come_from_inputs(run: Runs, work: Work) -> None:
    matrix = Matrix({"n": "${{ inputs.numbers }}"})
    run.submit(
        job("test", "square", matrix=matrix, with_={"number": "${{ matrix.n }}"}),
        inputs={"numbers": [3, 4]},
    )
    work()
    assert [run.result("test--0"), run.result("test--1")] == [9, 16]


def test_a_matrix_waits_for_a_matrix_as_a_whole(run: Runs, work: Work, connection: Redis) -> None:
    numbers = Matrix({"n": [1, 2]})
    value: Any = {"value": "${{ matrix.n }}"}
    run.submit(
        job("first", "give", matrix=numbers, with_=value),
        job("second", "give", matrix=numbers, with_=value, needs=("first",)),
        job("last", "my_id", needs=("second",)),
    )
    work()
    assert run.state == "succeeded"
    assert len(get_job(f"{RUN}-second--1", connection).blockers) == 2
