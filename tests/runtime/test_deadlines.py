"""`timeout` of a run, and of a job that is a workflow: what takes longer is canceled."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from flowq.client import Run, get_run
from flowq.graph import build_graph
from flowq.plan import Start
from flowq.planner import make_plan
from flowq.render.groups import collapse
from flowq.render.json import RunFacts, run_document
from flowq.runtime import approvals, keys, maintenance, retry, runs
from flowq.runtime.explain import explain
from flowq.runtime.results import read_end
from flowq.spec import ALL_TOLERATED, Approval, Concurrency, JobSpec, Workflow
from flowq.workers.monitor import STOPPED
from flowq.workers.redis_side import NO_CAPACITY, Capacity, RedisSide
from tests.reading import parse_workflow
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]

INNER = Workflow(
    "inner",
    (
        job("a", "my_id"),
        job("b", "my_id", needs=("a",)),
        job("items", "give", needs=("a",), for_each=each([1, 2]), with_={"value": "${{ item }}"}),
        job("clean", "my_id", needs=("b",), if_="always()"),
        JobSpec("deep", workflow="deepest", needs=("b",)),
    ),
    workflows={"deepest": Workflow("deepest", (job("x", "my_id"),))},
)


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def due_in_s(connection: Redis, name: str = "") -> float:
    at_s: Any = connection.zscore(keys.DEADLINES, f"{RUN}-{name}" if name else RUN)
    return float(at_s) - time.time()


def pass_deadline(connection: Redis, name: str = "") -> None:
    """As if the time of the run, or of a workflow, was over; it must be one that has a time."""
    member = f"{RUN}-{name}" if name else RUN
    assert connection.zadd(keys.DEADLINES, {member: 1}, xx=True, ch=True) == 1
    maintenance.tidy(connection)


def nested(name: str = "sub", **more: Any) -> JobSpec:
    return JobSpec(name, workflow="inner", timeout_s=600, **more)


def test_a_run_that_takes_too_long_is_canceled_and_cleans_up(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(
        job("a", "my_id"),
        job("b", "my_id", needs=("a",)),
        job("c", "my_id", needs=("b",)),
        job("clean", "my_id", needs=("b",), if_="always()"),
        timeout_s=600,
    )
    assert 590 < due_in_s(connection) <= 600
    work(max_jobs=1)
    pass_deadline(connection)
    work()
    status = run.status
    assert (status.state, status.reason) == ("canceled", "timed out after 10m")
    assert run.states == {"a": "finished", "b": "canceled", "c": "canceled", "clean": "finished"}
    assert run.reason("b") == "the run timed out after 10m"
    assert "the run timed out after 10m" in str(explain(f"{RUN}-b", connection))
    assert get_run(RUN, connection).record().reason == "timed out after 10m"
    assert run_document(RunFacts(status))["reason"] == "timed out after 10m"
    assert connection.zcard(keys.DEADLINES) == 0


def test_a_run_that_ends_in_time_leaves_no_deadline(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(job("a", "my_id"), timeout_s=600)
    work()
    assert connection.zcard(keys.DEADLINES) == 0
    assert "reason" not in run_document(RunFacts(run.status))


def test_the_time_of_a_held_run_begins_when_it_goes(run: Runs, connection: Redis) -> None:
    workflow = Workflow("demo", (job("a", "my_id"),), timeout_s=600)
    runs.submit(make_plan(build_graph(workflow), {}, RUN), connection, is_held=True)
    assert connection.zcard(keys.DEADLINES) == 0
    approvals.release_run(RUN, connection)
    assert 590 < due_in_s(connection) <= 600


def test_the_time_of_a_run_begins_with_its_turn(work: Work, connection: Redis) -> None:
    workflow = Workflow("demo", (job("a", "my_id"),), timeout_s=600, concurrency=Concurrency("one"))
    for name in ("r0", RUN):
        runs.submit(make_plan(build_graph(workflow), {}, name), connection)
    assert connection.zrange(keys.DEADLINES, 0, -1) == [b"r0"]
    work(max_jobs=1)
    maintenance.tidy(connection)
    assert connection.zrange(keys.DEADLINES, 0, -1) == [RUN.encode()]


def test_waiting_for_an_approval_takes_time(run: Runs, work: Work, connection: Redis) -> None:
    run.submit(job("a", "my_id", approval=Approval()), timeout_s=600)
    pass_deadline(connection)
    assert (run.state, run.reason("a")) == ("canceled", "the run timed out after 10m")


def test_a_retry_begins_the_time_anew(run: Runs, work: Work, connection: Redis) -> None:
    run.submit(job("a", "my_id"), timeout_s=600)
    pass_deadline(connection)
    assert run.state == "canceled"
    retry.retry(RUN, connection)
    assert 590 < due_in_s(connection) <= 600
    work()
    assert (run.state, run.status.reason) == ("succeeded", "")


def test_a_run_that_somebody_cancels_does_not_time_out(run: Runs, connection: Redis) -> None:
    run.submit(job("a", "my_id", if_="always()"), timeout_s=600)
    runs.cancel(RUN, connection)
    pass_deadline(connection)
    assert connection.zcard(keys.DEADLINES) == 0
    runs.cancel(RUN, connection, is_now=True)
    assert (run.state, run.status.reason) == ("canceled", "")


def test_a_workflow_that_takes_too_long_is_canceled_and_cleans_up(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(
        nested(),
        job("after", "my_id", needs=("sub",)),
        job("tell", "give", with_={"value": "${{ jobs.sub.status }}"}, if_="always()"),
        workflows={"inner": INNER},
    )
    assert connection.zcard(keys.DEADLINES) == 0
    work(max_jobs=1)
    assert 590 < due_in_s(connection, "sub") <= 600
    pass_deadline(connection, "sub")
    work()
    assert run.state == "failed"
    assert (run.states["sub"], run.reason("sub")) == ("canceled", "timed out after 10m")
    assert (run.states["sub.clean"], run.states["after"]) == ("finished", "skipped")
    assert run.reason("sub.a") == run.reason("sub.deep") == "the workflow timed out after 10m"
    assert run.states["sub.items(list)"] == run.states["sub.deep(start)"] == "canceled"
    assert run.result("tell") == "canceled"
    assert collapse(run.status)["sub"].reason == "timed out after 10m"
    maintenance.tidy(connection)
    assert connection.zcard(keys.DEADLINES) == 0


@pytest.mark.parametrize("is_canceled", [False, True])
def test_a_late_workflow_that_runs_always_ends_but_for_what_asks_always_inside_of_it(
    is_canceled: bool, run: Runs, work: Work, connection: Redis
) -> None:
    inner = Workflow(
        "inner",
        (
            job("a", "my_id"),
            job("held", "my_id", needs=("a",), approval=Approval()),
            JobSpec("deep", workflow="deepest", needs=("held",)),
            job("clean", "my_id", needs=("held",), if_="always()"),
        ),
        workflows=INNER.workflows,
    )
    run.submit(
        job("first", "my_id", approval=Approval() if is_canceled else None),
        nested(needs=("first",), if_="always()"),
        workflows={"inner": inner},
    )
    work()
    if is_canceled:
        runs.cancel(RUN, connection)
        work()
    assert run.states["sub.held"] == "deferred"
    pass_deadline(connection, "sub")
    work()
    assert run.states["sub.held"] == run.states["sub"] == "canceled"
    assert run.states["sub.clean"] == "finished"
    assert run.status.is_ended


def test_what_has_begun_inside_of_a_late_workflow_ends_with_it(
    run: Runs, work: Work, connection: Redis
) -> None:
    outer = Workflow("outer", (JobSpec("mid", workflow="inner"),), workflows={"inner": INNER})
    run.submit(JobSpec("sub", workflow="outer", timeout_s=600), workflows={"outer": outer})
    work(max_jobs=3)
    assert run.states["sub.mid.a"] == "finished"
    pass_deadline(connection, "sub")
    work()
    assert (run.states["sub"], run.states["sub.mid"]) == ("canceled", "canceled")
    assert run.reason("sub.mid") == run.reason("sub.mid.b") == "the workflow timed out after 10m"
    assert run.states["sub.mid.clean"] == "finished"


def test_a_late_workflow_can_be_tolerated(run: Runs, work: Work, connection: Redis) -> None:
    run.submit(
        nested(continue_on_error=ALL_TOLERATED),
        job("after", "give", needs=("sub",), with_={"value": "${{ jobs.sub.result }}"}),
        workflows={"inner": INNER},
    )
    work(max_jobs=1)
    pass_deadline(connection, "sub")
    work()
    assert (run.state, run.states["after"]) == ("succeeded", "finished")
    assert run.reason("sub") == "tolerated: timed out after 10m"


def test_each_workflow_of_a_group_has_its_own_time(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(nested(for_each=each([1, 2])), workflows={"inner": INNER})
    work(max_jobs=3)
    pass_deadline(connection, "sub--0")
    work()
    assert (run.states["sub[0]"], run.states["sub[1]"]) == ("canceled", "finished")
    assert collapse(run.status)["sub"].state == "canceled"


def test_a_retry_begins_the_time_of_a_workflow_anew(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(nested(), workflows={"inner": INNER})
    work(max_jobs=1)
    pass_deadline(connection, "sub")
    work()
    retry.retry(RUN, connection)
    assert 590 < due_in_s(connection, "sub") <= 600
    work()
    assert (run.state, run.states["sub"]) == ("succeeded", "finished")


INNERMOST = """
name: demo
workflows:
  low:
    jobs:
      wait: {call: "language_jobs:fail", approval: true}
      off: {if: canceled(), call: "language_jobs:my_id"}
      good: {if: success() or failure(), call: "language_jobs:my_id"}
    finally:
      off_at_end: {if: canceled(), call: "language_jobs:my_id"}
      good_at_end: {if: success(), call: "language_jobs:my_id"}
      status: {call: "language_jobs:give", with: {value: "${{ run.status }}"}}
  mid: {jobs: {low: {workflow: low}}}
