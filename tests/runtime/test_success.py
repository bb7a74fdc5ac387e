"""A job without `if` means `if: success()`, and the status functions know all that came before.

What went wrong travels along the edges (`lua/ancestors.lua`), so nothing walks up the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.runtime import keys, retry, runs, steps
from flowq.runtime.job import get_job
from flowq.runtime.lookups import read_statuses
from flowq.runtime.queue import Queue
from flowq.spec import ALL_TOLERATED, Block, Input, JobSpec, Matrix, Retry, Tolerance, Workflow
from tests.runtime.calls import count_calls
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]
RUNS, SKIPS = "finished", "skipped"


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def after(root: str) -> list[JobSpec]:
    """A job that runs whatever `root` did, and jobs that ask, before and behind that one."""
    asked = ("success()", "failure()", "canceled()", "always()", "inputs.yes")
    direct = [job(f"direct{n}", "my_id", needs=(root,), if_=c) for n, c in enumerate(asked)]
    far = [job(f"far{n}", "my_id", needs=("between",), if_=c) for n, c in enumerate(asked)]
    between = job("between", "my_id", needs=(root,), if_="always()")
    plain = [job("direct", "my_id", needs=(root,)), job("far", "my_id", needs=("between",))]
    return [between, *direct, *far, *plain]


def answers(run: Runs, where: str) -> str:
    """What success(), failure() and canceled() said there, the first letters of what is true."""
    states = run.states
    assert states[f"{where}3"] == RUNS  # always()
    # What does not ask, or asks for something else, means success() as well.
    assert states[where] == states[f"{where}0"] == states[f"{where}4"]
    return "".join(letter for n, letter in enumerate("sfc") if states[f"{where}{n}"] == RUNS)


def test_nothing_went_wrong(run: Runs, work: Work) -> None:
    run.submit(job("root", "my_id"), *after("root"), inputs={"yes": True})
    work()
    assert (answers(run, "direct"), answers(run, "far")) == ("s", "s")
    assert not list(run.connection.scan_iter("rq:flowq:1:above:*"))


@pytest.mark.parametrize(
    ("roots", "expected"),
    [
        ([job("root", "fail")], "f"),
        ([job("root", "fail", continue_on_error=ALL_TOLERATED)], "s"),
        ([job("root", "my_id", if_="false")], "s"),
        ([job("first", "fail"), job("root", "my_id", needs=("first",))], "f"),
        ([job("first", "fail"), job("root", "my_id", needs=("first",), if_="failure()")], "f"),
        ([job("first", "fail"), job("root", "my_id", needs=("first",), if_="canceled()")], "f"),
        (
            [
                job(
                    "root",
                    "fail_if",
                    for_each=each([0, 1]),
                    with_={"value": "${{ item }}", "bad": 1},
                )
            ],
            "f",
        ),
        (
            [
                job("first", "fail"),
                job("root", "my_id", for_each=each([1, 2]), needs=("first",), if_="failure()"),
            ],
            "f",
        ),
        (
            [
                job("first", "fail"),
                job(
                    "root", "my_id", matrix=Matrix({"n": [1, 2]}), needs=("first",), if_="always()"
                ),
            ],
            "f",
        ),
        (
            [
                job("first", "fail"),
                job("root", "my_id", for_each=each([]), needs=("first",), if_="always()"),
            ],
            "f",
        ),
        (
            [
                job(
                    *("root", "fail_if"),
                    for_each=each([0, 1]),
                    with_={"value": "${{ item }}", "bad": 1},
                    continue_on_error=Tolerance(count=1),
                )
            ],
            "s",
        ),
    ],
    ids=[
        *(
            "failed",
            "tolerated",
            "own-if",
            "skipped",
            "ran-after-a-failure",
            "own-if-after-a-failure",
        ),
        *(
            "item-failed",
            "items-after-a-failure",
            "matrix-after-a-failure",
            "no-items-after-a-failure",
        ),
        "item-tolerated",
    ],
)
def test_what_an_end_means_directly_behind_it_and_further(
    roots: list[JobSpec], expected: str, run: Runs, work: Work
) -> None:
    run.submit(*roots, *after("root"), inputs={"yes": True})
    work()
    assert (answers(run, "direct"), answers(run, "far")) == (expected, expected)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda connection: get_job(f"{RUN}-root", connection).cancel(), "c"),
        (lambda connection: get_job(f"{RUN}-root", connection).delete(), "f"),
        (lambda connection: connection.delete(f"rq:job:{RUN}-root"), "f"),
    ],
    ids=["canceled", "deleted", "deleted-by-others"],
)
def test_what_somebody_does_to_a_job_is_known_further_on(
    end: Callable[[Redis], Any], expected: str, run: Runs, work: Work
) -> None:
    run.submit(job("root", "my_id"), *after("root"), inputs={"yes": True})
    end(run.connection)
    steps.finish(run.connection, f"watch:{RUN}")
    work()
    assert (answers(run, "direct"), answers(run, "far")) == (expected, expected)


def test_a_deleted_job_counts_further_on_also_where_a_job_would_wait_for_it(
    run: Runs, work: Work
) -> None:
    run.submit(
        job("root", "my_id"),
        job("between", "my_id", needs=("root",), on_blocker_failure="wait"),
        job("last", "my_id", needs=("between",)),
    )
    get_job(f"{RUN}-root", run.connection).delete()
    work()
    assert run.states["between"] == RUNS
    assert run.states["last"] == SKIPS


def test_a_canceled_run_is_no_success_for_what_still_runs(run: Runs, work: Work) -> None:
    run.submit(job("root", "my_id"), *after("root"), inputs={"yes": True})
    runs.cancel(RUN, run.connection)
    work()
    ran = {name for name, state in run.states.items() if state == RUNS}
    assert ran == {"between", "direct2", "direct3", "far2", "far3"}


def test_an_edge_that_ignores_failures_passes_nothing_on(run: Runs, work: Work) -> None:
    run.submit(
        job("first", "fail"),
        job("root", "my_id", needs=("first",), blocks=(Block("after", "ignore"),)),
        job("after", "my_id"),
        job("last", "my_id", needs=("after",)),
    )
    work()
    assert run.states == {"first": "failed", "root": SKIPS, "after": RUNS, "last": RUNS}


def test_a_policy_of_its_own_says_it_instead(run: Runs, work: Work) -> None:
    """And what follows such a job asks again."""
    run.submit(
        job("root", "fail"),
        job("between", "my_id", needs=("root",), on_blocker_failure="run"),
        job("waits", "my_id", needs=("between",), on_blocker_failure="wait"),
        job("runs", "my_id", needs=("between",), on_blocker_failure="run", if_="inputs.yes"),
        job("last", "my_id", needs=("waits", "runs")),
        inputs={"yes": True},
    )
    work()
    assert run.states["waits"] == run.states["runs"] == RUNS
    assert run.states["last"] == SKIPS
    assert run.reason("last") == "root failed"


@pytest.mark.parametrize(
    ("condition", "state"),
    [
        ("success() or inputs.yes", RUNS),
        ("not success()", RUNS),
        ("success() and inputs.yes", SKIPS),
        ("inputs.yes and (true and success())", SKIPS),
    ],
)
def test_success_stands_for_a_value_like_any_other(
    condition: str, state: str, run: Runs, work: Work
) -> None:
    run.submit(
        job("root", "fail"),
        job("judged", "my_id", needs=("root",), if_=condition),
        inputs={"yes": True},
    )
    work()
    assert run.states["judged"] == state


# Nested workflows --------------------------------------------------------------------------------

INNER = Workflow(
    "inner",
    (
        job("one", "fail_if", with_={"value": "${{ inputs.bad }}", "bad": True}),
        job("clean", "my_id", needs=("one",), if_="always()"),
        job("last", "my_id", needs=("clean",)),
        job("mend", "my_id", needs=("clean",), if_="failure()"),
    ),
    inputs=(Input("bad", "bool"),),
)


@pytest.mark.parametrize("group", [{}, {"for_each": each([1])}, {"matrix": Matrix({"n": [1]})}])
def test_a_nested_workflow_asks_what_is_before_it_at_its_start_only(
    group: dict[str, Any], run: Runs, work: Work
) -> None:
    run.submit(
        job("root", "fail"),
        JobSpec(
            "mend",
            workflow="inner",
            needs=("root",),
            if_="failure()",
            with_={"bad": False},
            **group,
        ),
        job("after", "my_id", needs=("mend",)),
        workflows={"inner": INNER},
    )
    work()
    mend = next(name.removesuffix(".one") for name in run.states if name.endswith(".one"))
    inside = {name.removeprefix(f"{mend}."): state for name, state in run.states.items()}
    assert inside["one"] == inside["clean"] == inside["last"] == RUNS
    assert inside["mend"] == SKIPS
    assert run.states[mend] == RUNS
    assert run.states["after"] == SKIPS
    assert run.reason("after") == "root failed"


@pytest.mark.parametrize("is_tolerated", [False, True])
def test_what_fails_inside_is_a_failure_outside_unless_it_is_tolerated(
    is_tolerated: bool, run: Runs, work: Work
) -> None:
    tolerance = {"continue_on_error": ALL_TOLERATED} if is_tolerated else {}
    root = JobSpec("root", workflow="inner", with_={"bad": True}, **tolerance)
    run.submit(root, *after("root"), workflows={"inner": INNER}, inputs={"yes": True})
    work()
    assert run.states["root.last"] == SKIPS
    assert run.states["root.mend"] == RUNS
    expected = "s" if is_tolerated else "f"
    assert (answers(run, "direct"), answers(run, "far")) == (expected, expected)


def test_a_tolerated_workflow_passes_on_what_was_before_it(run: Runs, work: Work) -> None:
    run.submit(
        job("first", "fail"),
        JobSpec(
            *("root",),
            workflow="inner",
            needs=("first",),
            if_="always()",
            with_={"bad": True},
            continue_on_error=ALL_TOLERATED,
        ),
        *after("root"),
        workflows={"inner": INNER},
        inputs={"yes": True},
    )
    work()
    assert (answers(run, "direct"), answers(run, "far")) == ("f", "f")


# Again, later, older -----------------------------------------------------------------------------


def publish(gate: Path) -> list[JobSpec]:
    return [
        job("test", "fail_unless", with_={"path": str(gate)}),
        job("report", "my_id", needs=("test",), if_="always()"),
        job("publish", "my_id", needs=("report",)),
    ]


def test_a_retry_forgets_what_went_wrong_where_it_runs_again(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    run.submit(*publish(tmp_path / "gate"))
    work()
    assert run.states == {"test": "failed", "report": RUNS, "publish": SKIPS}
    retry.retry(RUN, run.connection)
    work()
    assert run.states == {"test": "failed", "report": RUNS, "publish": SKIPS}
    (tmp_path / "gate").touch()
    retry.retry(RUN, run.connection)
    work()
    assert set(run.states.values()) == {RUNS}
    assert run.state == "succeeded"
    assert not list(run.connection.scan_iter("rq:flowq:1:above:*"))


def test_a_requeue_before_the_decision_takes_back_what_was_told(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    """What has been decided stays: a job in between has passed the failure on already."""
    run.submit(*publish(tmp_path / "gate"), job("direct", "my_id", needs=("test",)))
    work(max_jobs=1)
    (tmp_path / "gate").touch()
    get_job(f"{RUN}-test", run.connection).requeue()
    work()
    assert run.states["direct"] == RUNS
    assert run.states["publish"] == SKIPS


def test_a_job_that_is_retried_at_once_has_not_failed(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    flaky = job("test", "fail_twice", with_={"log": f"{tmp_path}/log"}, retries=Retry(2))
    run.submit(flaky, *publish(tmp_path / "gate")[1:])
    work()
    assert set(run.states.values()) == {RUNS}


def test_jobs_of_the_plain_api_keep_their_policies(run: Runs, work: Work) -> None:
    """Also in a run, where code has added them."""
    queue = Queue(connection=run.connection)
    wait = job("wait", "my_id", needs=("first",), if_="always()", deferred=True)
    run.submit(job("first", "fail"), wait)
    future = f"{RUN}-wait"
    for policy in ("skip", "run", "wait"):
        queue.enqueue(
            "language_jobs.my_id",
            job_id=f"added-{policy}",
            blocks=future,
            deferred=True,
            on_blocker_failure=policy,
        )
        between = queue.enqueue(
            "language_jobs.my_id",
            job_id=f"between-{policy}",
            blocks=f"added-{policy}",
            deferred=True,
            on_blocker_failure="run",
        )
        queue.enqueue("language_jobs.fail", job_id=f"bad-{policy}", blocks=between)
        between.release()
        get_job(f"added-{policy}", run.connection).release()
    work()
    for policy in ("skip", "run", "wait"):
        assert get_job(f"added-{policy}", run.connection).get_status() == "finished"


def test_jobs_that_an_older_version_has_planned_ask_those_directly_before_them(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    run.submit(*publish(tmp_path / "gate"))
    run.connection.hdel(f"rq:job:{RUN}-publish", "flowq_success")
    work()
    assert run.states == {"test": "failed", "report": RUNS, "publish": RUNS}


def test_what_an_older_version_has_settled_counts_with_those_directly_behind_it(
    run: Runs, work: Work
) -> None:
    run.submit(job("root", "fail"), *after("root"), inputs={"yes": True})
    work(max_jobs=1)
    for key in run.connection.scan_iter("rq:flowq:1:future:*"):
        run.connection.hdel(key, "failed", "canceled", "above")
    work()
    assert answers(run, "direct") == "f"


def test_counts_that_an_older_version_did_not_keep_hold_nobody(run: Runs, work: Work) -> None:
    """It has let the failed job run again, and did not take back that it had failed."""
    run.submit(job("root", "my_id"), job("after", "my_id", needs=("root",)))
    run.connection.hset(keys.future(f"{RUN}-after"), "failed", 1)
    work()
    assert set(run.states.values()) == {RUNS}


# Cost --------------------------------------------------------------------------------------------


def test_success_reads_counts_and_not_the_jobs_before(run: Runs, connection: Redis) -> None:
    needs = [job(f"n{number}", "my_id") for number in range(200)]
    names = tuple(each.name for each in needs)
    run.submit(*needs, job("judged", "my_id", needs=names, if_="always()"))
    before = count_calls(connection)
    read_statuses(f"{RUN}-judged", "", RUN, connection)
    assert count_calls(connection) - before < 10


def test_where_nothing_fails_nothing_is_written_for_it(run: Runs, work: Work) -> None:
    run.submit(job("a", "my_id"), job("b", "my_id", needs=("a",)), job("c", "my_id", needs=("b",)))
    work()
    for name in "abc":
        fields = run.connection.hkeys(keys.future(f"{RUN}-{name}"))
        assert not {b"failed", b"canceled", b"above"}.intersection(fields)
