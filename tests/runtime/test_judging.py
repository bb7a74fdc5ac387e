"""`if` comes first: before anybody is asked for an approval, and before a slot is taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from flowq.history import read_attempts
from flowq.runtime import approvals, keys, retry, runs, scripts
from flowq.runtime.queue import Queue
from flowq.runtime.wip import WIPRegistry
from flowq.runtime.work import _Execution
from flowq.spec import Approval, JobSpec, Matrix, Workflow
from flowq.workers.redis_side import Capacity, RedisSide
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]
ASKS = Approval("", 3600)


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def asked(run: Runs) -> list[str]:
    """Return the names of the jobs that have asked, once for each time."""
    events = runs.read_events(RUN, run.connection)
    return [event.name for event in events if event.reason == "waits for approval"]


def claim_one(connection: Redis, worker: str = "w") -> RedisSide:
    """Let a worker begin the next job, and do nothing more."""
    redis_side = RedisSide(connection, worker, ["default"], 30)
    assert len(redis_side.turn([], Capacity(1, 1, 1)).claims) == 1
    return redis_side


def give(name: str, value: object, **more: object) -> JobSpec:
    return job(name, "give", with_={"value": value}, **more)


@pytest.mark.parametrize("value", [True, False])
def test_a_condition_over_inputs_decides_whether_anybody_is_asked(
    value: bool, run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(
        give("build", 1),
        give("publish", 2, needs=("build",), if_="inputs.publish", approval=ASKS),
        give("after", 3, needs=("publish",)),
        inputs={"publish": value},
    )
    work()
    if value:
        assert asked(run) == ["publish"]
        approvals.approve(RUN, "publish", connection)
        work()
        assert run.states["publish"] == "finished"
    else:
        assert asked(run) == []
        assert connection.zcard(keys.EXPIRING) == 0
        assert run.states["publish"] == "skipped"
        assert run.reason("publish") == "its `if` is false: inputs.publish"
    assert run.states["after"] == "finished"
    assert run.state == "succeeded"
    assert run.status.jobs["publish"].attempts == int(value)


def test_a_job_that_is_approved_while_its_if_is_judged_has_one_attempt(
    run: Runs, work: Work, connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The approval comes between the look for one and the end of the execution that looks."""
    may_go_on = _Execution._may_go_on

    def look_and_approve(self: _Execution) -> bool:
        answer = may_go_on(self)
        if self.job.id == f"{RUN}-publish":
            approvals.approve(RUN, "publish", connection)
        return answer

    monkeypatch.setattr(_Execution, "_may_go_on", look_and_approve)
    run.submit(give("build", True), give("publish", 2, if_="jobs.build.result", approval=ASKS))
    work()
    events = list(runs.read_events(RUN, connection))
    told = [event.state for event in events if event.name == "publish"]
    assert told == ["queued", "started", "returned", "queued", "started", "finished"]
    assert run.status.jobs["publish"].attempts == 1
    assert connection.hget(keys.job(f"{RUN}-publish"), "flowq_attempts") == b"1"
    assert [attempt.number for attempt in read_attempts(events)["publish"]] == [1]


def test_what_its_condition_skips_is_skipped_only_when_its_turn_comes(
    run: Runs, work: Work
) -> None:
    run.submit(
        job("build", "fail"),
        give("publish", 2, needs=("build",), if_="inputs.publish", approval=ASKS),
        give("after", 3, needs=("publish",)),
        inputs={"publish": False},
    )
    assert run.states["publish"] == "deferred"
    work()
    assert run.states == {"build": "failed", "publish": "skipped", "after": "skipped"}
    assert run.reason("publish") == "build failed"


def test_a_condition_over_results_that_is_false_asks_nobody(run: Runs, work: Work) -> None:
    run.submit(
        give("build", False),
        give("publish", 2, if_="jobs.build.result", approval=ASKS),
        give("after", 3, needs=("publish",)),
    )
    work()
    assert asked(run) == []
    assert run.states == {"build": "finished", "publish": "skipped", "after": "finished"}
    assert run.reason("publish") == "its `if` is false: jobs.build.result"
    assert run.status.jobs["publish"].attempts == 0
    assert run.connection.zcard(keys.EXPIRING) == 0


