"""`approval`: a job that waits for somebody's word when all else is ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from redis import Redis

from flowq.client import Run
from flowq.errors import NotFound, RunFailed, WrongState
from flowq.event import read_entry
from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import approvals, keys, maintenance, retry, runs
from flowq.runtime.explain import explain
from flowq.spec import ALL_TOLERATED, Approval, Matrix, Tolerance, Workflow
from flowq.status import fold
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]
BUILD = job("build", "my_id")
ITEM = {"value": "${{ item }}"}
PUBLISH = job("publish", "my_id", needs=("build",), approval=Approval())
AFTER = job("after", "my_id", needs=("publish",))


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def test_the_blockers_run_and_the_job_waits_for_its_approval(run: Runs, work: Work) -> None:
    run.submit(BUILD, PUBLISH, AFTER)
    assert run.state == "running"
    work()
    assert run.states == {"build": "finished", "publish": "deferred", "after": "deferred"}
    assert run.state == "waiting"
    assert (
        str(explain(f"{RUN}-publish", run.connection).reasons[0].hint) == "flowq approve r1 publish"
    )
    assert approvals.approve(RUN, "publish", run.connection) is True
    assert run.state == "running"
    work()
    assert run.state == "succeeded"


def test_an_approval_in_advance_counts_when_the_job_is_ready(run: Runs, work: Work) -> None:
    run.submit(BUILD, PUBLISH, AFTER)
    assert approvals.approve(RUN, "publish", run.connection) is True
    assert approvals.approve(RUN, "publish", run.connection) is False
    assert run.states["publish"] == "deferred"
    work()
    assert run.state == "succeeded"


def test_a_job_without_blockers_asks_at_once(run: Runs, work: Work) -> None:
    run.submit(job("publish", "my_id", approval=Approval()))
    work()
    assert run.state == "waiting"
    approvals.approve(RUN, "publish", run.connection)
    work()
    assert run.state == "succeeded"


def test_what_needs_no_approval_or_is_not_there_is_refused(run: Runs) -> None:
    run.submit(BUILD, PUBLISH)
    with pytest.raises(WrongState, match="does not ask for an approval"):
        approvals.approve(RUN, "build", run.connection)
    with pytest.raises(NotFound, match="did you mean 'publish'"):
        approvals.approve(RUN, "publish2", run.connection)


def expire(connection: Redis, name: str = "publish") -> None:
    """As if the time of a job was over that asks."""
    assert connection.zadd(keys.EXPIRING, {f"{RUN}-{name}": 1}, xx=True, ch=True) == 1
    maintenance.tidy(connection)


def test_an_approval_that_nobody_gives_in_time_fails_the_job(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(BUILD, job("publish", "my_id", needs=("build",), approval=Approval("", 3600)), AFTER)
    assert connection.zcard(keys.EXPIRING) == 0
    work()
    due = dict(connection.zrange(keys.EXPIRING, 0, -1, withscores=True))
    assert 3500 < due[f"{RUN}-publish".encode()] - time.time() < 3700
    expire(connection)
    assert run.states == {"build": "finished", "publish": "failed", "after": "skipped"}
    assert run.reason("publish") == "it expired before it was approved"
    assert run.reason("after") == "publish failed"
    assert run.state == "failed"
    failures = Run(RUN, connection).failures()
    assert failures["publish"].traceback == "it expired before it was approved"
    with pytest.raises(RunFailed, match="publish"):
        Run(RUN, connection).wait()
    with pytest.raises(WrongState, match="has ended"):
        approvals.approve(RUN, "publish", connection)
    retry.retry(RUN, connection)
    assert run.state == "waiting"
    assert run.status.jobs["publish"].is_asking
    approvals.approve(RUN, "publish", connection)
    work()
    assert run.state == "succeeded"


def test_an_approval_that_expires_can_be_tolerated_and_asked_about(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(
        BUILD,
        job("publish", "my_id", approval=Approval("", 60), continue_on_error=ALL_TOLERATED),
        job("after", "my_id", needs=("publish",)),
        job("status", "give", with_={"value": "${{ jobs.publish.status }}"}),
        job("other", "my_id", approval=Approval("", 60)),
        job("failed", "my_id", needs=("other",), if_="failure() and not canceled()"),
        job("then", "my_id", needs=("publish",), if_="failure()"),
    )
    work()
    expire(connection)
    expire(connection, "other")
    work()
    assert run.states["publish"] == "failed"
    assert run.reason("publish") == "tolerated: it expired before it was approved"
    assert run.states["after"] == run.states["failed"] == "finished"
    assert run.result("status") == "failed"
    assert run.states["then"] == "skipped"
    assert str(explain(f"{RUN}-publish", connection)).endswith(
        "tolerated: it expired before it was approved"
    )


def test_items_that_nobody_approves_in_time_count_as_failures_of_their_group(
    run: Runs, work: Work, connection: Redis
) -> None:
    half = Tolerance(percent=50)
    items = each([1, 2, 3, 4])
    asks = Approval("", 60)
    run.submit(
        job("items", "give", for_each=items, with_=ITEM, approval=asks, continue_on_error=half)
    )
    work()
    for at in range(3):
        expire(connection, f"items--{at}")
    approvals.approve(RUN, "items[3]", connection)
    work()
    assert run.states == {
        "items(list)": "finished",
        "items[3]": "finished",
        **dict.fromkeys(["items[0]", "items[1]", "items[2]"], "failed"),
    }
    assert [run.reason(f"items[{at}]") for at in range(3)].count("more than are tolerated") == 1
    assert run.state == "failed"


def test_each_item_of_a_group_asks_and_one_word_is_enough_for_all(run: Runs, work: Work) -> None:
    run.submit(job("items", "give", for_each=each([1, 2, 3]), with_=ITEM, approval=Approval()))
    work()
    assert run.states == {
        "items(list)": "finished",
        **{f"items[{at}]": "deferred" for at in range(3)},
    }
    assert run.state == "waiting"
    assert approvals.approve(RUN, "items[1]", run.connection) is True
    work()
    assert [run.states[f"items[{at}]"] for at in range(3)] == ["deferred", "finished", "deferred"]
    assert approvals.approve(RUN, "items", run.connection) is True
    assert approvals.approve(RUN, "items", run.connection) is False
    work()
    assert run.state == "succeeded"


def test_a_word_for_a_group_counts_for_items_that_are_still_to_come(run: Runs, work: Work) -> None:
    start = {"number": "${{ item }}", "limit": 3}
    more = each([1], more="result.links")
    run.submit(job("pages", "children_of", for_each=more, with_=start, approval=Approval()))
    assert approvals.approve(RUN, "pages", run.connection) is True
    work()
    assert run.state == "succeeded"
    assert run.states == dict.fromkeys(
        ["pages(list)", "pages[0]", "pages[1]", "pages[2]"], "finished"
    )


def test_a_retry_asks_again_for_each_item_that_failed(run: Runs, work: Work) -> None:
    bad = {"value": "${{ item }}", "bad": 2}
    run.submit(job("items", "fail_if", for_each=each([1, 2]), with_=bad, approval=Approval()))
    approvals.approve(RUN, "items", run.connection)
    work()
    assert run.states == {"items(list)": "finished", "items[0]": "finished", "items[1]": "failed"}
    retry.retry(RUN, run.connection)
    work()
    assert run.states["items[1]"] == "deferred"
    assert run.state == "waiting"


def test_all_combinations_of_a_matrix_are_approved_together(run: Runs, work: Work) -> None:
    run.submit(job("items", "my_id", matrix=Matrix({"n": [1, 2]}), approval=Approval()))
    work()
    assert run.state == "waiting"
    approvals.approve(RUN, "items", run.connection)
    work()
    assert run.state == "succeeded"


def test_a_canceled_run_asks_nobody(run: Runs, work: Work) -> None:
    run.submit(BUILD, PUBLISH)
    work()
    runs.cancel(RUN, run.connection)
    assert run.state == "canceled"
    with pytest.raises(WrongState, match="has ended"):
        approvals.approve(RUN, "publish", run.connection)


def test_a_retry_asks_again(run: Runs, work: Work) -> None:
    run.submit(BUILD, job("publish", "fail", needs=("build",), approval=Approval()))
    work()
    approvals.approve(RUN, "publish", run.connection)
    work()
    assert run.state == "failed"
    retry.retry(RUN, run.connection)
    assert run.state == "waiting"


def test_what_was_approved_cannot_be_rejected_and_the_other_way_round(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(
        job("a", "my_id", approval=Approval(), for_each=each([1, 2])),
        job("b", "my_id", approval=Approval()),
        job("c", "my_id", approval=Approval(), needs=("b",)),
    )
    work()
    assert approvals.approve(RUN, "c", connection)  # in advance, so it does not run yet
    assert approvals.reject(RUN, "a[1]", connection)
    with pytest.raises(WrongState, match=r"c of run r1 was already approved, .* a cancel ends"):
        approvals.reject(RUN, "c", connection)
    with pytest.raises(WrongState, match="was already rejected, so it cannot be approved"):
        approvals.approve(RUN, "a[1]", connection)
    assert not approvals.reject(RUN, "a[1]", connection)


def test_a_held_run_starts_when_it_is_released(run: Runs, work: Work, connection: Redis) -> None:
    plan = make_plan(
        build_graph(Workflow("demo", (BUILD, job("after", "my_id", needs=("build",))))), {}, RUN
    )
    runs.submit(plan, connection, is_held=True)
    work()
    assert run.state == "waiting"
    assert run.states == {"build": "deferred", "after": "deferred"}
    assert approvals.release_run(RUN, connection) is True
    assert approvals.release_run(RUN, connection) is False
    work()
    assert run.state == "succeeded"
    with pytest.raises(WrongState, match="has ended"):
        approvals.release_run(RUN, connection)


def test_a_rejection_is_told_as_such_by_who_waits(run: Runs, work: Work) -> None:
    run.submit(BUILD, PUBLISH, AFTER)
    work()
    handle = Run(RUN, run.connection)
    with pytest.raises(WrongState, match="it is running; cancel it first"):
        handle.remove()
    handle.reject("publish", "not good")
    with pytest.raises(RunFailed, match=r"failed: publish \(rejected: not good\)$") as failed:
        handle.wait()
    assert (failed.value.state, failed.value.jobs) == ("failed", ("publish",))
    assert handle.failures()["publish"].traceback == "rejected: not good"
    handle.remove()


def test_a_canceled_run_is_told_as_such(run: Runs) -> None:
    run.submit(BUILD, PUBLISH)
    handle = Run(RUN, run.connection)
    handle.cancel()
    with pytest.raises(RunFailed, match=r"run r1 was canceled$") as canceled:
        handle.wait()
    assert (canceled.value.state, canceled.value.jobs) == ("canceled", ())


# What the run is told ----------------------------------------------------------------------------


Act = tuple[str, str, str, str, str]
NESTED = {"inner": Workflow("inner", (job("first", "my_id"),))}


def acts(connection: Redis) -> list[Act]:
    """Who has done what to which target; the event's name and state.

    A reader that does not know acts finds the same states as one that does.
    """
    events = list(runs.read_events(RUN, connection))
    plain = [replace(event, act="", by="", target="") for event in events]
    declared = runs.get_declared(RUN, connection)
    known, older = fold(declared, events), fold(declared, plain)
    assert (known.state, dict(known.jobs)) == (older.state, dict(older.jobs))
    told = [read_entry(RUN, event) for event in events]
    return [(each.act, each.by, each.target, each.name, each.event) for each in told if each.act]


def decide(connection: Redis, what: str, name: str, by: str = "ann") -> bool:
    return bool(getattr(Run(RUN, connection), what)(name, by=by))


@pytest.mark.parametrize("what", ["approve", "reject"])
@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        ("job", "publish", ("publish", "publish", "deferred")),
        ("list", "publish", ("publish", "", "running")),
        ("matrix", "publish", ("publish", "", "running")),
        ("item", "publish[1]", ("publish[1]", "publish[1]", "deferred")),
        ("workflow", "publish", ("publish", "publish(start)", "deferred")),
        ("workflows", "publish", ("publish", "", "running")),
        ("one of them", "publish[1]", ("publish[1]", "publish[1](start)", "deferred")),
        ("inside", "outer.publish", ("outer.publish", "outer.publish", "deferred")),
    ],
)
def test_each_word_is_one_event_of_the_run(
    kind: str, name: str, told: tuple[str, str, str], what: str, run: Runs, work: Work
) -> None:
    many: dict[str, object] = {"for_each": each([1, 2])}
    of: dict[str, dict[str, object]] = {
        "list": many,
        "item": many,
        "matrix": {"matrix": Matrix({"n": [1, 2]})},
        "workflow": {"workflow": "inner"},
        "workflows": {"workflow": "inner", **many},
        "one of them": {"workflow": "inner", **many},
    }
    function = "" if "workflow" in of.get(kind, {}) else "my_id"
    asking = job("publish", function, approval=Approval(), **of.get(kind, {}))
    outer = {"outer": Workflow("outer", (asking,))}
    jobs = (job("outer", workflow="outer"),) if kind == "inside" else (asking,)
    run.submit(*jobs, workflows={**NESTED, **outer})
    work()
    assert run.state == "waiting"

    assert decide(run.connection, what, name)
    assert not decide(run.connection, what, name, by="eve")
    assert acts(run.connection) == [(what, "ann", *told)]
    work()
    assert acts(run.connection) == [(what, "ann", *told)]


def test_a_word_for_items_that_are_still_to_come_is_an_event_of_the_held_run(
    run: Runs, work: Work, connection: Redis
) -> None:
    asking = job("items", "give", for_each=each([1, 2]), with_=ITEM, approval=Approval())
    plan = make_plan(build_graph(Workflow("demo", (asking,))), {}, RUN)
    runs.submit(plan, connection, is_held=True)
    assert decide(connection, "reject", "items")
    assert not decide(connection, "reject", "items")
    assert acts(connection) == [("reject", "ann", "items", "", "waiting")]
    assert (run.state, run.status.reason) == ("waiting", "it is held")
    Run(RUN, connection).release(by="bob")
    work()
    assert acts(connection)[1:] == [("release", "bob", "", "", "running")]
    assert run.states == {
        "items(list)": "finished",
        "items[0]": "canceled",
        "items[1]": "canceled",
    }


def test_a_group_whose_run_has_ended_is_not_approved(run: Runs, work: Work) -> None:
    first = job("first", "fail")
    asking = job("items", "give", for_each=each([1]), with_=ITEM, approval=Approval())
    run.submit(first, replace(asking, needs=("first",)))
    work()
    assert run.state == "failed"
    with pytest.raises(WrongState, match="has ended, so there is nothing to approve"):
        decide(run.connection, "approve", "items")
    assert acts(run.connection) == []
    assert run.state == "failed"


def test_a_retry_tells_which_job_was_named(run: Runs, work: Work, connection: Redis) -> None:
    run.submit(job("items", "give", for_each=each([1, 2]), with_=ITEM), job("bad", "fail"))
    work()
    for name in ("items[1]", "items", None):
        Run(RUN, connection).retry(name, by="ann")
        work()
    with pytest.raises(WrongState):
        Run("r1", connection).approve("bad", by="ann")
    told = ("", "running")
    assert acts(connection) == [
        ("retry", "ann", "items[1]", *told),
        ("retry", "ann", "items", *told),
        ("retry", "ann", "", *told),
    ]


def test_a_retry_that_an_older_worker_has_completed_is_not_told_again(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(job("bad", "fail"))
    work()
    connection.hset(keys.run(RUN), mapping={"retried_by": "ann", "retried_job": "bad"})
    retry.retry(RUN, connection)
    work()
    assert acts(connection) == []
