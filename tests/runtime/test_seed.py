"""The seed's text, word by word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from rq.registry import DeferredJobRegistry

from flowq.errors import FutureAlreadyStarted, NotAFutureJob, UsageError
from flowq.runtime.job import Job, get_job, release_job
from flowq.runtime.queue import Queue

Work = Callable[..., None]


def ids_in_list(connection: redis.Redis, future: Job) -> list[str]:
    assert connection.type(f"rq:deferred:{future.id}") == b"list"
    return [job_id.decode() for job_id in connection.lrange(f"rq:deferred:{future.id}", 0, -1)]


def test_a_future_job_is_deferred_and_no_worker_runs_it(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future_job = queue.enqueue("operator.add", 1, 2, deferred=True)
    assert future_job.get_status() == "deferred"
    assert future_job.id in DeferredJobRegistry("default", connection=connection)
    work()
    assert future_job.get_status() == "deferred"
    assert queue.count == 0


def test_blockers_are_deferred_and_listed_in_the_order_of_their_addition(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future_job = queue.enqueue("operator.add", 1, 2, deferred=True)
    first = queue.enqueue("operator.add", 1, 1, blocked_by=future_job)
    second = queue.enqueue("operator.add", 2, 2, blocked_by=future_job.id)
    third = queue.enqueue("operator.add", 3, 3, blocks=[future_job])
    assert [job.get_status() for job in (first, second, third)] == ["deferred"] * 3
    assert ids_in_list(connection, future_job) == [first.id, second.id, third.id]
    work()
    assert [job.get_status() for job in (first, second, third)] == ["deferred"] * 3


def test_release_queues_the_blockers_in_order_and_the_future_job_after_the_last_of_them(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future_job = queue.enqueue("operator.add", 1, 2, deferred=True)
    blockers = [queue.enqueue("operator.add", n, n, blocked_by=future_job) for n in range(3)]
    assert future_job.release() is True
    assert queue.job_ids == [job.id for job in blockers]
    assert [job.get_status() for job in blockers] == ["queued"] * 3
    assert future_job.get_status() == "deferred"
    work(max_jobs=2)
    assert future_job.get_status() == "deferred"
    work(max_jobs=1)
    assert future_job.get_status() == "queued"
    work()
    assert future_job.get_status() == "finished"
    assert future_job.return_value() == 3
    assert ids_in_list(connection, future_job) == [job.id for job in blockers]


def test_the_list_also_has_what_was_added_after_the_release(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future_job = queue.enqueue("operator.add", 1, 2, deferred=True)
    first = queue.enqueue("operator.add", 1, 1, blocked_by=future_job)
    future_job.release()
    late = queue.enqueue("operator.add", 2, 2, blocked_by=future_job)
    assert late.get_status() == "queued"
    work(max_jobs=1)
    assert future_job.get_status() == "deferred"
    work()
    assert future_job.get_status() == "finished"
    assert ids_in_list(connection, future_job) == [first.id, late.id]


def test_a_blocker_of_two_future_jobs_is_in_the_list_of_each_and_waits_for_both_releases(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    one = queue.enqueue("operator.add", 1, 1, deferred=True)
    two = queue.enqueue("operator.add", 2, 2, deferred=True)
    shared = queue.enqueue("operator.add", 0, 0, blocked_by=[one, two])
    assert ids_in_list(connection, one) == ids_in_list(connection, two) == [shared.id]
    one.release()
    assert shared.get_status() == "deferred"
    two.release()
    assert shared.get_status() == "queued"
    work()
    assert [job.get_status() for job in (one, two)] == ["finished", "finished"]


def test_a_future_job_without_blockers_is_queued_by_its_release(queue: Queue) -> None:
    future_job = queue.enqueue("operator.add", 1, 2, deferred=True)
    future_job.release()
    assert future_job.get_status() == "queued"
    assert queue.job_ids == [future_job.id]


def test_release_job_takes_a_job_without_a_connection_and_an_id_with_one(
    queue: Queue, connection: redis.Redis
) -> None:
    by_job, by_id, by_rq_job = (
        queue.enqueue("operator.add", 1, 2, deferred=True) for _ in range(3)
    )
    assert release_job(by_job) is True
    assert release_job(by_id.id, connection=connection) is True
    from rq.job import Job as RQJob

    assert release_job(RQJob.fetch(by_rq_job.id, connection=connection)) is True
    assert [job.get_status() for job in (by_job, by_id, by_rq_job)] == ["queued"] * 3
    with pytest.raises(UsageError, match="needs connection="):
        release_job(by_id.id)
    with pytest.raises(UsageError, match="takes a future job or its id, not None"):
        release_job(None, connection=connection)  # type: ignore[arg-type]


def test_release_twice_changes_nothing(
    queue: Queue, work: Work, dump: Callable[[], dict[bytes, Any]]
) -> None:
    future_job = queue.enqueue("operator.add", 1, 2, deferred=True)
    queue.enqueue("operator.add", 1, 1, blocked_by=future_job)
    assert future_job.release() is True
    before = dump()
    assert future_job.release() is False
    assert dump() == before
    work(max_jobs=1)
    before = dump()
    assert future_job.get_status() == "queued"
    assert future_job.release() is False
    assert dump() == before


def test_a_fetched_job_knows_what_it_is(queue: Queue, connection: redis.Redis) -> None:
    future_job = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future_job)
    fetched = Job.fetch(future_job.id, connection=connection)
    assert fetched.is_future
    assert not get_job(blocker.id, connection).is_future
    assert Job.fetch(blocker.id, connection=connection).future_ids == (future_job.id,)
    assert fetched.release() is True


def test_blockers_after_the_future_job_was_queued_are_refused(queue: Queue, work: Work) -> None:
    future_job = queue.enqueue("operator.add", 1, 2, deferred=True)
    future_job.release()
    with pytest.raises(FutureAlreadyStarted):
        queue.enqueue("operator.add", 1, 1, blocked_by=future_job)


def test_an_ordinary_job_cannot_be_released(queue: Queue) -> None:
    job = queue.enqueue("operator.add", 1, 2)
    with pytest.raises(NotAFutureJob):
        release_job(job)


def test_any_graph_can_be_built_of_edges(queue: Queue, work: Work, tmp_path: Any) -> None:
    """A diamond of diamonds: every join is a future job, every edge one blocked_by."""
    log = str(tmp_path / "log")
    last = queue.enqueue("runtime_jobs.note", log, "last", deferred=True)
    left = queue.enqueue("runtime_jobs.note", log, "left", deferred=True, blocked_by=last)
    right = queue.enqueue("runtime_jobs.note", log, "right", deferred=True, blocked_by=last)
    queue.enqueue("runtime_jobs.note", log, "first", blocked_by=[left, right])
    for job in (last, right, left):
        job.release()
    work()
    order = (tmp_path / "log").read_text().split()
    assert order[0] == "first"
    assert sorted(order[1:3]) == ["left", "right"]
    assert order[3:] == ["last"]


def test_a_blocker_that_nobody_releases_holds(queue: Queue, work: Work) -> None:
    outer = queue.enqueue("operator.add", 1, 2, deferred=True)
    inner = queue.enqueue("operator.add", 1, 2, deferred=True, blocked_by=outer)
    outer.release()
    work()
    assert (outer.get_status(), inner.get_status()) == ("deferred", "deferred")
    inner.release()
    work()
    assert (outer.get_status(), inner.get_status()) == ("finished", "finished")


def test_a_future_job_whose_blockers_have_run_waits_for_the_release_of_what_it_blocks(
    queue: Queue, work: Work
) -> None:
    outer = queue.enqueue("operator.add", 1, 2, deferred=True)
    inner = queue.enqueue("operator.add", 1, 2, deferred=True, blocked_by=outer)
    leaf = queue.enqueue("operator.add", 1, 2, blocked_by=inner)
    inner.release()
    work()
    assert (leaf.get_status(), inner.get_status()) == ("finished", "deferred")
    outer.release()
    assert inner.get_status() == "queued"


def test_the_snippets_run_with_flowq_imported_as_rq(connection: redis.Redis, work: Work) -> None:
    import flowq as rq

    queue = rq.Queue(connection=connection)
    future_job = queue.enqueue("operator.add", 1, 2, deferred=True)
    queue.enqueue("operator.add", 1, 1, blocked_by=future_job)
    queue.enqueue("operator.add", 2, 2, blocked_by=future_job)
    assert rq.release_job(future_job)
    work()
    assert future_job.get_status() == "finished"
    assert isinstance(rq.Edge(future_job), rq.Edge)
    assert queue.job_class is rq.Job
