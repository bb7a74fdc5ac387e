"""Jobs that sleep or poll, in workers that are killed meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

from flowq.runtime import keys, runs
from flowq.spec import JobSpec, Poll
from tests.runtime.language import RUN, Runs, job
from tests.workers.forked_workers import ForkedWorker


def test_a_pause_outlives_every_worker(
    connection: redis.Redis,
    start_worker: Callable[..., ForkedWorker],
    wait_until: Callable[..., None],
    mode: str,
) -> None:
    run = Runs(connection)
    ready = job("ready", "count_up", poll=Poll("result == 2", 1.5))
    run.submit(JobSpec("nap", sleep="1500ms"), ready)
    first = start_worker(mode=mode)
    scheduled = keys.scheduled("default")
    wait_until(lambda: connection.zcard(scheduled) == 2, 60)
    due_at = dict(connection.zrange(scheduled, 0, -1, withscores=True))
    first.kill()
    first.wait()
    second = start_worker(mode=mode)
    wait_until(lambda: run.state == "succeeded", 60)
    second.kill()
    status = run.status.jobs
    assert time.time() >= max(due_at.values())
    assert (status["nap"].attempts, status["ready"].attempts) == (1, 1)
    record = runs.read_job_records([f"{RUN}-ready"], connection)[f"{RUN}-ready"]
    assert record.polls is not None
    assert record.polls.count == 1
