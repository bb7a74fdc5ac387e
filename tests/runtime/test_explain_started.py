"""What `explain` says of a job that has started: who executes it, and whether that is still so."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from rq import Worker as RQWorker

from flowq.runtime import keys
from flowq.runtime.explain import Reason, explain
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.workers.redis_side import Capacity, RedisSide


@pytest.fixture
def listen(connection: Redis) -> Iterator[Callable[[str], None]]:
    """`listen(worker)`: it is connected, and listens to commands."""
    with connection.pubsub() as commands:

        def begin(worker: str) -> None:
            commands.subscribe(keys.commands(worker))
            assert commands.get_message(timeout=60)

        yield begin


@pytest.fixture
def job(connection: Redis) -> Job:
    """A future job that a worker of ours, called w, has begun."""
    queue = Queue(connection=connection)
    made = queue.enqueue("runtime_jobs.fail", deferred=True, job_id="j")
    assert isinstance(made, Job)
    made.release()
    redis_side = RedisSide(connection, "w", ["default"], 30)
    redis_side.turn([], Capacity(1, 1, 1))
    redis_side.beat(5.0, 400, [])
    return made


def why(job: Job) -> Reason:
    (reason,) = explain(job.id, job.connection).reasons
    return reason


def fall_silent(connection: Redis, worker: str, for_s: float) -> None:
    """As if the worker had been heard of last so long ago."""
    connection.zincrby(keys.WORKERS, -for_s, worker)


def test_a_worker_that_is_heard_of_is_executing_it(job: Job, listen: Callable[[str], None]) -> None:
    listen("w")
    assert why(job) == Reason("started", "worker w is executing it")


def test_a_worker_whose_connection_is_closed_was_executing_it(job: Job) -> None:
    assert why(job).text.startswith("worker w was executing it")  # though its lease is not over


def test_a_worker_that_has_died_was_executing_it_and_others_will(
    job: Job, connection: Redis, listen: Callable[[str], None]
) -> None:
    fall_silent(connection, "w", 60)
    connection.hset(keys.worker("w"), "last_heartbeat", "2026-01-02T03:04:05.000000Z")
    reason = why(job)
    assert reason.text.startswith("worker w was executing it, and has sent no heartbeat for ")
    assert reason.text.endswith(" s, since 2026-01-02 03:04:05 UTC")
    assert (
        reason.hint
        == "no other worker is alive that queues it again; start one: flowq worker default"
    )
    RedisSide(connection, "other", ["default"], 30).beat(5.0, 400, [])
    listen("other")
    connection.hset(job.key, "flowq_crashes", 1)
    assert why(job).hint == (
        "unless its heartbeats return, another worker queues it again within 10 s; "
        "it was lost once before"
    )
    connection.hset(job.key, "flowq_on_crash", "fail")
    assert "another worker fails it within 10 s" in why(job).hint


def test_a_worker_of_rqs_counts_as_alive_as_long_as_rq_says_so(connection: Redis) -> None:
    queue = Queue(connection=connection)
    made = queue.enqueue("runtime_jobs.fail", deferred=True, job_id="j")
    assert isinstance(made, Job)
    made.release()
    worker = RQWorker([queue], connection=connection, name="rqs", job_class=Job)
    worker.register_birth()
    worker.prepare_execution(made)
    worker.prepare_job_execution(made)
    assert why(made) == Reason("started", "worker rqs is executing it")
    [entry] = connection.zrange("rq:wip:default", 0, -1)
    connection.zadd("rq:wip:default", {entry: 1})
    assert why(made).text.startswith("worker rqs was executing it, and has sent no heartbeat")
    assert "RQ's clean-up" in why(made).hint
