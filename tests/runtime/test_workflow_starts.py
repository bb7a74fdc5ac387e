"""A job that is a workflow, and the job that begins it: to users one job, with one end and name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from flowq.client import Run
from flowq.errors import RunFailed, WrongState
from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.render.groups import collapse
from flowq.runtime import keys, retry, runs
from flowq.runtime.explain import explain
from flowq.runtime.maintenance import tidy
from flowq.spec import ALL_TOLERATED, Approval, Concurrency, Input, JobSpec, Matrix, Workflow
from flowq.status import public_name
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]

INNER = Workflow("inner", (job("a", "my_id"),), outputs={"id": "${{ jobs.a.result }}"})
ASKS = Approval(expires_s=60)
LOOK = job("look", "give", is_final=True, with_={"value": "${{ [run.status, run.failures] }}"})


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def submit(run: Runs, *jobs: JobSpec, inner: Workflow = INNER) -> None:
    asking = JobSpec("sub", workflow="inner", **TOLERATED_ASK)
    outer = Workflow("outer", (asking,), workflows={"inner": inner})
    run.submit(*jobs, LOOK, workflows={"inner": inner, "outer": outer})


TOLERATED_ASK: dict[str, Any] = {"approval": ASKS, "continue_on_error": ALL_TOLERATED}


def expire(run: Runs) -> None:
    """Let the time for every approval that was asked for run out."""
    for raw in run.connection.zrange(keys.EXPIRING, 0, -1):
        run.connection.zadd(keys.EXPIRING, {raw: 1})
    tidy(run.connection)


def failed_names(run: Runs) -> tuple[str, list[str]]:
    status, failures = run.result("look")
    return status, [each["job"] for each in failures]


@pytest.mark.parametrize(
    "asking",
    [
        pytest.param(job("sub", "my_id", **TOLERATED_ASK), id="a job"),
        pytest.param(JobSpec("sub", workflow="inner", **TOLERATED_ASK), id="a workflow"),
        pytest.param(
            JobSpec("sub", workflow="inner", for_each=each([1, 2]), **TOLERATED_ASK), id="items"
        ),
        pytest.param(
            JobSpec("sub", workflow="inner", matrix=Matrix({"n": [1, 2]}), **TOLERATED_ASK),
            id="a matrix",
        ),
        pytest.param(JobSpec("whole", workflow="outer"), id="a workflow in a workflow"),
        pytest.param(
            JobSpec("whole", workflow="outer", continue_on_error=ALL_TOLERATED),
            id="both are tolerated",
        ),
    ],
)
def test_jobs_under_finally_do_not_count_a_tolerated_approval_that_expired(
    asking: JobSpec, run: Runs, work: Work
) -> None:
    submit(run, asking)
    work()
    expire(run)
    work()
    assert failed_names(run) == ("succeeded", [])
    assert run.state == "succeeded"


def test_an_approval_that_expired_is_one_failure_of_the_workflow(run: Runs, work: Work) -> None:
    submit(run, JobSpec("sub", workflow="inner", approval=ASKS))
    work()
    expire(run)
    work()
    assert failed_names(run) == ("failed", ["sub"])
    assert run.reason("sub") == run.reason("sub(start)")
    assert run.reason("sub").endswith("expired before it was approved")
    with pytest.raises(RunFailed) as failed:
        Run(RUN, run.connection).wait()
    assert failed.value.jobs == ("sub",)


def test_inputs_that_do_not_fit_are_one_failure_of_the_workflow(run: Runs, work: Work) -> None:
    inner = Workflow("inner", (job("a", "my_id"),), inputs=(Input("n", "int"),))
    before = job("before", "give", with_={"value": "many"})
    sub = JobSpec("sub", workflow="inner", with_={"n": "${{ jobs.before.result }}"})
    submit(run, before, sub, job("after", "my_id", needs=("sub",)), inner=inner)
    work()
    assert failed_names(run) == ("failed", ["sub"])
    [failure] = run.result("look")[1]
    assert failure["error"]["type"] == "WorkflowInvalid"
    assert run.reason("sub") == "it could not begin"
    assert run.reason("after") == "sub failed"


def reject_all(run: Runs, *names: str) -> None:
    for name in names:
        Run(RUN, run.connection).reject(name, "not today")


@pytest.mark.parametrize("is_workflow", [False, True])
@pytest.mark.parametrize("tolerance", [None, ALL_TOLERATED])
def test_a_rejected_workflow_is_canceled_like_any_other_job(
    run: Runs, work: Work, is_workflow: bool, tolerance: Any
) -> None:
    asks: dict[str, Any] = {"approval": Approval(), "continue_on_error": tolerance}
    sub = JobSpec("sub", workflow="inner", **asks) if is_workflow else job("sub", "my_id", **asks)
    says = "${{ [jobs.sub.status, jobs.sub.error, jobs.sub.attempts] }}"
    after = job("after", "give", needs=("sub",), if_="always()", with_={"value": says})
    submit(run, sub, after, job("next", "my_id", needs=("sub",)))
    work()
    reject_all(run, "sub")
    work()
    assert (run.states["sub"], run.reason("sub")) == ("canceled", "rejected: not today")
    assert collapse(run.status)["sub"].state == "canceled"
    assert (run.states["next"], run.reason("next")) == ("skipped", "sub was canceled")
    assert run.result("after") == ["canceled", None, 0]
    assert failed_names(run) == ("failed", ["sub"])
    assert run.state == "failed"
    assert explain(f"{RUN}-sub", run.connection).reasons[0].text == "rejected: not today"


@pytest.mark.parametrize(
    ("options", "kind"),
    [({"approval": Approval()}, "approval"), ({"concurrency": Concurrency("one")}, "slot")],
)
def test_explain_says_of_a_workflow_what_keeps_the_job_that_begins_it(
    run: Runs, options: dict[str, Any], kind: str
) -> None:
    submit(run, job("holds", "my_id", concurrency=Concurrency("one")))
    sub = JobSpec("sub", workflow="inner", **options)
    outer = Workflow("demo", (sub,), workflows={"inner": INNER})
    runs.submit(make_plan(build_graph(outer), {}, "r2"), run.connection)
    said = explain("r2-sub", run.connection)
    assert [reason.kind for reason in said.reasons] == [kind]
    assert "(start)" not in str(said)


def test_a_rejected_item_that_is_a_workflow_has_no_result(run: Runs, work: Work) -> None:
    sub = JobSpec("sub", workflow="inner", for_each=each([1, 2]), approval=Approval())
    says = {"value": "${{ [jobs.sub.status, jobs.sub.outcomes | map('status')] }}"}
    reads = job("reads", "give", if_="always()", with_={"value": "${{ jobs.sub.results[0] }}"})
    asks = job("asks", "give", needs=("sub",), if_="always()", with_=says)
    submit(run, sub, asks, reads)
    work()
    reject_all(run, "sub[0]")
    Run(RUN, run.connection).approve("sub[1]")
    work()
    assert run.states["sub[0]"] == "canceled"
    assert run.states["sub[1]"] == "finished"
    assert run.result("asks") == ["canceled", ["canceled", "finished"]]
    assert "jobs.sub[0] was canceled: rejected: not today" in run.error("reads")
    assert failed_names(run) == ("failed", ["sub[0]", "reads"])


def test_a_retry_asks_for_a_rejected_workflow_again(run: Runs, work: Work) -> None:
    submit(run, JobSpec("sub", workflow="inner", approval=Approval()))
    work()
    reject_all(run, "sub")
    work()
    retry.retry(RUN, run.connection)
    work()
    Run(RUN, run.connection).approve("sub")
    work()
    assert (run.state, run.states["sub"]) == ("succeeded", "finished")


def test_attempts_count_all_starts_also_of_a_job_that_is_rejected_after_a_retry(
    run: Runs, work: Work
) -> None:
    first = job("first", "fail_unless", with_={"path": "/nowhere", "value": 1}, approval=Approval())
    says = {"value": "${{ [jobs.first.attempts, jobs.first.status] }}"}
    submit(run, first, job("says", "give", if_="always()", with_=says))
    work()
    Run(RUN, run.connection).approve("first")
    work()
    assert run.result("says") == [1, "failed"]
    retry.retry(RUN, run.connection)
    work()
    reject_all(run, "first")
    work()
    assert run.result("says") == [1, "canceled"]
    assert run.status.jobs["first"].attempts == 1


def test_refusals_of_retry_name_what_was_declared(run: Runs, work: Work) -> None:
    gate = job("gate", "fail")
    sub = JobSpec("sub", workflow="inner", approval=Approval())
    submit(run, sub, job("after", "my_id", needs=("sub",)), gate)
    work()
    reject_all(run, "sub")
    work()
    with pytest.raises(WrongState, match="retry sub, and after runs again") as refused:
        retry.retry(RUN, run.connection, "after")
    assert "(start)" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("sub(start)", "sub"),
        ("g[0](start)", "g[0]"),
        ("g(list)", "g(list)"),
        ("a[(start)]", "a[(start)]"),
    ],
)
def test_the_public_name_of_a_job_is_that_of_its_declaration(name: str, public: str) -> None:
    assert public_name(name) == public