def test_a_condition_over_results_that_holds_asks_once_and_then_runs(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(give("build", True), give("publish", 2, if_="jobs.build.result", approval=ASKS))
    work()
    assert asked(run) == ["publish"]
    assert run.state == "waiting"
    publish = run.status.jobs["publish"]
    assert (publish.attempts, publish.started_at, publish.worker) == (0, None, "")
    assert connection.zscore(keys.EXPIRING, f"{RUN}-publish")
    assert WIPRegistry("default", connection=connection).count == 0
    approvals.approve(RUN, "publish", connection)
    work()
    assert run.state == "succeeded"
    assert (run.result("publish"), run.status.jobs["publish"].attempts) == (2, 1)
    assert asked(run) == ["publish"]


def test_an_approval_in_advance_does_not_replace_the_condition(run: Runs, work: Work) -> None:
    run.submit(give("build", False), give("publish", 2, if_="jobs.build.result", approval=ASKS))
    assert approvals.approve(RUN, "publish", run.connection) is True
    work()
    assert run.states["publish"] == "skipped"


def test_an_approval_is_taken_while_the_condition_is_judged(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(give("build", True), give("publish", 2, if_="jobs.build.result", approval=ASKS))
    work(max_jobs=1)
    redis_side = claim_one(connection)
    assert approvals.approve(RUN, "publish", connection, by="ann") is True
    assert approvals.approve(RUN, "publish", connection, by="eve") is False
    acts = [each for each in runs.read_events(RUN, connection) if each.act]
    assert [(each.act, each.by, each.acted_on, each.name, each.state) for each in acts] == [
        ("approve", "ann", "publish", "", "running")  # it is executed: its own state stays
    ]
    assert run.states["publish"] != "deferred"
    redis_side.recover("w", 9)
    work()
    assert run.states["publish"] == "finished"
    assert asked(run) == []


def test_a_worker_that_is_lost_while_it_judges_makes_nobody_be_asked_twice(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(give("build", True), give("publish", 2, if_="jobs.build.result", approval=ASKS))
    work(max_jobs=1)
    claim_one(connection).recover("w", 9)
    assert asked(run) == []
    work()
    assert asked(run) == ["publish"]
    approvals.approve(RUN, "publish", connection)
    work()
    assert run.state == "succeeded"


def test_a_run_that_is_canceled_while_a_job_is_judged_asks_nobody(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(give("build", True), give("publish", 2, if_="jobs.build.result", approval=ASKS))
    work(max_jobs=1)
    claim_one(connection)
    connection.hset(keys.run(RUN), "canceling", "1")
    scripts.HOLD.call(connection, keys.job(f"{RUN}-publish"), f"{RUN}-publish", "")
    assert asked(run) == []
    assert run.states["publish"] == "canceled"


def test_the_items_of_a_group_are_judged_when_they_are_made(run: Runs, work: Work) -> None:
    run.submit(
        give("limit", 2),
        job(
            "items",
            "give",
            with_={"value": "${{ item }}"},
            for_each=each([1, 2, 3]),
            if_="item > jobs.limit.result",
            approval=ASKS,
        ),
        give("after", "${{ jobs.items.results }}"),
    )
    work()
    assert asked(run) == ["items[2]"]
    assert run.states["items[0]"] == run.states["items[1]"] == "skipped"
    assert run.reason("items[0]") == "its `if` is false: item > jobs.limit.result"
    assert run.status.jobs["items[0]"].attempts == 0
    approvals.approve(RUN, "items[2]", run.connection)
    work()
    assert run.result("after") == [None, None, 3]


def test_an_item_whose_condition_cannot_be_judged_fails_alone(run: Runs, work: Work) -> None:
    items = each([{"go": 1}, {}, {"go": 2}])
    run.submit(
        give("one", 1),
        job("items", "my_id", for_each=items, if_="item.go == jobs.one.result"),
    )
    work()
    assert run.states["items(list)"] == run.states["items[0]"] == "finished"
    assert run.states["items[1]"] == "failed"
    assert run.states["items[2]"] == "skipped"
    assert "go" in run.error("items--1")


@pytest.mark.parametrize("over", ["matrix.n > 1", "matrix.n > jobs.one.result"])
def test_the_combinations_of_a_matrix_are_judged_one_by_one(
    over: str, run: Runs, work: Work
) -> None:
    legs = Matrix({"n": [1, 2]})
    run.submit(
        give("one", 1),
        job("legs", "my_id", needs=("one",), matrix=legs, if_=over, approval=ASKS),
    )
    work()
    assert asked(run) == ["legs[2]"]
    assert run.states["legs[1]"] == "skipped"


@pytest.mark.parametrize("over", ["inputs.yes", "jobs.first.result"])
@pytest.mark.parametrize("value", [True, False])
def test_a_workflow_that_its_condition_skips_asks_nobody(
    over: str, value: bool, run: Runs, work: Work
) -> None:
    inner = Workflow("inner", (give("a", 1),), outputs={"a": "${{ jobs.a.result }}"})
    run.submit(
        give("first", value),
        JobSpec("whole", workflow="inner", needs=("first",), if_=over, approval=ASKS),
        give("after", "${{ jobs.whole.result }}"),
        workflows={"inner": inner},
        inputs={"yes": value},
    )
    work()
    assert asked(run) == (["whole(start)"] if value else [])
    if value:
        approvals.approve(RUN, "whole", run.connection)
        work()
    else:
        assert run.reason("whole") == f"its `if` is false: {over}"
    assert run.state == "succeeded"
    assert run.result("after") == ({"a": 1} if value else None)


def test_a_job_waits_for_a_slot_once_its_condition_holds_and_for_none_when_it_does_not(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(
        give("first", 1),
        give("long", 2, needs=("first",)),
        give("maybe", 3, if_="jobs.first.result == 1"),
        give("never", 4, if_="jobs.first.result > 1"),
        max_parallel=1,
    )
    work(max_jobs=1)
    redis_side = claim_one(connection)
    work()
    assert (run.states["first"], run.states["long"]) == ("finished", "started")
    assert (run.states["maybe"], run.states["never"]) == ("deferred", "skipped")
    assert run.reason("maybe") == "waits for a slot"
    assert run.status.jobs["maybe"].attempts == 0
    redis_side.recover("w", 9)
    work()
    assert run.state == "succeeded"
    assert run.status.jobs["maybe"].attempts == 1
    assert connection.scard(keys.slots(f"run:{RUN}")) == 0


def test_a_slot_that_is_free_is_taken_without_another_execution(run: Runs, work: Work) -> None:
    run.submit(give("first", 1), give("maybe", 3, if_="jobs.first.result == 1"), max_parallel=2)
    work()
    events = [each for each in runs.read_events(RUN, run.connection) if each.name == "maybe"]
    assert [event.state for event in events] == ["queued", "started", "finished"]


def test_a_blocker_that_runs_again_makes_the_job_be_judged_again(
    run: Runs, work: Work, connection: Redis, tmp_path: object
) -> None:
    path = f"{tmp_path}/gate"
    run.submit(
        job("build", "fail_unless", with_={"path": path, "value": 1}),
        give("publish", 2, if_="failure()", needs=("build",), approval=ASKS),
    )
    work()
    assert asked(run) == ["publish"]
    open(path, "w").close()  # noqa: PTH123 - its path is a text here
    Queue(connection=connection).failed_job_registry.requeue(f"{RUN}-build")
    work()
    assert run.states == {"build": "finished", "publish": "skipped"}
    assert connection.zcard(keys.EXPIRING) == 0


def test_a_retry_judges_and_asks_again(run: Runs, work: Work, connection: Redis) -> None:
    run.submit(give("build", True), job("publish", "fail", if_="jobs.build.result", approval=ASKS))
    work()
    approvals.approve(RUN, "publish", connection)
    work()
    assert run.state == "failed"
    retry.retry(RUN, connection)
    work()
    assert asked(run) == ["publish", "publish"]
    assert run.state == "waiting"


def test_a_worker_that_does_not_know_flowq_leaves_the_asking_to_another(
    run: Runs, work: Work, work_plainly: Work, connection: Redis
) -> None:
    run.submit(give("build", True), give("publish", 2, if_="jobs.build.result", approval=ASKS))
    work(max_jobs=1)
    work_plainly()
    assert connection.zcard(keys.scheduled("default")) == 1
    assert asked(run) == []