jobs:
  sub: {workflow: mid, timeout: 10m}
"""


def test_what_is_inside_of_a_late_workflow_hears_that_it_is_canceled_until_a_retry(
    run: Runs, work: Work, connection: Redis
) -> None:
    workflow = parse_workflow(INNERMOST, "demo.yaml")
    runs.submit(make_plan(build_graph(workflow), {}, RUN), connection)
    work(max_jobs=2)
    pass_deadline(connection, "sub")
    work()
    states = {name.removeprefix("sub.low."): state for name, state in run.states.items()}
    assert (states["off"], states["off_at_end"]) == ("finished", "finished")
    assert (states["good"], states["good_at_end"]) == ("canceled", "skipped")
    assert run.result("sub--low--status") == states["sub"] == states["sub.low"] == "canceled"
    retry.retry(RUN, connection)
    Run(RUN, connection).approve("sub.low.wait")
    work()
    assert (run.states["sub.low"], run.states["sub"]) == ("failed", "failed")
    assert run.reason("sub.low") == "sub.low.wait failed"
    assert run.states["sub.low.off_at_end"] == "skipped"
    assert run.result("sub--low--status") == "failed"


def test_in_a_retry_the_time_of_a_workflow_begins_with_it(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(
        job("before", "fail"),
        nested(needs=("before",), if_="success() or failure()"),
        workflows={"inner": INNER},
    )
    work()
    assert (run.states["before"], run.states["sub"]) == ("failed", "finished")
    retry.retry(RUN, connection)
    pass_deadline(connection, "sub")
    assert connection.zcard(keys.DEADLINES) == 0
    work()
    assert run.states["sub"] == "finished"


def test_the_time_of_a_nested_workflow_may_stand_in_itself(run: Runs, work: Work) -> None:
    inner = Workflow("inner", (job("a", "my_id"),), timeout_s=60)
    plan = make_plan(
        build_graph(
            Workflow(
                "demo",
                (JobSpec("own", workflow="inner"), nested("other")),
                workflows={"inner": inner},
            )
        ),
        {},
        RUN,
    )
    starts = [each for each in plan.enqueues if isinstance(each.does, Start)]
    limits = {each.name: each.does.nested.timeout_s for each in starts}
    assert limits == {"own(start)": 60, "other(start)": 600}
    assert {each.timeout_s for each in plan.enqueues} == {None}


def test_what_still_runs_is_told_to_stop_until_it_has(
    run: Runs, connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds a run late may die before it has told anybody."""
    run.submit(job("a", "my_id"), timeout_s=600)
    redis_side = RedisSide(connection, "w", ["default"], 30)
    redis_side.turn([], Capacity(1, 1, 1))
    heard = connection.pubsub()
    heard.subscribe("rq:pubsub:w")
    redis_side.beat(5, 30, [])
    monkeypatch.setattr(maintenance, "stop", lambda jobs, connection: None)
    pass_deadline(connection)
    monkeypatch.undo()
    assert 0 < due_in_s(connection) <= 5
    pass_deadline(connection)
    told = [each["data"] for each in iter(lambda: heard.get_message(timeout=1), None)]
    assert [json.loads(each)["job_id"] for each in told if isinstance(each, bytes)] == [f"{RUN}-a"]


