"""`continue_on_error` of jobs that are workflows: what goes wrong inside counts as a success."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.client import Run
from flowq.errors import RunFailed, WrongState
from flowq.render.groups import collapse
from flowq.render.json import RunFacts, run_document
from flowq.runtime import keys, retry, runs
from flowq.runtime.explain import explain
from flowq.runtime.job import get_job
from flowq.runtime.maintenance import examine, tidy
from flowq.runtime.queue import Queue
from flowq.spec import ALL_TOLERATED, Approval, Input, JobSpec, Matrix, Tolerance, Workflow
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]

CHAIN = Workflow(
    "chain",
    (
        job("check", "fail_unless", with_={"path": "${{ inputs.path }}", "value": 1}),
        job("use", "give", with_={"value": "${{ jobs.check.result }}"}),
        job("clean", "my_id", needs=("use",), if_="always()"),
    ),
    inputs=(Input("path"),),
    outputs={"value": "${{ jobs.use.result }}"},
)


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def nested(name: str, tolerance: Tolerance | None = ALL_TOLERATED, **more: Any) -> JobSpec:
    return JobSpec(name, workflow="chain", continue_on_error=tolerance, **more)


def submit(run: Runs, *jobs: JobSpec, chain: Workflow = CHAIN) -> None:
    run.submit(*jobs, workflows={"chain": chain})


def test_a_workflow_that_failed_inside_lets_what_comes_after_it_run(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    submit(
        run,
        nested("inner", with_={"path": f"{tmp_path}/no"}),
        job("last", "give", with_={"value": "${{ [jobs.inner.result, jobs.inner.status] }}"}),
        job("asks", "my_id", needs=("last",), if_="success() and not failure()"),
    )
    work()
    assert run.state == "succeeded"
    assert run.result("last") == [None, "failed"]
    assert run.states["asks"] == "finished"
    assert run.states["inner.use"] == "skipped"
    assert run.states["inner.clean"] == "finished"
    assert (run.states["inner"], run.reason("inner")) == (
        "failed",
        "tolerated: inner.check failed",
    )
    assert collapse(run.status)["inner"].state == "failed"
    assert collapse(run.status)["inner"].reason == "tolerated: inner.check failed"
    assert run_document(RunFacts(run.status))["jobs"]["inner"]["status"] == "failed"
    assert Run(RUN, run.connection).wait().state == "succeeded"
    explained = explain(f"{RUN}-inner", run.connection)
    assert explained.state == "failed"
    assert explained.reasons[0].text == "tolerated: inner.check failed"


def test_without_it_the_run_fails_and_names_the_job_inside(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    submit(run, nested("inner", None, with_={"path": f"{tmp_path}/no"}))
    work()
    assert (run.states["inner"], run.reason("inner")) == ("failed", "inner.check failed")
    handle = Run(RUN, run.connection)
    with pytest.raises(RunFailed) as failed:
        handle.wait()
    assert failed.value.jobs == ("inner.check",)
    assert list(handle.failures()) == ["inner.check"]


def test_failures_are_of_the_jobs_that_failed_by_themselves_tolerated_or_not(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    submit(
        run,
        nested("inner", with_={"path": f"{tmp_path}/no"}),
        nested("bad", None, with_={"path": f"{tmp_path}/no"}),
        nested("late", None, with_={"path": "x"}, approval=Approval("", 3600)),
    )
    work()
    assert run.connection.zadd(keys.EXPIRING, {f"{RUN}-late--0": 1}, xx=True, ch=True) == 1
    tidy(run.connection)
    work()
    assert run.state == "failed"
    failed = [job.name for job in run.status.find_failed()]
    assert failed == ["late(start)", "bad.check"]
    failures = Run(RUN, run.connection).failures()
    assert sorted(failures) == sorted([*failed, "inner.check"])
    assert failures["late(start)"].traceback == "it expired before it was approved"


def test_a_skip_inside_is_no_failure(run: Runs, work: Work) -> None:
    chain = Workflow(
        "chain",
        (job("a", "my_id", if_="false"), job("b", "my_id", needs=("a",), if_="false")),
        outputs={"a": "${{ jobs.a.result }}"},
    )
    submit(run, nested("inner"), job("last", "my_id", needs=("inner",)), chain=chain)
    work()
    assert run.state == "succeeded"
    assert run.states["inner"] == "finished"
    assert run.result("inner") == {"a": None}


def test_a_workflow_that_never_began_is_not_tolerated(run: Runs, work: Work) -> None:
    submit(
        run,
        job("before", "fail"),
        nested("inner", with_={"path": "x"}, needs=("before",)),
        job("last", "my_id", needs=("inner",)),
    )
    work()
    assert run.state == "failed"
    assert run.states["inner(start)"] == run.states["inner"] == run.states["last"] == "skipped"


def test_a_start_that_fails_is_tolerated(run: Runs, work: Work) -> None:
    chain = Workflow("chain", (job("a", "my_id"),), inputs=(Input("n", "int"),))
    submit(
        run,
        job("before", "give", with_={"value": "many"}),
        nested("inner", with_={"n": "${{ jobs.before.result }}"}),
        job("last", "my_id", needs=("inner",), if_="success()"),
        chain=chain,
    )
    work()
    assert run.state == "succeeded"
    assert run.states["inner(start)"] == "failed"
    assert run.reason("inner") == "tolerated: it could not begin"
    assert run.states["last"] == "finished"


def test_outputs_that_fail_are_tolerated(run: Runs, work: Work) -> None:
    chain = Workflow("chain", (job("a", "my_id"),), outputs={"x": "${{ jobs.a.result.none }}"})
    submit(run, nested("inner"), job("last", "my_id", needs=("inner",)), chain=chain)
    work()
    assert run.state == "succeeded"
    assert (run.states["inner"], run.reason("inner")) == ("failed", "tolerated")


@pytest.mark.parametrize(
    ("tolerance", "state"),
    [
        (Tolerance(count=2), "succeeded"),
        (Tolerance(count=1), "failed"),
        (Tolerance(percent=50), "succeeded"),
        (Tolerance(percent=49), "failed"),
        (ALL_TOLERATED, "succeeded"),
    ],
)
@pytest.mark.parametrize("kind", ["for_each", "matrix"])
def test_chains_are_counted_and_not_the_jobs_inside(
    kind: str, tolerance: Tolerance, state: str, run: Runs, work: Work, tmp_path: Path
) -> None:
    paths = [str(tmp_path), f"{tmp_path}/no", str(tmp_path.parent), f"{tmp_path}/neither"]
    group: dict[str, Any] = (
        {"for_each": each(paths), "with_": {"path": "${{ item }}"}}
        if kind == "for_each"
        else {"matrix": Matrix({"p": paths}), "with_": {"path": "${{ matrix.p }}"}}
    )
    submit(
        run,
        nested("chains", tolerance, **group),
        job("last", "give", with_={"value": "${{ jobs.chains.results }}"}),
    )
    work()
    assert run.state == state
    if state == "succeeded":
        assert run.result("last") == [{"value": 1}, None, {"value": 1}, None]
        assert collapse(run.status)["chains"].state == "finished"
    else:
        assert run.states["last"] == "skipped"
        assert run.reason("last").endswith(" failed")
    assert run.connection.hget(keys.run(RUN), "left") == b"0"


def test_outcomes_say_which_job_inside_failed_and_why(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    submit(
        run,
        nested("chains", for_each=each([f"{tmp_path}/no"]), with_={"path": "${{ item }}"}),
        job("last", "give", with_={"value": "${{ jobs.chains.outcomes }}"}),
    )
    work()
    (found,) = run.result("last")
    assert found["status"] == "failed"
    assert found["error"] == (f"chains[0].check failed: ValueError: {tmp_path}/no is not there")


def test_a_retry_leaves_alone_what_is_tolerated(run: Runs, work: Work, tmp_path: Path) -> None:
    submit(
        run,
        nested("inner", with_={"path": f"{tmp_path}/gate"}),
        job("last", "fail_unless", with_={"path": f"{tmp_path}/gate"}, needs=("inner",)),
    )
    work()
    assert run.state == "failed"
    (tmp_path / "gate").touch()
    assert retry.retry(RUN, run.connection) == (f"{RUN}-last",)
    work()
    assert run.state == "succeeded"
    assert run.states["inner.check"] == "failed"
    with pytest.raises(WrongState, match="has succeeded"):
        retry.retry(RUN, run.connection)


def test_a_retry_runs_again_the_chain_that_was_one_too_many(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    paths = [f"{tmp_path}/gate", f"{tmp_path}/gate", str(tmp_path)]
    submit(
        run,
        nested("chains", Tolerance(count=1), for_each=each(paths), with_={"path": "${{ item }}"}),
        job("last", "give", with_={"value": "${{ jobs.chains.results }}"}),
    )
    work()
    assert run.state == "failed"
    reasons = [run.reason("chains[0]"), run.reason("chains[1]")]
    assert sorted(reason.partition(":")[0] for reason in reasons) == [
        min(f"chains[{at}].check failed" for at in (0, 1) if "tolerated" not in reasons[at]),
        "tolerated",
    ]
    (tmp_path / "gate").touch()
    retry.retry(RUN, run.connection)
    work()
    assert run.state == "succeeded"
    assert sorted(map(str, run.result("last"))) == ["None", "{'value': 1}", "{'value': 1}"]


def test_a_retry_after_a_percentage_was_exceeded_counts_anew(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    paths = [f"{tmp_path}/gate", f"{tmp_path}/gate", str(tmp_path)]
    submit(
        run,
        nested(
            "chains", Tolerance(percent=40), for_each=each(paths), with_={"path": "${{ item }}"}
        ),
        job("last", "my_id", needs=("chains",)),
    )
    work()
    assert run.state == "failed"
    retry.retry(RUN, run.connection)
    work()
    assert run.state == "failed"
    assert run.states["last"] == "skipped"
    (tmp_path / "gate").touch()
    retry.retry(RUN, run.connection)
    work()
    assert run.state == "succeeded"
    assert run.states["last"] == "finished"


def test_a_tolerated_workflow_inside_another_hurts_nobody_and_others_do(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    def outer(tolerance: Tolerance | None) -> Workflow:
        return Workflow(
            "outer",
            (nested("deep", tolerance, with_={"path": "${{ inputs.path }}"}),),
            inputs=(Input("path"),),
            workflows={"chain": CHAIN},
        )

    def one(name: str, workflow: str, tolerance: Tolerance | None) -> JobSpec:
        with_ = {"path": f"{tmp_path}/no"}
        return JobSpec(name, workflow=workflow, continue_on_error=tolerance, with_=with_)

    run.submit(
        one("a", "lenient", None),
        one("b", "strict", ALL_TOLERATED),
        job("last", "my_id", needs=("a", "b"), if_="success()"),
        workflows={"lenient": outer(ALL_TOLERATED), "strict": outer(None)},
    )
    work()
    assert run.state == "succeeded"
    assert (run.states["a"], run.states["a.deep"]) == ("finished", "failed")
    assert run.reason("b") == "tolerated: b.deep failed"
    assert run.reason("b.deep") == "b.deep.check failed"
    document = run_document(RunFacts(run.status))
    assert [document["jobs"][name]["status"] for name in "ab"] == ["finished", "failed"]
    assert run.states["last"] == "finished"


def test_a_canceled_run_is_canceled_whatever_is_tolerated(
    run: Runs, work: Work, tidy: Work, tmp_path: Path
) -> None:
    submit(run, nested("inner", with_={"path": str(tmp_path)}))
    work(max_jobs=1)
    runs.cancel(RUN, run.connection)
    work()
    tidy()
    assert run.state == "canceled"


def test_a_failed_job_inside_that_is_requeued_mends_its_workflow(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    submit(
        run,
        nested("inner", with_={"path": f"{tmp_path}/gate"}),
        job("last", "give", with_={"value": "${{ jobs.inner.result }}"}),
    )
    work()
    assert run.state == "succeeded"
    (tmp_path / "gate").touch()
    get_job(f"{RUN}-inner--check", run.connection).requeue()
    work()
    assert run.state == "succeeded"
    assert run.result("inner") == {"value": 1}
    assert run.connection.hget(keys.future(f"{RUN}-inner"), "hurt") == b"0"


def test_jobs_that_join_a_workflow_while_it_runs_count_in_it(
    run: Runs, work: Work, connection: Redis
) -> None:
    chain = Workflow("chain", (job("a", "my_id"), job("b", "my_id", needs=("a",), deferred=True)))
    outer = nested("inner", deferred=True)
    submit(run, outer, job("last", "my_id", needs=("inner",)), chain=chain)
    work(max_jobs=1)
    queue = Queue(connection=connection)
    for future in (f"{RUN}-inner--b", f"{RUN}-inner"):
        queue.enqueue("language_jobs.fail", blocks=future)
    work()
    assert run.state == "succeeded"
    assert run.states["last"] == "finished"


def test_a_job_that_joins_what_a_workflow_waits_for_is_not_inside_of_it(
    run: Runs, work: Work, connection: Redis
) -> None:
    submit(
        run,
        job("before", "my_id"),
        nested("inner", needs=("before",), deferred=True, with_={"path": "x"}),
    )
    Queue(connection=connection).enqueue("language_jobs.fail", blocks=f"{RUN}-inner--0")
    work()
    assert run.state == "failed"
    assert run.states["inner"] == "skipped"


def test_a_job_inside_that_was_deleted_behind_our_back_is_tolerated(
    run: Runs, work: Work, connection: Redis, tmp_path: Path
) -> None:
    submit(run, nested("inner", with_={"path": str(tmp_path)}))
    work(max_jobs=1)
    connection.delete(keys.job(f"{RUN}-inner--check"))
    connection.delete(keys.queue("default"))
    examine(connection)
    work()
    assert run.states["inner.check"] == "deleted"
    assert run.state == "succeeded"
    runs.remove(RUN, connection)
    assert [key for key in connection.keys("*") if RUN.encode() in key] == []


def test_fail_fast_sees_a_chain_that_fails_inside(
    run: Runs, work: Work, tidy: Work, tmp_path: Path
) -> None:
    submit(
        run,
        nested(
            "chains",
            None,
            for_each=each([f"{tmp_path}/no", str(tmp_path), str(tmp_path)]),
            with_={"path": "${{ item }}"},
            max_parallel=1,
            fail_fast=True,
        ),
    )
    work()
    tidy()
    assert run.state == "failed"
    assert run.states["chains[2]"] == "canceled"
