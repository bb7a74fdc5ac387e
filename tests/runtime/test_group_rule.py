"""A group has one status, one list of results and one count, whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from flowq.client import get_run
from flowq.expressions import NoResult, find_references
from flowq.render.groups import collapse
from flowq.render.json import RunFacts, run_document
from flowq.runtime import maintenance, runs
from flowq.runtime.job import get_job
from flowq.runtime.lookups import read_jobs
from flowq.spec import ALL_TOLERATED, Input, JobSpec, Matrix, Tolerance, Workflow
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]

ITEM = {"value": "${{ item }}"}
TWO_BAD = {"value": "${{ item }}", "bad": 2}
ONE = Workflow(
    "one",
    (
        job("maybe", "my_id", if_="false"),
        job("work", "fail_if", needs=("maybe",), with_={"value": "${{ inputs.n }}", "bad": 2}),
        job("parts", "give", needs=("work",), for_each=each(["a", "b"]), with_=ITEM),
    ),
    inputs=(Input("n", "int"),),
    outputs={"out": "${{ jobs.work.result }}"},
)
SKIPS_ONE = {"if_": "item != 2"}


def inner(name: str, **more: Any) -> JobSpec:
    return JobSpec(name, workflow="one", **more)


def group(call: str = "fail_if", items: Any = (1, 2, 3), **more: Any) -> JobSpec:
    return job("g", call, for_each=each(list(items)), with_=TWO_BAD, **more)


NO_LIST = job("g", "give", for_each=each("${{ 3 + inputs.a }}"), with_=ITEM)
AXIS = {"value": "${{ matrix.n }}"}
INNER: dict[str, Any] = {"with_": {"n": "${{ item }}"}}

CASES: dict[str, tuple[list[JobSpec], str, list[Any]]] = {
    "all finished": ([group(items=[1, 3])], "finished", [1, 3]),
    "one failed": ([group()], "failed", [1, None, 3]),
    "one tolerated": ([group(continue_on_error=Tolerance(count=1))], "finished", [1, None, 3]),
    "all tolerated": ([group(items=[2], continue_on_error=ALL_TOLERATED)], "finished", [None]),
    "more than tolerated": (
        [group(items=[2, 2, 1], continue_on_error=Tolerance(percent=40))],
        "failed",
        [None, None, 1],
    ),
    "one skipped": ([group(**SKIPS_ONE)], "finished", [1, None, 3]),
    "all skipped": ([group(items=[2, 2], **SKIPS_ONE)], "skipped", [None, None]),
    "empty": ([group(items=[])], "finished", []),
    "list failed": (
        [job("g", "give", for_each=each("${{ 3 + inputs.a }}"), with_=ITEM)],
        "failed",
        [],
    ),
    "list skipped": ([job("bad", "fail"), group(needs=("bad",))], "skipped", []),
    "matrix": (
        [
            job(
                "g",
                "fail_if",
                matrix=Matrix({"n": [1, 2]}),
                with_={"value": "${{ matrix.n }}", "bad": 2},
            )
        ],
        "failed",
        [1, None],
    ),
    "empty matrix": (
        [
            job("g", "give", matrix=Matrix({"n": []}), with_={"value": "${{ matrix.n }}"}),
            job("x", "my_id"),
        ],
        "finished",
        [],
    ),
    "workflows": (
        [inner("g", for_each=each([1, 3]), **INNER)],
        "finished",
        [{"out": 1}, {"out": 3}],
    ),
    "a failed workflow": (
        [inner("g", for_each=each([1, 2]), **INNER)],
        "failed",
        [{"out": 1}, None],
    ),
    "a tolerated workflow": (
        [
            inner(
                "g",
                for_each=each([1, 2]),
                **INNER,
                continue_on_error=ALL_TOLERATED,
            )
        ],
        "finished",
        [{"out": 1}, None],
    ),
    "fail fast": ([group(items=[2, 1, 3], fail_fast=True)], "failed", [None, None, None]),
}


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def ask(run: Runs, text: str) -> Any:
    references = find_references(text)
    return read_jobs(references, {"g": f"{RUN}-g"}, run.connection)["g"]


@pytest.mark.parametrize("name", CASES)
def test_expressions_json_and_displays_say_the_same_of_a_group(
    name: str, run: Runs, work: Work
) -> None:
    jobs, state, results = CASES[name]
    run.submit(*jobs, workflows={"one": ONE}, inputs={"a": 4})
    work()
    views = get_run(RUN, run.connection).views()
    status = run.status
    document = run_document(RunFacts(status, {each: view.result for each, view in views.items()}))[
        "jobs"
    ]["g"]
    shown = ask(run, "${{ [jobs.g.status, jobs.g.results] }}")
    assert shown["status"] == document["status"] == collapse(status)["g"].state == state
    assert document["results"] == results
    assert [None if isinstance(each, NoResult) else each for each in shown["results"]] == results
    assert document["ids"] == [f"{RUN}-g--{index}" for index in range(len(results))]


def test_what_was_canceled_in_part_is_canceled_everywhere(run: Runs, work: Work) -> None:
    run.submit(group(items=[1, 3, 4]))
    work(max_jobs=2)
    runs.cancel(RUN, run.connection)
    assert (
        ask(run, "${{ jobs.g.status }}")["status"] == collapse(run.status)["g"].state == "canceled"
    )


def test_a_deleted_item_is_deleted_everywhere(run: Runs, work: Work) -> None:
    run.submit(group(items=[1, 3]))
    work(max_jobs=1)
    get_job(f"{RUN}-g--1", run.connection).delete()
    work()
    maintenance.examine(run.connection)
    asked = ask(run, "${{ [jobs.g.status, jobs.g.results, jobs.g.outcomes] }}")
    assert asked["status"] == collapse(run.status)["g"].state == "deleted"
    assert asked["results"] == [1, NoResult("jobs.g[1] was deleted")]
    assert [each["status"] for each in asked["outcomes"]] == ["finished", "deleted"]


def test_counts_count_what_was_declared(run: Runs, work: Work) -> None:
    """Three workflows with two jobs and two items each."""
    run.submit(
        inner("g", for_each=each([1, 3, 4]), **INNER),
        job("after", "my_id", needs=("g",)),
        workflows={"one": ONE},
    )
    assert run.status.count_by_state() == {
        "queued": 1,
        "deferred": 1,
    }  # the items are not known yet
    work()
    assert run.status.count_by_state() == {"skipped": 3, "finished": 3 * 4 + 1}
    assert collapse(run.status)["g"].name == "g 3/3"


def test_a_group_whose_list_failed_counts_as_one_failure(run: Runs, work: Work) -> None:
    run.submit(job("g", "give", for_each=each("${{ 3 + inputs.a }}"), with_=ITEM), inputs={"a": 4})
    work()
    assert run.status.count_by_state() == {"failed": 1}
    assert list(run.status.jobs) == ["g(list)"]


def test_a_nested_workflow_counts_the_jobs_inside(run: Runs, work: Work) -> None:
    run.submit(inner("g", with_={"n": 1}), workflows={"one": ONE})
    assert collapse(run.status)["g"].name == "g"
    work()
    shown = collapse(run.status)["g"]
    assert (shown.name, shown.state) == ("g 4/4", "finished")


def test_the_name_of_a_deleted_list_job_is_not_that_of_its_group(run: Runs, work: Work) -> None:
    run.submit(group(items=[1]))
    run.connection.delete(f"rq:job:{RUN}-g")
    maintenance.examine(run.connection)
    assert run.states == {"g(list)": "deleted"}


AROUND = ("jobs.g.results[0]", "len(jobs.g.results)", "jobs.g.by_key[1] | default(9)")

# What expressions read of items that have no result ----------------------------------------------


def test_reading_a_failed_item_names_it(run: Runs, work: Work) -> None:
    run.submit(
        group(),
        job("total", "give", with_={"value": "${{ sum(jobs.g.results) }}"}, if_="always()"),
        job("whole", "give", with_={"value": "${{ jobs.g.results }}"}, if_="always()"),
        job("parts", "give", with_={"value": "${{ [jobs.g.results[:2]] }}"}, if_="always()"),
        job("loop", "give", for_each=each("${{ jobs.g.results }}"), with_=ITEM, if_="always()"),
        job(
            "around",
            "give",
            with_={"value": f"${{{{ [{', '.join(AROUND)}] }}}}"},
            if_="always()",
        ),
    )
    work()
    for name in ("total", "whole", "parts", "loop"):
        assert "jobs.g[1] failed: ValueError: 2 is bad" in run.error(name)
    assert run.result("around") == [1, 3, 9]


def test_an_item_is_named_by_its_key_and_a_workflow_by_what_failed_inside(
    run: Runs, work: Work
) -> None:
    run.submit(
        inner("g", for_each=each([2], key="'no ' ~ item"), **INNER),
        workflows={"one": ONE},
    )
    work()
    [found] = ask(run, "${{ jobs.g.results }}")["results"]
    assert found == NoResult("jobs.g[no 2] failed: g[no 2].work failed: ValueError: 2 is bad")


def test_a_list_from_a_skipped_job_is_empty_and_says_so(run: Runs, work: Work) -> None:
    run.submit(
        job("files", "give", with_={"value": {"all": [1]}}, if_="false"),
        job("g", "give", for_each=each("${{ jobs.files.result.all | sort }}"), with_=ITEM),
        job("after", "my_id", needs=("g",)),
    )
    work()
    assert run.state == "succeeded"
    assert run.states == {"files": "skipped", "g(list)": "finished", "after": "finished"}
    why = "its list is empty: files was skipped: its `if` is false: false"
    assert run.reason("g(list)") == collapse(run.status)["g"].reason == why
    explained = get_run(RUN, run.connection).explain("g")
    assert (explained.state, [each.text for each in explained.reasons]) == ("finished", [why])


def test_a_list_from_a_tolerated_failure_is_empty_and_from_another_an_error(
    run: Runs, work: Work
) -> None:
    run.submit(
        job("files", "fail", continue_on_error=ALL_TOLERATED),
        job("bad", "fail"),
        job("g", "give", for_each=each("${{ jobs.files.result }}"), with_=ITEM),
        job("h", "give", for_each=each("${{ jobs.bad.result }}"), with_=ITEM, if_="always()"),
        job("i", "give", for_each=each("${{ jobs.files.result or [7] }}"), with_=ITEM),
    )
    work()
    assert run.reason("g(list)") == "its list is empty: files failed: ValueError: it broke"
    assert "the for_each of h has no list: bad failed: ValueError: it broke" in run.error("h")
    assert run.states["i[0]"] == "finished"


def test_a_group_is_explained_by_its_items(run: Runs, work: Work) -> None:
    run.submit(group())
    work(max_jobs=2)
    explained = str(get_run(RUN, run.connection).explain("g"))
    assert "2 of its 3 items have not ended: g[1] (queued), g[2] (queued)" in explained
    work()
    explained = str(get_run(RUN, run.connection).explain("g"))
    assert "1 of its 3 items did not succeed: g[1] (failed)" in explained
    assert "look at the first one: run.explain('g[1]')" in explained