def test_a_job_that_was_stopped_because_time_is_over_says_so(run: Runs) -> None:
    """Not what RQ says of each stopped job: that a user did it."""
    run.submit(job("a", "my_id"))
    job_id = f"{RUN}-a"
    redis_side = RedisSide(run.connection, "w1", ["default"], 30)
    (claim,) = redis_side.turn([], Capacity(1, 1, 1)).claims
    run.connection.hset(keys.job(job_id), "flowq_reason", "the workflow timed out after 10m")
    claim.end = claim.describe_death(STOPPED, "", 0.0)._replace(how="turn", status="stopped")
    redis_side.turn([claim], NO_CAPACITY)
    assert run.states == {"a": "stopped"}
    assert run.error("a") == "the workflow timed out after 10m"
    end = read_end(job_id, run.connection)
    assert (end.error_type, end.message) == (None, "the workflow timed out after 10m")


@pytest.mark.parametrize("more", [{}, {"continue_on_error": ALL_TOLERATED}])
def test_a_workflow_that_took_too_long_has_an_error_and_is_a_failure(
    run: Runs, work: Work, connection: Redis, more: dict[str, Any]
) -> None:
    run.submit(
        nested(**more),
        job(
            "tell", "give", with_={"value": "${{ jobs.sub.error }}"}, needs=("sub",), if_="always()"
        ),
        job("end", "give", with_={"value": "${{ run.failures }}"}, is_final=True),
        workflows={"inner": INNER},
    )
    work(max_jobs=1)
    pass_deadline(connection, "sub")
    work()
    error = {"type": "JobTimeoutException", "message": "timed out after 10m"}
    assert run.result("tell") == error
    failures = [{"job": "sub", "error": error, "exit_code": None}]
    assert run.result("end") == ([] if more else failures)
