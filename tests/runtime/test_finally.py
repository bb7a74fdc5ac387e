"""`finally`: jobs that run when all others have ended, however they ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.client import Run
from flowq.graph import build_graph
from flowq.inputs import resolve_inputs
from flowq.planner import make_plan
from flowq.runtime import retry, runs
from flowq.runtime.job import get_job
from flowq.spec import ALL_TOLERATED, Approval, JobSpec, Matrix, Shell, Workflow
from tests.reading import parse_workflow
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]
RUNS, SKIPS = "finished", "skipped"
LOOK = {"value": "${{ [run.status, run.failures] }}"}


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def last(name: str, call: str = "my_id", **more: Any) -> JobSpec:
    return job(name, call, is_final=True, **more)


ASKING = (
    last("good", if_="success()"),
    last("bad", if_="failure()"),
    last("off", if_="canceled()"),
    last("plain", if_="inputs.yes"),
    last("look", "give", with_=LOOK),
)


def answers(run: Runs) -> str:
    assert run.states["plain"] == RUNS
    names = {"good": "s", "bad": "f", "off": "c"}
    return "".join(letter for name, letter in names.items() if run.states[name] == RUNS)


@pytest.mark.parametrize(
    ("main", "expected", "status", "failed"),
    [
        ([job("a", "my_id")], "s", "succeeded", []),
        ([job("a", "my_id", if_="false")], "s", "succeeded", []),
        ([job("a", "fail", continue_on_error=ALL_TOLERATED)], "s", "succeeded", []),
        ([job("a", "fail")], "f", "failed", ["a"]),
        ([job("a", "fail"), job("b", "my_id", needs=("a",))], "f", "failed", ["a"]),
        (
            [
                job(
                    "a",
                    "fail_if",
                    for_each=each([1, 2, 3]),
                    with_={"value": "${{ item }}", "bad": 2},
                )
            ],
            "f",
            "failed",
            ["a[1]"],
        ),
        (
            [job("a", "fail_if", matrix=Matrix({"n": [1, 2]}), with_={"value": 1, "bad": 1})],
            "f",
            "failed",
            ["a[1]", "a[2]"],
        ),
    ],
)
def test_they_run_however_the_others_ended_and_can_ask(
    main: list[JobSpec], expected: str, status: str, failed: list[str], run: Runs, work: Work
) -> None:
    run.submit(*main, *ASKING, inputs={"yes": True})
    work()
    told = run.result("look")
    assert (answers(run), told[0]) == (expected, status)
    assert [failure["job"] for failure in told[1]] == failed
    assert run.state == status


def test_a_rejected_job_is_one_that_was_canceled(run: Runs, work: Work) -> None:
    run.submit(job("a", "my_id", approval=Approval()), *ASKING, inputs={"yes": True})
    assert Run(RUN, run.connection).reject("a", "no")
    work()
    failure = {"job": "a", "error": {"type": None, "message": "rejected: no"}, "exit_code": None}
    assert (answers(run), run.state) == ("c", "failed")
    assert run.result("look") == ["failed", [failure]]


def test_failures_say_what_went_wrong(run: Runs, work: Work) -> None:
    run.submit(
        job("a", "fail"),
        JobSpec("b", run=Shell("echo no; exit 7"), needs=("a",), if_="always()"),
        last("look", "give", with_=LOOK),
    )
    work()
    first, second = run.result("look")[1]
    error = {"type": "ValueError", "message": "it broke"}
    assert first == {"job": "a", "error": error, "exit_code": None}
    assert (second["job"], second["exit_code"]) == ("b", 7)


def test_they_wait_for_each_other_as_other_jobs_do(run: Runs, work: Work) -> None:
    run.submit(
        job("a", "fail"),
        last("first", "fail"),
        last("second", needs=("first",)),
        last("third", needs=("second",), if_="always()"),
        last("beside"),
    )
    work()
    expected = {"a": "failed", "first": "failed", "second": SKIPS, "third": RUNS, "beside": RUNS}
    assert run.states == expected


def test_their_own_failure_counts(run: Runs, work: Work) -> None:
    run.submit(job("a", "my_id"), last("clean", "fail"))
    work()
    assert run.states == {"a": RUNS, "clean": "failed"}
    assert run.state == "failed"


def test_they_see_all_results_and_start_last(run: Runs, work: Work, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    run.submit(
        last("end", "note", with_={"path": log, "text": "${{ [jobs.a.result, jobs.c.result] }}"}),
        job("a", "note", with_={"path": log, "text": "a"}),
        job("b", "fail", needs=("a",)),
        job("c", "note", needs=("b",), with_={"path": log, "text": "c"}),
        job("d", "note", with_={"path": log, "text": "d"}),
    )
    work()
    assert run.states["end"] == RUNS
    assert (tmp_path / "log").read_text().split("\n")[0:2] == ["a", "d"]


def test_a_group_and_a_workflow_can_run_at_the_end(run: Runs, work: Work) -> None:
    inner = Workflow("inner", (job("one", "my_id"), job("two", "my_id", needs=("one",))))
    run.submit(
        job("a", "fail"),
        last("each", "give", for_each=each([1, 2]), with_={"value": "${{ run.status }}"}),
        last("judged", for_each=each([1, 2]), if_="item == 1 and run.status == 'failed'"),
        JobSpec("flow", workflow="inner", is_final=True),
        last("all", "give", with_={"value": "${{ jobs.each.results }}"}),
        workflows={"inner": inner},
    )
    work()
    assert run.result("all") == ["failed", "failed"]
    assert (run.states["judged[0]"], run.states["judged[1]"]) == (RUNS, SKIPS)
    assert run.states["flow"] == RUNS


# Canceled runs -----------------------------------------------------------------------------------


def test_they_run_in_a_canceled_run(run: Runs, work: Work) -> None:
    run.submit(job("a", "my_id"), *ASKING, last("next", needs=("look",)), inputs={"yes": True})
    runs.cancel(RUN, run.connection)
    assert run.states["a"] == "canceled"
    work()
    assert answers(run) == "c"
    assert run.result("look") == ["canceled", []]
    assert run.states["next"] == RUNS
    assert run.state == "canceled"


def test_they_do_not_in_one_that_is_canceled_at_once(run: Runs, work: Work) -> None:
    run.submit(job("a", "my_id"), last("clean"))
    runs.cancel(RUN, run.connection, is_now=True)
    work()
    assert run.states == {"a": "canceled", "clean": "canceled"}


def test_a_cancel_while_they_run_changes_nothing_and_a_second_one_at_once_ends_them(
    run: Runs, work: Work
) -> None:
    run.submit(
        job("a", "my_id"), last("one"), last("two", needs=("one",)), last("three", needs=("two",))
    )
    work(max_jobs=2)
    assert run.states == {"a": RUNS, "one": RUNS, "two": "queued", "three": "deferred"}
    runs.cancel(RUN, run.connection)
    work(max_jobs=1)
    assert (run.states["two"], run.states["three"]) == (RUNS, "queued")
    runs.cancel(RUN, run.connection, is_now=True)
    assert run.states["three"] == "canceled"


def test_they_wait_for_what_still_runs_in_a_canceled_run(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    """Also inside of a workflow whose own job has been called off already."""
    log = str(tmp_path / "log")
    inner = Workflow(
        "inner", (job("cancels", "cancel_my_run", with_={"log": log, "then": "ended"}),)
    )
    run.submit(
        JobSpec("flow", workflow="inner"),
        last("end", "note", with_={"path": log, "text": "finally"}),
        workflows={"inner": inner},
    )
    work()
    assert run.states["end"] == RUNS
    assert (tmp_path / "log").read_text().split()[-1] == "finally"
    assert run.state == "canceled"


# Again -------------------------------------------------------------------------------------------


def test_they_run_again_when_what_came_before_does(run: Runs, work: Work, tmp_path: Path) -> None:
    run.submit(
        job("good", "my_id"),
        job("a", "fail_unless", with_={"path": f"{tmp_path}/gate"}),
        last("look", "give", with_=LOOK),
    )
    work()
    assert run.result("look")[0] == "failed"
    (tmp_path / "gate").touch()
    retry.retry(RUN, run.connection)
    work()
    assert run.result("look") == ["succeeded", []]
    assert run.status.jobs["good"].attempts == 1
    assert run.status.jobs["look"].attempts == 2
    assert run.state == "succeeded"


def test_when_only_they_failed_the_others_do_not_run_again(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    run.submit(job("a", "my_id"), last("clean", "fail_unless", with_={"path": f"{tmp_path}/gate"}))
    work()
    (tmp_path / "gate").touch()
    retry.retry(RUN, run.connection)
    work()
    assert (run.state, run.status.jobs["a"].attempts) == ("succeeded", 1)


def test_a_retry_after_a_cancel_runs_them_again(run: Runs, work: Work) -> None:
    run.submit(job("a", "my_id"), last("look", "give", with_=LOOK))
    runs.cancel(RUN, run.connection)
    work()
    assert run.result("look")[0] == "canceled"
    retry.retry(RUN, run.connection)
    work()
    assert run.result("look")[0] == "succeeded"


def test_a_job_that_is_deleted_does_not_keep_them(run: Runs, work: Work) -> None:
    run.submit(job("a", "my_id"), last("look", "give", with_=LOOK))
    get_job(f"{RUN}-a", run.connection).delete()
    work()
    assert run.result("look") == ["failed", [{"job": f"{RUN}-a", "error": None, "exit_code": None}]]


# Nested workflows --------------------------------------------------------------------------------

NESTED = """
name: outer
inputs: {bad: {type: bool, default: true}}
workflows:
  inner:
    inputs: {bad: {type: bool}}
    jobs:
      one: {call: "language_jobs:fail_if", with: {value: "${{ inputs.bad }}", bad: true}}
      two: {needs: one, call: "language_jobs:my_id"}
    finally:
      end: {call: "language_jobs:give", with: {value: "${{ [run.status, len(run.failures)] }}"}}
    outputs: {end: "${{ jobs.end.result }}"}
