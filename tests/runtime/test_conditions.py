"""`if`: judged where the job runs, before its call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from flowq.runtime import retry, runs
from flowq.runtime.explain import explain
from flowq.spec import ALL_TOLERATED, Block, Matrix, Tolerance
from tests.runtime.language import Runs, each, job

Work = Callable[..., None]


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


@pytest.mark.parametrize(("publish", "state"), [(True, "finished"), (False, "skipped")])
def test_a_condition_on_an_input_decides(publish: bool, state: str, run: Runs, work: Work) -> None:
    run.submit(
        job("build", "give", with_={"value": 1}),
        job("publish", "give", with_={"value": 2}, needs=("build",), if_="inputs.publish"),
        job("after", "give", with_={"value": "${{ jobs.publish.result }}"}),
        inputs={"publish": publish},
    )
    work()
    assert run.state == "succeeded"
    assert run.states == {"build": "finished", "publish": state, "after": "finished"}
    assert run.result("after") == (2 if publish else None)
    why = "its `if` is false: inputs.publish"
    assert run.reason("publish") == ("" if publish else why)
    explained = str(explain("r1-publish", run.connection))
    outcome = "has finished" if publish else f"is skipped\n  - {why}"
    assert explained == f"publish (r1-publish) {outcome}"


def test_a_condition_sees_results(run: Runs, work: Work) -> None:
    run.submit(
        job("count", "give", with_={"value": 3}),
        job("many", "my_id", if_="jobs.count.result > 2"),
        job("few", "my_id", if_="jobs.count.result <= 2"),
    )
    work()
    assert run.states == {"count": "finished", "many": "finished", "few": "skipped"}


def test_a_plain_worker_skips_as_well(
    run: Runs, work_plainly: Work, connection: Redis, work: Work
) -> None:
    run.submit(job("only", "my_id", if_="false"), job("after", "my_id", needs=("only",)))
    work_plainly()
    connection.zadd(
        "rq:flowq:1:watched", dict.fromkeys(connection.zrange("rq:flowq:1:watched", 0, -1), 0)
    )
    from flowq.runtime.maintenance import tidy

    tidy(connection)
    work()
    assert run.states == {"only": "skipped", "after": "finished"}


@pytest.mark.parametrize(
    ("condition", "after_success", "after_failure"),
    [
        ("success()", "finished", "skipped"),
        ("failure()", "skipped", "finished"),
        ("always()", "finished", "finished"),
        ("canceled()", "skipped", "skipped"),
        ("failure() or inputs.yes", "finished", "finished"),
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_status_functions_look_at_all_ancestors(
    fails: bool, condition: str, after_success: str, after_failure: str, run: Runs, work: Work
) -> None:
    run.submit(
        job("root", "fail_if", with_={"value": fails, "bad": True}),
        job("between", "my_id", needs=("root",), on_blocker_failure="run"),
        job("judged", "my_id", needs=("between",), if_=condition),
        inputs={"yes": True},
    )
    work()
    assert run.states["between"] == "finished"
    assert run.states["judged"] == (after_failure if fails else after_success)
    assert run.state == ("failed" if fails else "succeeded")


def test_a_condition_without_a_status_function_means_success_too(run: Runs, work: Work) -> None:
    run.submit(
        job("root", "fail"),
        job("between", "my_id", needs=("root",), on_blocker_failure="run"),
        job("judged", "my_id", needs=("between",), if_="inputs.yes"),
        inputs={"yes": True},
    )
    work()
    assert run.states["judged"] == "skipped"
    assert run.reason("judged") == "root failed"


def test_a_long_condition_is_told_in_one_line_of_bounded_length(run: Runs, work: Work) -> None:
    run.submit(job("judged", "my_id", if_=f"false\n  and '{'x' * 500}'"))
    work()
    assert run.reason("judged").startswith("its `if` is false: false and 'xxx")
    assert len(run.reason("judged")) < 250


def test_each_item_is_judged_by_itself(run: Runs, work: Work) -> None:
    run.submit(
        job(
            "odd",
            "give",
            for_each=each([1, 2, 3]),
            with_={"value": "${{ item }}"},
            if_="item % 2 == 1",
        ),
        job("all", "give", with_={"value": "${{ jobs.odd.results }}"}),
    )
    work()
    assert run.state == "succeeded"
    assert run.states["odd[1]"] == "skipped"
    assert run.result("all") == [1, None, 3]


def test_an_error_in_a_condition_fails_the_job_and_quotes_it(run: Runs, work: Work) -> None:
    run.submit(
        job("first", "give", with_={"value": {}}), job("judged", "my_id", if_="jobs.first.result.x")
    )
    work()
    assert run.state == "failed"
    assert "jobs.first.result.x" in run.error("judged")


def test_a_job_that_runs_always_runs_when_the_run_is_canceled(run: Runs, work: Work) -> None:
    run.submit(
        job("build", "my_id"),
        job("plain", "my_id", needs=("build",)),
        job("clean", "my_id", needs=("plain",), if_="always()"),
        job("tell", "my_id", needs=("plain",), if_="canceled()"),
        job("mend", "my_id", needs=("plain",), if_="failure()"),
    )
    runs.cancel("r1", run.connection)
    work()
    assert run.states == {
        "build": "canceled",
        "plain": "canceled",
        "clean": "finished",
        "tell": "finished",
        "mend": "canceled",
    }
    assert run.state == "canceled"


def test_a_retry_judges_again(run: Runs, work: Work, tmp_path: Path) -> None:
    run.submit(
        job("bad", "fail_unless", with_={"path": f"{tmp_path}/gate"}),
        job("mend", "my_id", needs=("bad",), if_="failure()"),
    )
    work()
    assert run.states == {"bad": "failed", "mend": "finished"}
    (tmp_path / "gate").touch()
    retry.retry("r1", run.connection)
    work()
    assert run.states == {"bad": "finished", "mend": "skipped"}
    assert run.state == "succeeded"


# Tolerance ---------------------------------------------------------------------------------------


def test_a_tolerated_failure_counts_as_a_success(run: Runs, work: Work) -> None:
    run.submit(
        job("bad", "fail", continue_on_error=ALL_TOLERATED),
        job("after", "my_id", needs=("bad",), if_="success()"),
    )
    work()
    assert run.state == "succeeded"
    assert run.states == {"bad": "failed", "after": "finished"}
    assert run.reason("bad") == "tolerated"


@pytest.mark.parametrize(
    ("tolerance", "bad", "state"),
    [
        (Tolerance(count=2), [1, 2], "succeeded"),
        (Tolerance(count=2), [1, 2, 3], "failed"),
        (Tolerance(percent=50), [1, 2], "succeeded"),
        (Tolerance(percent=50), [1, 2, 3], "failed"),
        (Tolerance(percent=50), [4, 5], "succeeded"),
        (Tolerance(percent=59.9), [1, 4, 5], "failed"),
        (ALL_TOLERATED, [1, 2, 3, 4, 5], "succeeded"),
    ],
)
@pytest.mark.parametrize("kind", ["for_each", "matrix"])
def test_a_group_tolerates_so_many_failures(
    kind: str, tolerance: Tolerance, bad: list[int], state: str, run: Runs, work: Work
) -> None:
    numbers = [1, 2, 3, 4, 5]
    group = (
        {"for_each": each(numbers)} if kind == "for_each" else {"matrix": Matrix({"n": numbers})}
    )
    value = "${{ item }}" if kind == "for_each" else "${{ matrix.n }}"
    run.submit(
        job(
            "items",
            "fail_if",
            with_={"value": value, "bad": bad},
            continue_on_error=tolerance,
            **group,
        ),
        job("after", "give", with_={"value": "${{ jobs.items.results }}"}),
    )
    work()
    assert run.state == state
    if state == "succeeded":
        assert run.result("after") == [None if n in bad else n for n in numbers]
    else:
        assert run.states["after"] == "skipped"


def test_an_edge_that_ignores_failures_leaves_them_to_the_run(run: Runs, work: Work) -> None:
    run.submit(
        job("bad", "fail", blocks=(Block("after", "ignore"),)),
        job("after", "my_id", if_="success()"),
    )
    work()
    assert run.states == {"bad": "failed", "after": "finished"}
    assert run.state == "failed"


def test_other_options_reach_the_job(run: Runs, connection: Redis) -> None:
    run.submit(job("a", "my_id"), job("b", "my_id", at_front=True, on_crash="fail"))
    assert connection.lrange("rq:queue:default", 0, -1) == [b"r1-b", b"r1-a"]
    assert connection.hget("rq:job:r1-b", "flowq_on_crash") == b"fail"


def test_a_cancel_can_end_these_too_at_once_or_later(run: Runs, work: Work) -> None:
    run.submit(
        job("build", "my_id"),
        job("clean", "my_id", needs=("build",), if_="always()"),
        job("tell", "my_id", needs=("clean",), if_="canceled()"),
    )
    runs.cancel("r1", run.connection)
    assert run.states == {"build": "canceled", "clean": "queued", "tell": "deferred"}
    work(max_jobs=1)
    runs.cancel("r1", run.connection, is_now=True)
    assert run.states == {"build": "canceled", "clean": "finished", "tell": "canceled"}
    assert run.state == "canceled"
    retry.retry("r1", run.connection)
    runs.cancel("r1", run.connection)
    assert run.states == {"build": "canceled", "clean": "queued", "tell": "deferred"}
    runs.cancel("r1", run.connection, is_now=True)
    assert set(run.states.values()) == {"canceled"}
