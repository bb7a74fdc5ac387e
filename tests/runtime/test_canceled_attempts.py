"""No job of a run begins, or begins anew, once the run is being canceled, however its end comes.

The jobs cancel their own run, and the stop that follows comes too late: after the function's end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
from redis import Redis
from rq.job import JobStatus

from flowq.errors import WrongState
from flowq.runtime import holds, keys, runs, steps
from flowq.runtime.job import Job, get_job
from flowq.runtime.queue import Queue
from flowq.spec import Approval, JobSpec, Retry, Workflow
from flowq.workers import Worker
from flowq.workers.redis_side import Capacity, RedisSide
from tests import JOBS_FOLDER
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


@pytest.fixture(params=["ours", "RQ's"])
def drain(request: pytest.FixtureRequest, connection: Redis, work: Work) -> Work:
    """`drain()`: the jobs that are due, by our worker and by RQ's with our classes."""
    if request.param == "RQ's":
        return work

    def run_ours() -> None:
        worker = Worker(["default"], connection=connection, paths=[JOBS_FOLDER], mode="warm")
        worker.work(burst=True, logging_level="CRITICAL")

    return run_ours


def count_starts(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.parametrize("then", ["fail", "retry", "retry later", "list"])
@pytest.mark.parametrize("backoff_s", [0, 3600])
def test_a_job_that_ends_after_the_cancel_is_not_retried(
    run: Runs, drain: Work, tmp_path: Path, then: str, backoff_s: float
) -> None:
    log = tmp_path / "log"
    page = job(
        "page",
        "cancel_my_run",
        for_each=each([0], more="result.links"),
        retries=Retry(4, backoff_s),
        with_={"log": str(log), "then": then},
    )
    run.submit(page)
    drain()
    assert count_starts(log) == 1
    assert run.state == "canceled"
    assert run.states["page[0]"] == ("failed" if then in ("fail", "list") else "canceled")
    if then == "list":
        assert f"WrongState: run {RUN} is being canceled; no job can be added" in run.error(
            "page--0"
        )


def test_a_job_that_finishes_before_the_stop_reaches_it_was_not_canceled(
    run: Runs, drain: Work, connection: Redis, tmp_path: Path
) -> None:
    run.submit(job("page", "cancel_my_run", with_={"log": str(tmp_path / "log")}))
    drain()
    assert (run.states["page"], run.reason("page")) == ("finished", "")
    job_hash = connection.hgetall(keys.job(f"{RUN}-page"))
    assert not {b"flowq_reason", b"flowq_stopping"} & job_hash.keys()


def test_what_runs_after_a_cancel_is_retried_but_not_when_all_is_to_end_now(
    run: Runs, drain: Work, connection: Redis, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    run.submit(
        job("first", "cancel_my_run", with_={"log": str(tmp_path / "other")}),
        job("clean", "fail_twice", needs=("first",), if_="always()", retries=Retry(4, 0),
            with_={"log": str(log)}),
    )  # fmt: skip
    drain()
    assert count_starts(log) == 3
    assert run.states["clean"] == "finished"
    # In a run that ends now:
    runs.remove(RUN, connection)
    log.unlink()
    values = {"log": str(log), "then": "fail", "now": True}
    run.submit(job("clean", "cancel_my_run", if_="always()", retries=Retry(4, 0), with_=values))
    drain()
    assert count_starts(log) == 1
    assert run.state == "canceled"


def test_items_that_a_job_adds_which_runs_after_a_cancel_run_too(
    run: Runs, drain: Work, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    run.submit(
        job("first", "cancel_my_run", with_={"log": str(tmp_path / "other"), "then": "fail"}),
        job("list", "give", needs=("first",), if_="always()", with_={"value": [1, 2]}),
        job("clean", "note", needs=("list",), if_="always()",
            for_each=each("${{ jobs.list.result }}"),
            with_={"path": str(log), "text": "${{ item }}"}),
    )  # fmt: skip
    drain()
    assert count_starts(log) == 2, (run.states, {n: run.reason(n) for n in run.states})
    assert run.states["clean[1]"] == "finished"


def test_a_nested_workflow_that_runs_after_a_cancel_does_so_to_its_end(
    run: Runs, drain: Work, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    inner = Workflow(
        "inner",
        (job("one", "note", with_={"path": str(log), "text": 1}),
         job("two", "note", needs=("one",), with_={"path": str(log), "text": 2})),
    )  # fmt: skip
    run.submit(
        job("first", "cancel_my_run", with_={"log": str(tmp_path / "other"), "then": "fail"}),
        JobSpec("clean", "", workflow="inner", needs=("first",), if_="always()"),
        workflows={"inner": inner},
    )
    drain()
    assert count_starts(log) == 2
    assert run.states["clean.two"] == run.states["clean"] == "finished"
    assert run.state == "canceled"


def test_a_claim_takes_no_job_of_a_run_that_is_being_canceled(
    run: Runs, connection: Redis, tmp_path: Path
) -> None:
    run.submit(
        *(job(f"j{at}", "give", with_={"value": at}) for at in range(3)),
        job("always", "give", if_="always()", with_={"value": 1}),
    )
    plain = Queue(connection=connection).enqueue("operator.add", 1, 1)
    # A cancel of a large run needs many steps; this one has only begun.
    connection.hset(keys.run(RUN), "canceling", "1")
    turn = RedisSide(connection, "w", ["default"], 30).turn([], Capacity(9, 9, 9))
    assert [claim.job_id for claim in turn.claims] == [f"{RUN}-always", plain.id]
    assert {run.states[f"j{at}"] for at in range(3)} == {"canceled"}
    assert connection.llen(keys.queue("default")) == 0


def test_one_turn_ends_only_some_of_the_queued_jobs_of_a_run_that_is_being_canceled(
    run: Runs, connection: Redis
) -> None:
    run.submit(*(job(f"j{at}", "give", with_={"value": 1}) for at in range(200)))
    connection.hset(keys.run(RUN), "canceling", "1")  # its steps have still to come
    redis_side, queue = RedisSide(connection, "w", ["default"], 30), keys.queue("default")
    turn = redis_side.turn([], Capacity(9, 9, 9))
    assert turn.has_left
    assert 100 < connection.llen(queue) < 200
    for _ in range(4):
        assert not turn.claims
        turn = redis_side.turn([], Capacity(9, 9, 9))
    assert connection.llen(queue) == 0
    assert set(run.states.values()) == {"canceled"}
    assert run.state == "canceled"


def test_a_worker_of_rq_begins_no_job_of_a_run_that_is_being_canceled(
    run: Runs, connection: Redis, work: Work
) -> None:
    run.submit(
        job("a", "give", with_={"value": 1}),
        job("always", "give", if_="always()", with_={"value": 1}),
    )
    plain = Queue(connection=connection).enqueue("operator.add", 1, 1)
    connection.hset(keys.run(RUN), "canceling", "1")  # its steps have still to come
    work()
    assert run.states == {"a": "canceled", "always": "finished"}
    assert run.state == "canceled"
    assert plain.get_status() == "finished"


def test_a_schedule_queues_no_job_of_a_run_that_is_being_canceled(
    run: Runs, connection: Redis
) -> None:
    run.submit(job("a", "give", with_={"value": 1}))
    name = f"{RUN}-a"
    connection.lrem(keys.queue("default"), 0, name)
    connection.hset(keys.job(name), "status", "scheduled")
    connection.zadd("rq:scheduled:default", {name: time.time() - 5})
    connection.hset(keys.run(RUN), "canceling", "1")
    RedisSide(connection, "w", ["default"], 30).queue_due()
    assert run.states == {"a": "canceled"}
    assert run.state == "canceled"
    assert connection.zcard("rq:scheduled:default") == 0


def test_a_cancel_ends_what_waits_for_its_back_off_a_slot_or_an_approval(
    run: Runs, drain: Work, connection: Redis, tmp_path: Path
) -> None:
    run.submit(
        job("later", "fail", retries=Retry(4, 3600)),
        job("asks", "give", approval=Approval(), with_={"value": 1}),
    )
    drain()
    assert run.states == {"later": "scheduled", "asks": "deferred"}
    runs.cancel(RUN, connection)
    drain()
    assert run.states == {"later": "canceled", "asks": "canceled"}
    assert run.state == "canceled"


def test_an_item_of_a_closed_group_is_not_retried(run: Runs, work: Work, connection: Redis) -> None:
    run.submit(
        job("part", "give", for_each=each([0, 1, 2]), fail_fast=True,
            retries=Retry(2, 0), with_={"value": "${{ item }}"}),
    )  # fmt: skip
    work(1)  # the job that adds the items
    group = f"{RUN}-part"
    redis_side = RedisSide(connection, "w", ["default"], 30)
    claims = redis_side.turn([], Capacity(9, 9, 9)).claims
    held = {claim.job_id: claim for claim in claims}
    assert len(held) == 3
    connection.hset(keys.group(group), mapping={"closed": "canceled", "reason": "part[2] failed"})
    item = get_job(f"{group}--0", connection)
    with connection.pipeline() as pipeline:
        item.retry(Queue(connection=connection), pipeline)
        pipeline.execute()
    assert run.states["part[0]"] == "canceled"
    assert run.reason("part[0]") == "part[2] failed"
    assert connection.llen(keys.queue("default")) == 0


def test_a_job_whose_run_was_removed_leaves_nothing_that_never_expires(
    run: Runs, drain: Work, tidy: Work, connection: Redis
) -> None:
    run.submit(job("page", "remove_my_run", for_each=each([0], more="result.links")))
    drain()
    tidy()
    left = [key for key in connection.keys("*") if RUN.encode() in key]
    assert [key for key in left if connection.ttl(key) == -1] == []


def test_what_is_added_to_a_run_that_is_over_is_refused_in_a_sentence(
    run: Runs, drain: Work, connection: Redis
) -> None:
    run.submit(job("a", "give", with_={"value": 1}))
    drain()
    hold = holds.Hold(run_id=RUN, name="b")
    queue = Queue(connection=connection)
    late = Job.create("operator.add", (1, 1), id=f"{RUN}-b", connection=connection)
    late.adopt(hold)  # type: ignore[attr-defined]
    with pytest.raises(WrongState, match=f"run {RUN} has ended: succeeded; no job can be added"):
        queue.enqueue_job(late)


ACTS = ("ask", "end", "flag", "step", "claim")


@pytest.mark.parametrize(
    "order",
    [
        order
        for order in permutations(ACTS)
        if order.index("ask") < order.index("end") and order.index("flag") < order.index("step")
    ],
)
@pytest.mark.parametrize("backoff_s", [0, 3600])
def test_no_order_of_a_failing_attempt_and_a_cancel_lets_another_attempt_begin(
    run: Runs, connection: Redis, order: tuple[str, ...], backoff_s: int
) -> None:
    """A failing attempt asks whether it is retried, then ends; a cancel is noted, then has steps.

    Between any two of these the worker looks at its schedule and claims what it finds.
    """
    run.submit(job("a", "fail", retries=Retry(4, backoff_s)))
    redis_side, queue = RedisSide(connection, "w", ["default"], 30), Queue(connection=connection)
    name, starts, is_canceling, may_retry = f"{RUN}-a", 0, False, False

    def claim() -> None:
        nonlocal starts
        connection.zadd(keys.scheduled("default"), {name: 1}, xx=True)  # it is due by now
        redis_side.queue_due()
        found = redis_side.turn([], Capacity(1, 1, 1)).claims
        assert not (found and is_canceling)
        starts += len(found)

    claim()
    failing = get_job(name, connection)
    for act in order:
        if act == "ask":
            may_retry = failing.should_retry
        elif act == "end":
            with connection.pipeline() as pipeline:
                if may_retry:
                    failing.retry(queue, pipeline)
                else:
                    failing.set_status(JobStatus.FAILED, pipeline=pipeline)
                pipeline.execute()
        elif act == "flag":
            connection.hset(keys.run(RUN), "canceling", "1")
            is_canceling = True
        elif act == "step":
            steps.finish(connection, f"cancel:{RUN}")
        else:
            claim()
    claim()
    is_again = order.index("ask") < order.index("end") < order.index("claim") < order.index("flag")
    assert starts == 1 + is_again
    if not is_again:  # else it is being executed, and has been told to stop
        assert run.states["a"] in ("canceled", "failed")
        assert run.state == "canceled"