jobs:
  flow: {workflow: inner, with: {bad: "${{ inputs.bad }}"}}
  tolerated: {workflow: inner, with: {bad: "${{ inputs.bad }}"}, continue_on_error: true}
finally:
  look: {call: "language_jobs:give", with: {value: "${{ [run.status, run.failures] }}"}}
"""


@pytest.mark.parametrize("bad", [False, True])
def test_a_nested_workflow_has_jobs_of_its_own_at_its_end(bad: bool, run: Runs, work: Work) -> None:
    workflow = parse_workflow(NESTED, "outer.yaml")
    inputs = resolve_inputs(workflow, {"bad": bad})
    runs.submit(make_plan(build_graph(workflow), inputs, RUN), run.connection)
    work()
    status = "failed" if bad else "succeeded"
    assert run.result("flow--end") == [status, int(bad)]
    assert run.states["flow.two"] == (SKIPS if bad else RUNS)
    told = run.result("look")
    assert told[0] == status
    assert [each["job"] for each in told[1]] == (["flow"] if bad else [])
    assert run.state == status


@pytest.mark.parametrize("is_stuck_before", [True, False])
def test_a_canceled_run_does_not_wait_for_what_failed_under_it(
    is_stuck_before: bool, run: Runs, work: Work
) -> None:
    deep = Workflow("deep", (job("x", "my_id"),))
    run.submit(
        job("a", "my_id"),
        last("b", "fail"),
        last("down", "", workflow="deep", needs=("b",), on_blocker_failure="wait"),
        last("tell", needs=("down",), if_="always()"),
        workflows={"deep": deep},
    )
    if is_stuck_before:
        work()
        assert not run.status.is_ended
    runs.cancel(RUN, run.connection)
    work()
    assert (run.state, run.states["b"], run.states["tell"]) == ("canceled", "failed", RUNS)
    assert run.states["down(start)"] == ("canceled" if is_stuck_before else SKIPS)
