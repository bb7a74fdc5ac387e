"""Times to live: what expires, what that means, and that nothing stays for ever."""

from __future__ import annotations

from collections.abc import Callable

import redis
from rq.job import JobStatus

from flowq.runtime.holds import Edge
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue

Work = Callable[..., None]
EdgeOf = Callable[[Job, Job], str]
Tidy = Callable[[], None]


def test_a_job_that_was_deleted_while_it_ran_leaves_nothing_that_never_expires(
    queue: Queue, connection: redis.Redis, work: Work, tidy: Tidy
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("runtime_jobs.delete_me", blocked_by=future, result_ttl=50)
    future.release()
    work()
    assert future.get_status() == "finished"
    tidy()
    assert 0 < connection.ttl(blocker.key) <= 500
    late = queue.enqueue("operator.add", 1, 1, deferred=True)
    late.release()
    connection.delete(late.key)
    late.set_status(JobStatus.FINISHED)  # the success of an execution that outlived its job
    late.save()
    tidy()
    assert 0 < connection.ttl(late.key) <= 500


def test_a_popped_job_whose_ttl_is_over_settles_as_expired(
    queue: Queue, connection: redis.Redis, work: Work, wait_until: Callable[..., None]
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future, ttl=100)
    assert connection.ttl(blocker.key) == -1, "its ttl starts when it is queued"
    future.release()
    assert 0 < connection.ttl(blocker.key) <= 100
    connection.pexpire(blocker.key, 1)
    wait_until(lambda: not connection.exists(blocker.key))
    work()
    assert future.get_status() == "canceled"
    assert connection.hget(future.key, "flowq_reason") == f"{blocker.id} expired".encode()
    assert future.blockers[0].status == "expired"


def test_a_future_job_whose_own_ttl_is_over_leaves_nothing(
    queue: Queue, connection: redis.Redis, work: Work, tidy: Tidy
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True, ttl=10)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    work(max_jobs=1)
    connection.delete(future.key)
    work()
    tidy()
    assert not [key for key in connection.keys("*") if future.id.encode() in key]
    assert 0 < connection.ttl(blocker.key) <= 500


def test_canceled_jobs_that_are_deleted_leave_nothing(
    queue: Queue, connection: redis.Redis, tidy: Tidy
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.cancel()
    tidy()
    blocker.delete()
    future.delete()
    tidy()
    assert set(connection.keys("*")) == {b"rq:queues", b"rq:flowq:1:metrics"}


def test_when_everything_has_ended_only_what_expires_is_left(
    queue: Queue, connection: redis.Redis, work: Work, tidy: Tidy
) -> None:
    last = queue.enqueue("operator.add", 1, 2, deferred=True, result_ttl=100)
    for policy in ("skip", "run", "wait"):
        middle = queue.enqueue(
            "operator.add", 1, 2, deferred=True, on_blocker_failure=policy,
            blocked_by=Edge(last, "ignore"), result_ttl=200,
        )  # fmt: skip
        queue.enqueue("operator.add", 1, 1, blocked_by=[middle, Edge(last, "ignore")])
        queue.enqueue("operator.add", 1, 1, blocked_by=middle, result_ttl=0, ttl=60)
        failing = queue.enqueue("runtime_jobs.fail", blocked_by=middle, failure_ttl=70)
        middle.release()
    last.release()
    work()
    failing.delete()
    work()
    assert last.get_status() == "finished"
    tidy()
    for_ever = {key for key in connection.keys("*") if connection.ttl(key) == -1}
    assert for_ever == {b"rq:queues", b"rq:finished:default", b"rq:failed:default"} | {
        b"rq:canceled:default",
        b"rq:flowq:1:forgotten",  # what trims it
        b"rq:flowq:1:metrics",
    }
    assert connection.zcount("rq:finished:default", "+inf", "+inf") == 0
