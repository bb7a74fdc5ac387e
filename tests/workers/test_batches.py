"""Short jobs travel together, long ones alone; nothing waits behind what takes long."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest
import redis
import worker_jobs
from rq.job import JobStatus

from flowq.runtime.queue import Queue
from flowq.workers.children import Child
from flowq.workers.claims import Claim
from flowq.workers.estimates import BATCH_S, Estimates
from flowq.workers.redis_side import Capacity, RedisSide
from flowq.workers.shared_state import SharedState
from tests.workers.forked_workers import ForkedWorker

Start = Callable[..., ForkedWorker]
Wait = Callable[..., None]


def test_a_kind_is_short_only_after_it_was_seen_to_be() -> None:
    estimates = Estimates()
    assert estimates.cost_by_kind() == {}
    for _ in range(2):
        estimates.learn("quick", 0.0001)
        estimates.learn("slow", 0.1)
    first = estimates.cost_by_kind()
    assert set(first) == {"quick"}
    for _ in range(200):
        estimates.learn("quick", 0.0001)
    assert estimates.cost_by_kind()["quick"] < first["quick"] / 10


def test_a_kind_that_keeps_others_waiting_travels_alone_for_a_while() -> None:
    estimates = Estimates()
    for _ in range(200):
        estimates.learn("kind", 0.0001)
    for _ in range(3):
        estimates.shrink("kind")
    assert estimates.cost_by_kind() == {}
    for _ in range(200):
        estimates.learn("kind", 0.0001)
    assert set(estimates.cost_by_kind()) == {"kind"}


def test_kinds_that_are_long_on_average_travel_alone() -> None:
    estimates = Estimates()
    for _ in range(200):
        estimates.learn("kind", 0.003)
    assert estimates.cost_by_kind() == {}


def test_the_end_of_a_steady_kind_can_be_foreseen() -> None:
    estimates = Estimates()
    for _ in range(20):
        estimates.learn("steady", 0.1)
    for index in range(20):
        estimates.learn("unsteady", 0.02 if index % 2 else 0.2)
    assert 0.04 < estimates.find_lead("steady", 0.05) < 0.05
    assert estimates.find_lead("steady", 0.0999) < 0
    assert estimates.find_lead("steady", 0.2) == inf  # it should have ended: who knows when it will
    assert estimates.find_lead("unsteady", 0.1) == inf
    assert estimates.find_lead("unknown", 0.1) == inf


def test_what_waits_behind_a_job_goes_to_a_child_that_is_idle(
    queue: Queue, drain: Callable[..., Any]
) -> None:
    # The steady ones teach that an end comes after 50 ms; the long one breaks that promise.
    for _ in range(10):
        queue.enqueue(worker_jobs.sleep, 0.05)
    long = queue.enqueue(worker_jobs.sleep, 1.5)
    after = [queue.enqueue(worker_jobs.sleep, 0.05) for _ in range(4)]
    drain(concurrency=2)
    assert long.latest_result() is not None
    ended = [job.latest_result().created_at for job in after]
    assert max(ended) < long.latest_result().created_at


def take(redis_side: RedisSide, *, slots: int, idle: int, costs: dict[str, float]) -> list[str]:
    turn = redis_side.turn([], Capacity(slots, idle, 64, BATCH_S, costs))
    return [claim.kind.rpartition(".")[2] for claim in turn.claims]


@pytest.fixture
def redis_side(connection: redis.Redis) -> RedisSide:
    return RedisSide(connection, "w", ["default"], 30)


def test_unknown_jobs_are_claimed_one_for_each_child(queue: Queue, redis_side: RedisSide) -> None:
    for _ in range(5):
        queue.enqueue(worker_jobs.sleep, 1)
    assert take(redis_side, slots=2, idle=2, costs={}) == ["sleep", "sleep"]


def test_short_jobs_are_claimed_up_to_the_budget(queue: Queue, redis_side: RedisSide) -> None:
    for _ in range(30):
        queue.enqueue(worker_jobs.nothing)
    costs = {"worker_jobs.nothing": BATCH_S / 4}
    assert len(take(redis_side, slots=1, idle=1, costs=costs)) == 4
    assert len(take(redis_side, slots=2, idle=1, costs=costs)) == 8


def test_a_long_job_in_the_queue_ends_a_batch(queue: Queue, redis_side: RedisSide) -> None:
    for function in (worker_jobs.nothing, worker_jobs.nothing, worker_jobs.sleep):
        queue.enqueue(function)
    costs = {"worker_jobs.nothing": BATCH_S / 10}
    assert take(redis_side, slots=1, idle=1, costs=costs) == ["nothing", "nothing"]
    assert take(redis_side, slots=2, idle=2, costs=costs) == ["sleep"]


def test_a_busy_child_is_given_short_jobs_only(queue: Queue, redis_side: RedisSide) -> None:
    queue.enqueue(worker_jobs.sleep)
    assert take(redis_side, slots=1, idle=0, costs={"worker_jobs.nothing": 0.0001}) == []
    assert queue.count == 1


def test_queues_are_served_in_order_of_priority(connection: redis.Redis) -> None:
    for name in ("low", "high"):
        Queue(name, connection=connection).enqueue(worker_jobs.nothing, job_id=name)
    redis_side = RedisSide(connection, "w", ["high", "low"], 30)
    turn = redis_side.turn([], Capacity(2, 2, 2))
    assert [claim.job_id for claim in turn.claims] == ["high", "low"]


def count_turns(redis_side: RedisSide, slots: int) -> list[int]:
    """How many jobs each turn brings, until there are no more."""
    costs = {"worker_jobs.nothing": BATCH_S / 40.5}
    return list(iter(lambda: len(take(redis_side, slots=slots, idle=slots, costs=costs)), 0))


def test_of_the_last_jobs_half_are_taken_at_once(connection: redis.Redis) -> None:
    redis_side = RedisSide(connection, "w", ["high", "low"], 30)
    for name, count in (("high", 70), ("low", 50)):
        queue = Queue(name, connection=connection)
        queue.enqueue_many([Queue.prepare_data(worker_jobs.nothing) for _ in range(count)])
    assert count_turns(redis_side, slots=1) == [40, 40, 20, 10, 5, 4, 1]


def test_as_few_as_are_worth_a_turn_are_not_shared(queue: Queue, redis_side: RedisSide) -> None:
    queue.enqueue_many([Queue.prepare_data(worker_jobs.nothing) for _ in range(20)])
    assert count_turns(redis_side, slots=2) == [10, 8, 2]


def test_a_job_whose_hash_has_expired_is_skipped(queue: Queue, redis_side: RedisSide) -> None:
    gone, there = queue.enqueue(worker_jobs.nothing), queue.enqueue(worker_jobs.nothing)
    queue.connection.delete(gone.key)
    turn = redis_side.turn([], Capacity(1, 1, 1))
    assert [claim.job_id for claim in turn.claims] == [there.id]
    assert queue.count == 0


def test_a_long_job_in_a_batch_gives_the_others_back(
    queue: Queue, start_worker: Start, wait_until: Wait, tmp_path: Path
) -> None:
    start_worker(concurrency=1)
    warm_up = [queue.enqueue(worker_jobs.sleep, 0) for _ in range(100)]
    wait_until(lambda: warm_up[-1].get_status() is JobStatus.FINISHED, 10)
    long = queue.enqueue(worker_jobs.sleep, 60)
    rest = [queue.enqueue(worker_jobs.sleep, 0) for _ in range(20)]
    wait_until(lambda: long.get_status() is JobStatus.STARTED)
    wait_until(lambda: {job.get_status() for job in rest} == {JobStatus.QUEUED})
    assert queue.job_ids == [job.id for job in rest]
    wip = queue.connection.zrange("rq:wip:default", 0, -1)
    assert [entry.decode().partition(":")[0] for entry in wip] == [long.id]
    handed = queue.connection.hget(f"rq:execution:{wip[0].decode()}", "flowq_handed")
    wait_until(
        lambda: (
            handed is None
            or not queue.connection.hexists(f"rq:execution:{wip[0].decode()}", "flowq_handed")
        )
    )


def test_the_children_share_what_there_is(queue: Queue, drain: Callable[..., Any]) -> None:
    jobs = [queue.enqueue(worker_jobs.wait_for_others, "here", 4) for _ in range(4)]
    drain(concurrency=4)
    assert {job.get_status() for job in jobs} == {JobStatus.FINISHED}


@pytest.mark.parametrize("batches", [True, False])
def test_a_fan_in_runs_in_order(
    queue: Queue, drain: Callable[..., Any], mode: str, batches: bool
) -> None:
    count = 20 if mode == "fork" else 300
    future = queue.enqueue(worker_jobs.check_sum, count, deferred=True)
    for _ in range(count):
        queue.enqueue(worker_jobs.count_run, "sum", blocked_by=future)
    future.release()
    drain(mode=mode, batches=batches)
    assert future.return_value() == count


def test_a_job_that_a_child_has_begun_does_not_wait_in_its_channel() -> None:
    shared = SharedState(multiprocessing.get_context("spawn"))
    nobody: Any = None
    child = Child(nobody, nobody, nobody, shared)
    for number in (1, 2):
        raw = [b"data", bytes(100)]
        child.claims[number] = Claim(number, "job", "execution", "default", raw, "kind", None)
    assert child.unread_bytes == 208
    shared.allow(1, 3)
    assert shared.begin(1, 42)
    assert child.unread_bytes == 104


def test_large_arguments_and_results_come_through(queue: Queue, drain: Callable[..., Any]) -> None:
    small = [queue.enqueue(worker_jobs.echo, b"x") for _ in range(50)]
    large = [queue.enqueue(worker_jobs.echo, bytes(300_000)) for _ in range(20)]
    drain()
    assert all(job.return_value() == b"x" for job in small)
    assert all(len(job.return_value()) == 300_000 for job in large)
