"""Processes that die between two of their calls."""

from __future__ import annotations

from collections.abc import Callable

import redis
from rq import Retry
from rq.job import JobStatus

from flowq.plan import Commit, Enqueue, Plan, Release
from flowq.runtime import runs
from flowq.runtime.queue import Queue


def test_a_death_before_the_transaction_of_a_retry_leaves_the_job_started(
    queue: Queue, work: Callable[..., None]
) -> None:
    job = queue.enqueue("runtime_jobs.fail", retry=Retry(max=2, interval=60), deferred=True)
    job.release()
    job.set_status(JobStatus.STARTED)
    with queue.connection.pipeline() as pipeline:
        job.retry(queue, pipeline)  # and the process dies here
        assert job.get_status() is JobStatus.STARTED
        pipeline.execute()
    assert job.get_status() is JobStatus.SCHEDULED
    assert queue.scheduled_job_registry.get_job_ids() == [job.id]


def test_a_retry_after_a_back_off_is_one_line_in_the_log_of_its_run(
    connection: redis.Redis, work: Callable[..., None]
) -> None:
    enqueue = Enqueue("r1-only", "only", "runtime_jobs:fail", {}, deferred=True)
    runs.submit(Plan("r1", "demo", {}, (enqueue, Commit("r1"), Release("r1-only"))), connection)
    job = Queue(connection=connection).fetch_job("r1-only")
    job.retries_left, job.retry_intervals = 1, [60]
    job.save()
    work()
    states = [event.state for event in runs.read_events("r1", connection) if event.name]
    assert states == ["queued", "started", "scheduled"]
