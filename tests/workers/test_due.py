"""Jobs that wait for an instant: retries after a pause, repeats, `enqueue_in`. Never early."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import redis
import rq
import worker_jobs
from rq.job import JobStatus
from rq.scheduler import RQScheduler

import flowq
from flowq.runtime import keys
from flowq.runtime.connections import read_clock
from flowq.runtime.maintenance import Lease
from flowq.runtime.queue import Queue
from flowq.runtime.rq import make_retry
from flowq.workers.address import address_of
from flowq.workers.children import Pool
from flowq.workers.estimates import Estimates
from flowq.workers.messages import Settings
from flowq.workers.monitor import Monitor
from flowq.workers.periodic import PeriodicWork
from flowq.workers.redis_side import RedisSide
from flowq.workers.wakeup import Wakeup
from tests import JOBS_FOLDER
from tests.workers.forked_workers import ForkedWorker

Start = Callable[..., ForkedWorker]
Wait = Callable[..., None]


def test_a_retry_starts_no_earlier_than_its_pause(
    queue: Queue, start_worker: Start, wait_until: Wait, mode: str
) -> None:
    start_worker(mode=mode)
    jobs = {
        pause_s: queue.enqueue(
            worker_jobs.fail_twice, f"starts-{pause_s}", retry=make_retry(2, [pause_s])
        )
        for pause_s in (0.3, 0.45, 1)
    }
    for pause_s, job in jobs.items():
        wait_until(lambda job=job: job.get_status() is JobStatus.FINISHED, 20)
        starts = [float(at) for at in queue.connection.lrange(f"starts-{pause_s}", 0, -1)]
        assert len(starts) == 3
        assert all(later - earlier >= pause_s for earlier, later in pairwise(starts))


def test_no_retry_is_early_with_rqs_worker(queue: Queue, wait_until: Wait, redis_url: str) -> None:
    job = queue.enqueue(worker_jobs.fail_twice, "starts", retry=rq.Retry(2, interval=1))
    classes = ["--job-class", "flowq.Job", "--queue-class", "flowq.Queue"]
    rq_command = str(Path(sys.executable).with_name("rq"))
    worker = subprocess.Popen(
        [rq_command, "worker", "-u", redis_url, "-P", JOBS_FOLDER, "--with-scheduler", *classes],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: job.get_status() is JobStatus.FINISHED, 30)
    finally:
        worker.terminate()  # so that its scheduler ends too
        worker.wait(60)
    starts = [float(at) for at in queue.connection.lrange("starts", 0, -1)]
    assert all(later - earlier >= 1 for earlier, later in pairwise(starts))


def test_what_is_scheduled_keeps_its_instant(queue: Queue) -> None:
    at = datetime(2040, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    jobs = [
        queue.enqueue_at(at, worker_jobs.nothing),
        queue.enqueue_at(at, worker_jobs.nothing, job_id="one", unique=True),
        queue.enqueue_at(at, worker_jobs.nothing, retry=rq.Retry(1)),
    ]
    with queue.connection.pipeline() as pipeline:
        jobs.append(queue.create_job(worker_jobs.nothing))
        queue.schedule_job(jobs[-1], at, pipeline=pipeline)
        pipeline.execute()
    registry = queue.scheduled_job_registry
    assert [registry.get_scheduled_time(job) for job in jobs] == [at] * 4


def test_a_repeat_keeps_its_instant(queue: Queue, drain: Callable[..., flowq.Worker]) -> None:
    job = queue.enqueue(worker_jobs.nothing, repeat=rq.Repeat(1, interval=100))
    before = time.time()
    drain()
    due_at = queue.connection.zscore(keys.scheduled(queue.name), job.id)
    assert due_at >= before + 100
    assert due_at % 1


def test_rqs_scheduler_takes_a_job_in_the_second_after_its_instant(queue: Queue) -> None:
    now = int(time.time())
    job = queue.enqueue_at(datetime.fromtimestamp(now + 0.5, UTC), worker_jobs.nothing)
    registry = queue.scheduled_job_registry
    assert registry.get_jobs_to_schedule(now) == []
    assert registry.get_jobs_to_schedule(now + 1) == [job.id]


def test_a_pause_of_parts_of_a_second_is_kept_as_it_is(queue: Queue) -> None:
    poll = flowq.job(retries={"max": 2, "backoff": "400ms"}, connection=queue.connection)
    assert poll(worker_jobs.nothing).enqueue().retry_intervals == [0.4]
    assert make_retry(2, [3.0]).intervals == [3]
    assert make_retry(0, [3.0]) is None


def test_an_idle_worker_looks_again_at_the_instant_of_the_next_job_and_not_before(
    connection: redis.Redis, queue: Queue
) -> None:
    address = address_of(connection)
    pool = Pool(1, "warm", Settings("w", address), None)
    periodic = PeriodicWork(
        RedisSide(connection, "w", ["default"], 30),
        Monitor(pool, Estimates(batches=False), 1.0),
        Wakeup(address, "commands", [keys.queue("default")], [keys.scheduled("default")]),
        lease=Lease(),
        worker_ttl_s=420,
        maintenance_s=600,
        max_crashes=3,
    )
    for duty in periodic.duties:
        duty.due_at = math.inf
    periodic.redis_side.queue_due()  # the first call takes longer
    job = queue.enqueue_in(timedelta(seconds=0.4321), worker_jobs.nothing)
    due_s = queue.connection.zscore(keys.scheduled("default"), job.id)
    periodic.look_at_schedules()
    server_before, before = read_clock(connection), time.monotonic()
    periodic.do_due()
    after, server_after = time.monotonic(), read_clock(connection)
    rounding_s = 0.001  # the server answers with milliseconds, rounded up
    assert periodic.due_at - after <= due_s - server_before + rounding_s
    assert periodic.due_at - before >= due_s - server_after


def test_a_worker_hears_when_a_schedule_changes(
    connection: redis.Redis, queue: Queue, wait_until: Wait
) -> None:
    heard: list[str] = []
    bell = Wakeup(
        address_of(connection), "commands", [keys.queue("default")], [keys.scheduled("default")]
    )
    bell.call_on_schedule(lambda: heard.append("schedule"))
    bell.open()
    try:
        bell.watch_schedules()
        assert bell.arm()
        queue.enqueue_in(timedelta(seconds=9), worker_jobs.nothing)
        wait_until(lambda: bell.listen() or heard)
        assert heard == ["schedule"]
        assert bell.is_armed  # nobody has queued anything
        queue.enqueue_in(timedelta(seconds=9), worker_jobs.nothing)
        queue.enqueue(worker_jobs.nothing)
        wait_until(lambda: bell.listen() or bell.is_set)
        assert heard == ["schedule"]  # once for each time that it was asked
        bell.watch_schedules()
        connection.flushdb()
        wait_until(lambda: bell.listen() or heard == ["schedule"] * 2)
    finally:
        bell.close()


def test_a_worker_that_ends_gives_rqs_scheduler_its_turn(
    queue: Queue, start_worker: Start, drain: Callable[..., flowq.Worker], wait_until: Wait
) -> None:
    other = start_worker(name="other")
    wait_until(lambda: queue.connection.exists("rq:scheduler-lock:default"), 10)
    drain()
    assert queue.connection.get("rq:scheduler-lock:default") == b"flowq"
    other.terminate()
    assert other.wait(60) == 0
    scheduler = RQScheduler([queue], connection=queue.connection)
    assert scheduler.acquire_locks() == {"default"}


def test_a_worker_leaves_the_lock_of_rqs_scheduler_alone(
    queue: Queue, drain: Callable[..., flowq.Worker]
) -> None:
    scheduler = RQScheduler([queue], connection=queue.connection)
    scheduler.acquire_locks()
    owner = queue.connection.get("rq:scheduler-lock:default")
    drain()
    assert queue.connection.get("rq:scheduler-lock:default") == owner
