"""`max_parallel`, `fail_fast` and `stop_when`: what holds the items of a group, or ends them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from flowq.runtime import keys, maintenance, retry, runs, scripts
from flowq.runtime.job import get_job
from flowq.spec import Matrix, Retry
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]
VALUE: Any = {"value": "${{ item }}"}
GROUP = f"{RUN}-items"
SLOTS = f"rq:flowq:1:slots:group:{GROUP}"
WAITING = f"rq:flowq:1:waiting:group:{GROUP}"


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def queued(connection: Redis) -> list[str]:
    ids: Any = connection.lrange(keys.queue("default"), 0, -1)
    return [raw.decode() for raw in ids]


def test_no_more_jobs_are_queued_than_the_limit_and_the_others_follow_in_order(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(
        job("total", "give", with_={"value": "${{ jobs.items.results }}"}),
        job("items", "give", for_each=each([1, 2, 3, 4, 5]), with_=VALUE, max_parallel=2),
    )
    work(max_jobs=1)
    assert queued(connection) == [f"{GROUP}--0", f"{GROUP}--1"]
    assert connection.zcard(WAITING) == 3
    work(max_jobs=1)
    assert queued(connection) == [f"{GROUP}--1", f"{GROUP}--2"]
    work()
    assert run.result("total") == [1, 2, 3, 4, 5]
    assert run.state == "succeeded"
    assert connection.exists(SLOTS, WAITING) == 0


def test_a_failed_item_gives_its_slot_to_the_next(run: Runs, work: Work, connection: Redis) -> None:
    run.submit(
        job(
            "items",
            "fail_if",
            for_each=each([1, 2, 3]),
            with_=VALUE | {"bad": [1, 2]},
            max_parallel=1,
        )
    )
    work()
    assert run.states["items[2]"] == "finished"
    assert connection.exists(SLOTS) == 0


def test_a_slot_is_given_back_once_however_often_the_job_ends(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(job("items", "give", for_each=each([1, 2, 3, 4]), with_=VALUE, max_parallel=1))
    work(max_jobs=2)
    for _ in range(3):
        scripts.SETTLE.call(connection, "slot", f"{GROUP}--0", "finished", 0)
    assert queued(connection) == [f"{GROUP}--1"]
    assert connection.smembers(SLOTS) == {f"{GROUP}--1".encode()}


def test_a_retry_that_waits_gives_its_slot_back_and_takes_it_again(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(
        job(
            "items",
            "fail_if",
            for_each=each([1, 2, 3]),
            with_=VALUE | {"bad": 1},
            max_parallel=1,
            retries=Retry(1, 60),
        )
    )
    work(max_jobs=2)
    assert run.states["items[0]"] == "scheduled"
    assert queued(connection) == [f"{GROUP}--1"]
    connection.zadd("rq:scheduled:default", {f"{GROUP}--0": time.time() - 1})
    scripts.DUE.call(connection, "slot", 10, "default")
    assert queued(connection) == [f"{GROUP}--1"]
    assert run.reason("items[0]") == "waits for a slot"
    work(max_jobs=1)
    assert queued(connection) == [f"{GROUP}--2"]
    work()
    assert run.states["items[0]"] == "failed"
    assert run.status.jobs["items[0]"].attempts == 2
    assert connection.exists(SLOTS, WAITING) == 0


def test_a_matrix_that_waits_for_its_slot_takes_new_blockers_in_front_of_it(
    run: Runs, work: Work, connection: Redis
) -> None:
    from flowq.runtime.queue import Queue

    numbers = Matrix({"n": [1, 2]})
    run.submit(
        job("first", "my_id"),
        job(
            "items",
            "give",
            matrix=numbers,
            with_={"value": 1},
            needs=("first",),
            max_parallel=1,
            deferred=True,
        ),
    )
    work(max_jobs=1)
    assert queued(connection) == [f"{GROUP}--0"]
    late = get_job(f"{GROUP}--1", connection)
    Queue("later", connection=connection).enqueue("operator.add", 1, 1, blocked_by=late)
    work()
    assert run.states["items[2]"] == "deferred"
    work(None, "later")
    work()
    assert run.state == "succeeded"


def test_the_limit_of_the_workflow_counts_all_jobs(
    run: Runs, work: Work, connection: Redis
) -> None:
    names = ("a", "b", "c", "d")
    run.submit(*(job(name, "my_id") for name in names), max_parallel=2)
    assert len(queued(connection)) == 2
    work(max_jobs=1)
    assert len(queued(connection)) == 2
    work()
    assert run.state == "succeeded"


def test_both_limits_hold(run: Runs, work: Work, connection: Redis) -> None:
    run.submit(
        job("items", "give", for_each=each([1, 2, 3, 4]), with_=VALUE, max_parallel=3),
        job("other", "my_id"),
        max_parallel=2,
    )
    seen = set()
    while run.state == "running":
        seen.add(len(queued(connection)))
        work(max_jobs=1)
    assert max(seen) == 2
    assert run.state == "succeeded"


def test_canceled_jobs_do_not_wait_on(run: Runs, work: Work, connection: Redis) -> None:
    run.submit(job("items", "give", for_each=each([1, 2, 3]), with_=VALUE, max_parallel=1))
    work(max_jobs=1)
    runs.cancel(RUN, connection)
    assert run.state == "canceled"
    assert connection.exists(SLOTS, WAITING) == 0
    assert queued(connection) == []
    retry.retry(RUN, connection)
    work()
    assert run.state == "succeeded"


# Ends of a whole group ---------------------------------------------------------------------------


@pytest.mark.parametrize("max_parallel", [None, 1])
def test_fail_fast_cancels_what_has_not_started(
    max_parallel: int | None, run: Runs, work: Work, tidy: Callable[[], None]
) -> None:
    run.submit(
        job("total", "give", with_={"value": "${{ jobs.items.results }}"}),
        job(
            "items",
            "fail_if",
            for_each=each([1, 2, 3, 4]),
            with_=VALUE | {"bad": 2},
            fail_fast=True,
            max_parallel=max_parallel,
        ),
    )
    work(max_jobs=3)
    tidy()
    work()
    states = [run.states[f"items[{index}]"] for index in range(4)]
    assert states == ["finished", "failed", "canceled", "canceled"]
    assert run.reason("items[3]") == "items[1] failed"
    assert run.states["total"] == "skipped"
    assert run.state == "failed"
    retry.retry(RUN, run.connection)
    work(max_jobs=1)
    tidy()
    work()
    assert run.states["items[3]"] == "canceled"


def test_items_that_come_after_a_group_was_closed_end_like_the_others(
    run: Runs, work: Work, connection: Redis, tidy: Callable[[], None]
) -> None:
    run.submit(job("items", "give", for_each=each([1, 2, 3]), with_=VALUE))
    connection.hset(keys.group(GROUP), mapping={"closed": "canceled", "reason": "too late"})
    work()
    assert [run.states[f"items[{index}]"] for index in range(3)] == ["canceled"] * 3
    assert run.reason("items[1]") == "too late"


def test_stop_when_skips_the_rest_neutrally(
    run: Runs, work: Work, tidy: Callable[[], None]
) -> None:
    run.submit(
        job("best", "give", with_={"value": "${{ jobs.items.results }}"}),
        job("items", "give", for_each=each([1, 5, 9, 7], stop_when="result > 4"), with_=VALUE),
    )
    work(max_jobs=3)
    tidy()
    work()
    assert run.state == "succeeded"
    assert run.result("best") == [1, 5, None, None]
    assert run.states["items[2]"] == "skipped"
    assert run.reason("items[2]") == "items[1]: `stop_when` is true"


def test_stop_when_of_a_matrix(run: Runs, work: Work, tidy: Callable[[], None]) -> None:
    numbers = Matrix({"n": [1, 2, 3]}, stop_when="result >= matrix.n")
    run.submit(job("items", "give", matrix=numbers, with_={"value": "${{ matrix.n }}"}))
    work(max_jobs=1)
    tidy()
    work()
    assert list(run.states.values()) == ["finished", "skipped", "skipped"]
    assert run.state == "succeeded"


def test_what_is_deleted_behind_our_back_gives_its_slot_back_and_the_run_ends(
    run: Runs, work: Work, connection: Redis
) -> None:
    run.submit(
        job("total", "give", with_={"value": "${{ jobs.items.results }}"}),
        job("items", "give", for_each=each([1, 2, 3]), with_=VALUE, max_parallel=1),
    )
    work(max_jobs=1)
    connection.delete(keys.queue("default"), keys.job(f"{GROUP}--0"))
    maintenance.examine(connection)
    work()
    assert run.states["items[0]"] == "deleted"
    assert run.states["items[2]"] == "finished"
    assert run.states["total"] == "skipped"
    assert run.state == "failed"
