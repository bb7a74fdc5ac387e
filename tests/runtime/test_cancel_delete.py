"""Calling off: what goes with a future job, and what stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from rq.exceptions import InvalidJobOperation

from flowq.errors import FutureEnded
from flowq.runtime import keys
from flowq.runtime.job import Job, get_job
from flowq.runtime.queue import Queue
from flowq.runtime.steps import run_steps, step

Work = Callable[..., None]

FORGOTTEN = keys.FORGOTTEN.encode()  # what trims the registry of canceled jobs
METRICS = keys.METRICS.encode()  # one hash of counts


def statuses(*jobs: Job) -> list[str]:
    return [job.get_status().value for job in jobs]


def keys_without_ttl(connection: redis.Redis) -> set[bytes]:
    while run_steps(connection):
        pass
    return {key for key in connection.keys("*") if connection.ttl(key) == -1}


def test_canceling_an_open_future_job_cancels_its_held_blockers(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blockers = [queue.enqueue("operator.add", 1, 1, blocked_by=future) for _ in range(3)]
    future.cancel()
    assert statuses(future, *blockers) == ["canceled"] * 4
    assert connection.exists("rq:deferred:default", "rq:queue:default") == 0
    assert connection.zcard("rq:canceled:default") == 4
    work()
    assert statuses(future, *blockers) == ["canceled"] * 4
    stays = {b"rq:queues", b"rq:canceled:default", FORGOTTEN, METRICS}
    assert keys_without_ttl(connection) == stays
    assert 0 < connection.ttl(future.key) <= 86_400


def test_it_goes_down_through_nested_future_jobs(queue: Queue, connection: redis.Redis) -> None:
    top = queue.enqueue("operator.add", 1, 2, deferred=True)
    chain = [top]
    for _ in range(5):
        chain.append(queue.enqueue("operator.add", 1, 2, deferred=True, blocked_by=chain[-1]))
    leaf = queue.enqueue("operator.add", 1, 1, blocked_by=chain[-1])
    top.cancel()
    assert set(statuses(*chain, leaf)) == {"canceled"}
    assert connection.exists(keys.TODO) == 0


def test_a_blocker_that_blocks_something_else_stays(queue: Queue, work: Work) -> None:
    canceled, kept = (queue.enqueue("operator.add", 1, 2, deferred=True) for _ in range(2))
    shared = queue.enqueue("operator.add", 1, 1, blocked_by=[canceled, kept])
    only = queue.enqueue("operator.add", 1, 1, blocked_by=canceled)
    canceled.cancel()
    assert statuses(shared, only) == ["deferred", "canceled"]
    kept.release()
    assert statuses(shared) == ["queued"]
    work()
    assert statuses(shared, kept) == ["finished", "finished"]


def test_the_cancel_of_the_last_open_future_job_frees_a_shared_blocker(
    queue: Queue, work: Work
) -> None:
    released, open_ = (queue.enqueue("operator.add", 1, 2, deferred=True) for _ in range(2))
    shared = queue.enqueue("operator.add", 1, 1, blocked_by=[released, open_])
    released.release()
    assert statuses(shared) == ["deferred"]
    open_.cancel()
    assert statuses(shared) == ["queued"]
    work()
    assert statuses(released) == ["finished"]


def test_when_the_last_of_its_future_jobs_is_canceled_a_shared_blocker_goes_too(
    queue: Queue,
) -> None:
    one, two = (queue.enqueue("operator.add", 1, 2, deferred=True) for _ in range(2))
    shared = queue.enqueue("operator.add", 1, 1, blocked_by=[one, two])
    one.cancel()
    assert statuses(shared) == ["deferred"]
    two.cancel()
    assert statuses(shared) == ["canceled"]


def test_after_the_release_the_future_job_is_canceled_alone(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    early = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    nested = queue.enqueue("operator.add", 1, 1, blocked_by=future, deferred=True)
    future.release()
    late = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    late_nested = queue.enqueue("operator.add", 1, 1, blocked_by=future, deferred=True)
    future.cancel()
    assert statuses(future, early, late) == ["canceled", "queued", "queued"]
    assert statuses(nested, late_nested) == ["deferred", "deferred"]
    for job in (nested, late_nested):
        job.release()
    work()
    assert set(statuses(early, nested, late, late_nested)) == {"finished"}
    assert keys_without_ttl(connection) == {
        b"rq:queues",
        METRICS,
        b"rq:canceled:default",
        FORGOTTEN,
        b"rq:finished:default",
    }


def test_a_late_blocker_keeps_the_gate_of_its_other_future_job_when_one_is_canceled(
    queue: Queue,
) -> None:
    released, open_ = (queue.enqueue("operator.add", 1, 2, deferred=True) for _ in range(2))
    queue.enqueue("operator.add", 1, 1, blocked_by=released)
    released.release()
    shared = queue.enqueue("operator.add", 1, 1, blocked_by=[released, open_])
    released.cancel()
    assert statuses(shared) == ["deferred"]
    open_.release()
    assert statuses(shared) == ["queued"]


def test_a_canceled_blocker_holds_by_default(queue: Queue, work: Work) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    blocker.cancel()
    future.release()
    work()
    assert statuses(future) == ["deferred"]
    assert blocker.connection.ttl(blocker.key) == -1, "somebody may still decide to delete it"
    blocker.delete()
    assert statuses(future) == ["queued"]


def test_a_cancel_of_a_nested_future_job_holds_the_outer_one(queue: Queue, work: Work) -> None:
    outer = queue.enqueue("operator.add", 1, 2, deferred=True, on_blocker_failure="run")
    inner = queue.enqueue("operator.add", 1, 2, deferred=True, blocked_by=outer)
    leaf = queue.enqueue("operator.add", 1, 1, blocked_by=inner)
    outer.release()
    inner.cancel()
    assert statuses(leaf, outer) == ["canceled", "queued"]


def test_cancel_in_a_callers_pipeline(queue: Queue, connection: redis.Redis, work: Work) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    with connection.pipeline() as pipeline:
        future.cancel(pipeline=pipeline)
        assert statuses(future) == ["deferred"]
        pipeline.execute()
    run_steps(connection)
    assert statuses(future, blocker) == ["canceled", "canceled"]


def test_canceling_twice_is_refused_as_rq_does(queue: Queue, dump: Callable[[], Any]) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    future.cancel()
    before = dump()
    with pytest.raises(InvalidJobOperation):
        future.cancel()
    assert dump() == before


def test_deleting_an_open_future_job_cancels_its_blockers_and_leaves_nothing_of_it(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    nested = queue.enqueue("operator.add", 1, 2, deferred=True, blocked_by=future)
    leaf = queue.enqueue("operator.add", 1, 1, blocked_by=nested)
    future.delete()
    assert statuses(nested, leaf) == ["canceled", "canceled"]
    assert not [key for key in connection.keys("*") if future.id.encode() in key]
    assert connection.exists(keys.TODO) == 0
    work()
    assert statuses(nested, leaf) == ["canceled", "canceled"]


def test_a_delete_whose_process_died_is_finished_by_others_in_any_order(
    queue: Queue, connection: redis.Redis
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    with connection.pipeline() as pipeline:
        future.delete(pipeline=pipeline)
        pipeline.execute()
    step(connection, f"retire:{future.id}")  # which must not take the list away
    while run_steps(connection):
        pass
    assert statuses(blocker) == ["canceled"]
    assert not [key for key in connection.keys("*") if future.id.encode() in key]


def test_deleting_everything_leaves_nothing(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    outer = queue.enqueue("operator.add", 1, 2, deferred=True, ttl=500)
    inner = queue.enqueue("operator.add", 1, 2, deferred=True, blocked_by=outer)
    failing = queue.enqueue("runtime_jobs.fail", blocked_by=[inner, outer])
    dependency = Queue("slow", connection=connection).enqueue("operator.add", 0, 0)
    waiting = queue.enqueue("operator.add", 1, 1, blocked_by=outer, depends_on=dependency)
    inner.release()
    outer.release()
    work()
    for job in (failing, waiting, dependency, inner, outer):
        get_job(job.id, connection).delete()
    run_steps(connection)
    rest = {key for key in connection.keys("*") if not key.startswith((b"rq:worker", b"rq:clean"))}
    assert rest == {b"rq:queues", METRICS}


def test_deleting_a_finished_future_job_leaves_nothing_of_it(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    work()
    get_job(future.id, connection).delete()
    assert not [key for key in connection.keys("*") if future.id.encode() in key]
    assert 0 < connection.ttl(blocker.key) <= 500


def test_a_canceled_future_job_takes_no_more_blockers(queue: Queue) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    future.cancel()
    with pytest.raises(FutureEnded):
        queue.enqueue("operator.add", 1, 1, blocked_by=future)
