"""What ended behind our back is found and accounted for."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from rq.job import Job as RQJob

from flowq.errors import UsageError
from flowq.runtime import keys
from flowq.runtime.maintenance import Finding, examine, tidy
from flowq.runtime.queue import Queue

Work = Callable[..., None]


def test_a_blocker_deleted_from_a_dashboard_is_dropped(queue: Queue) -> None:
    last = queue.enqueue("time.time", deferred=True)
    gone = queue.enqueue("time.time", blocks=last)
    last.release()
    RQJob.fetch(gone.id, queue.connection).delete()
    assert examine(queue.connection) == [Finding(gone.id, "deleted", last.id)]
    assert last.get_status() == "queued"


def test_a_blocker_run_by_a_worker_without_our_classes_is_settled(
    queue: Queue, work_plainly: Work
) -> None:
    last = queue.enqueue("time.time", deferred=True)
    blocker = queue.enqueue("time.time", blocks=last)
    last.release()
    work_plainly()
    assert last.is_deferred
    assert examine(queue.connection) == [Finding(blocker.id, "finished", last.id)]
    assert last.get_status() == "queued"
    assert last.blockers[0].status == "finished"


def test_a_blocker_that_failed_under_a_plain_worker_counts_as_failed(
    queue: Queue, work_plainly: Work
) -> None:
    last = queue.enqueue("time.time", deferred=True, on_blocker_failure="skip")
    queue.enqueue("math.sqrt", "no number", blocks=last)
    last.release()
    work_plainly()
    examine(queue.connection)
    assert last.is_canceled
    assert last.connection.hget(last.key, "flowq_outcome") == b"skipped"


def test_a_failed_blocker_deleted_from_a_dashboard_is_dropped(queue: Queue, work: Work) -> None:
    last = queue.enqueue("time.time", deferred=True)
    failed = queue.enqueue("math.sqrt", "no number", blocks=last)
    last.release()
    work()
    assert examine(queue.connection) == []
    RQJob.fetch(failed.id, queue.connection).delete()
    assert examine(queue.connection) == [Finding(failed.id, "deleted", last.id)]
    assert last.get_status() == "queued"


def test_a_failed_blocker_requeued_and_run_by_a_worker_without_our_classes_is_settled(
    queue: Queue, work: Work, work_plainly: Work, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    last = queue.enqueue("time.time", deferred=True)
    failed = queue.enqueue("runtime_jobs.fail_unless", str(flag), blocks=last)
    last.release()
    work()
    flag.touch()
    RQJob.fetch(failed.id, queue.connection).requeue()
    work_plainly()
    assert examine(queue.connection) == [Finding(failed.id, "finished", last.id)]
    assert last.get_status() == "queued"
    assert last.blockers[0].status == "finished"


def test_a_blocker_that_was_lost_between_queue_and_worker_is_put_back(
    queue: Queue, work: Work
) -> None:
    last = queue.enqueue("time.time", deferred=True)
    lost = queue.enqueue("time.time", blocks=last)
    last.release()
    assert queue.connection.lpop(queue.key) == lost.id.encode()  # and its worker dies
    assert examine(queue.connection) == []  # it may be on its way
    queue.connection.hincrbyfloat(lost.key, "flowq_missing", -31)
    assert examine(queue.connection) == [Finding(lost.id, "lost", last.id)]
    assert queue.job_ids == [lost.id]
    work()
    assert last.is_finished


def test_a_healthy_future_job_is_left_alone(queue: Queue) -> None:
    last = queue.enqueue("time.time", deferred=True)
    queue.enqueue("time.time", blocks=last)
    last.release()
    assert examine(queue.connection) == []
    assert last.is_deferred


def test_a_pass_looks_only_at_what_is_due(queue: Queue) -> None:
    last = queue.enqueue("time.time", deferred=True)
    gone = queue.enqueue("time.time", blocks=last)
    last.release()
    RQJob.fetch(gone.id, queue.connection).delete()
    assert tidy(queue.connection) == []
    queue.connection.zadd(keys.WATCHED, {last.id: 0})
    assert [finding.what for finding in tidy(queue.connection)] == ["deleted"]
    assert queue.connection.zcard(keys.WATCHED) == 0


def test_a_look_at_many_blockers_goes_in_steps(queue: Queue) -> None:
    last = queue.enqueue("time.time", deferred=True)
    datas = [queue.prepare_data("time.time", blocks=last) for _ in range(500)]  # type: ignore[call-arg]
    blockers = queue.enqueue_many(datas)
    last.release()
    RQJob.fetch(blockers[-1].id, queue.connection).delete()
    queue.connection.zadd(keys.WATCHED, {last.id: 0})
    passes = 0
    while not tidy(queue.connection):
        passes += 1
    assert 0 <= passes <= 10
    assert last.connection.hget(keys.future(last.id), "pending") == b"499"


def test_a_future_job_that_is_not_released_in_time_is_canceled_with_its_blockers(
    queue: Queue, connection: redis.Redis
) -> None:
    last = queue.enqueue("time.time", deferred=True, expires=timedelta(milliseconds=1))
    blocker = queue.enqueue("time.time", blocks=last)
    queue.connection.zadd(keys.EXPIRING, {last.id: 0})
    tidy(connection)
    assert last.is_canceled
    assert blocker.is_canceled
    assert b"expired" in connection.hget(last.key, "flowq_reason")
    assert not connection.exists(keys.EXPIRING)


@pytest.mark.parametrize("end", ["release", "cancel", "delete"])
def test_what_was_decided_in_time_does_not_expire(
    queue: Queue, connection: redis.Redis, end: str
) -> None:
    last = queue.enqueue("time.time", deferred=True, expires="1h")
    assert connection.zscore(keys.EXPIRING, last.id) == pytest.approx(time.time() + 3600, abs=60)
    getattr(last, end)()
    assert not connection.exists(keys.EXPIRING)


@pytest.mark.parametrize("wrong", ["soon", -1, 0, timedelta(0), True])
def test_a_time_to_expire_that_is_none_is_refused(queue: Queue, wrong: object) -> None:
    with pytest.raises(UsageError, match="expires"):
        queue.enqueue("time.time", deferred=True, expires=wrong)
    assert not queue.connection.keys()


def test_a_function_keeps_its_own_argument_of_that_name(queue: Queue) -> None:
    job = queue.enqueue("runtime_jobs.any_keyword", expires=5)
    assert job.kwargs == {"expires": 5}


def test_cancel_with_blockers_ends_what_has_not_started_and_blocks_nothing_else(
    queue: Queue, work: Work
) -> None:
    last = queue.enqueue("time.time", deferred=True)
    other = queue.enqueue("time.time", deferred=True)
    inner = queue.enqueue("time.time", deferred=True, blocks=last)
    deep = queue.enqueue("time.time", blocks=inner)
    shared = queue.enqueue("time.time", blocks=[last, other])
    ran = queue.enqueue("time.time", blocks=last, at_front=True)
    for each in (last, other, inner):
        each.release()
    work(1)
    last.cancel(blockers=True)
    assert [job.get_status().value for job in (last, inner, deep, shared, ran)] == [
        "canceled",
        "canceled",
        "canceled",
        "queued",
        "finished",
    ]
    work()
    assert other.is_finished


def test_release_goes_on_to_the_open_future_jobs_when_asked(queue: Queue, work: Work) -> None:
    last = queue.enqueue("time.time", deferred=True)
    inner = queue.enqueue("time.time", deferred=True, blocks=last)
    deep = queue.enqueue("time.time", deferred=True, blocks=inner)
    assert last.release(cascade=True)
    assert not inner.release()
    work()
    assert [job.is_finished for job in (last, inner, deep)] == [True, True, True]


def test_release_leaves_open_future_jobs_alone_otherwise(queue: Queue, work: Work) -> None:
    last = queue.enqueue("time.time", deferred=True)
    inner = queue.enqueue("time.time", deferred=True, blocks=last)
    last.release()
    work()
    assert last.is_deferred
    assert inner.release()
    work()
    assert last.is_finished


def test_the_registry_of_canceled_jobs_forgets_ours_when_they_are_gone(
    queue: Queue, connection: redis.Redis
) -> None:
    last = queue.enqueue("time.time", deferred=True)
    held = queue.enqueue("time.time", blocks=last)
    last.cancel()
    tidy(connection)
    registry = keys.canceled("default")
    assert connection.zcard(registry) == 2
    connection.delete(last.key, held.key)  # a day later
    for entry in connection.zrange(keys.FORGOTTEN, 0, -1):
        connection.zadd(keys.FORGOTTEN, {entry: 0})
    tidy(connection)
    assert not connection.exists(registry, keys.FORGOTTEN)
