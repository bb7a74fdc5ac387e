"""Releases of any size: bounded steps, any process can finish them, nothing overtakes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis
from redis.exceptions import ResponseError
from rq.job import JobStatus

from flowq.errors import FutureEnded, JobNotFound
from flowq.runtime import keys, scripts, steps
from flowq.runtime.job import Job, get_job
from flowq.runtime.queue import Queue
from tests.runtime.calls import calls_per_command, count_calls

MANY = 10_000
SLOW_US = 20_000

Work = Callable[..., None]


def add_blockers(queue: Queue, future: Job, count: int, first: int = 0) -> list[str]:
    """Blockers by the hundred, as RQ's enqueue_many takes them."""
    ids = [f"b{n}" for n in range(first, first + count)]
    for at in range(0, count, 100):
        queue.enqueue_many(
            [
                Queue.prepare_data("operator.add", (1, 1), job_id=job_id, blocked_by=future)
                for job_id in ids[at : at + 100]
            ]
        )
    return ids


def begin_release(future: Job) -> None:
    """What is left of a release whose process is killed after its first script."""
    assert scripts.RELEASE.call(future.connection, future.key, future.id) == [1]


@contextmanager
def short_calls(connection: redis.Redis) -> Iterator[None]:
    """Fail when the calls in here keep the server from others for 20 ms.

    They take 2 to 4 ms of the processor, which is what is measured: a machine that is busy with
    other things stretches calls. A few that last very long by the clock are still too many.
    """
    connection.config_set("slowlog-log-slower-than", 5 * SLOW_US)
    connection.config_set("slowlog-max-len", 1_000)
    connection.slowlog_reset()
    connection.config_resetstat()
    before_us = processor_time_us(connection)
    yield
    calls = connection.info("commandstats")["cmdstat_fcall"]["calls"]
    assert (processor_time_us(connection) - before_us) / calls < SLOW_US / 2
    assert connection.slowlog_len() <= calls / 10


def processor_time_us(connection: redis.Redis) -> float:
    used = connection.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"]) * 1e6


def test_ten_thousand_blockers_are_released_in_order_by_short_calls(
    queue: Queue, connection: redis.Redis
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    ids = add_blockers(queue, future, MANY)
    with short_calls(connection):
        assert future.release() is True
    assert queue.job_ids == ids
    assert connection.zcard("rq:deferred:default") == 1
    assert connection.exists(keys.TODO) == 0
    with short_calls(connection):
        future.cancel()


def test_canceling_thousands_of_held_blockers_takes_short_calls(
    queue: Queue, connection: redis.Redis
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    ids = add_blockers(queue, future, 3_000)
    with short_calls(connection):
        future.cancel()
    assert connection.zcard("rq:canceled:default") == 3_001
    assert connection.exists("rq:deferred:default", "rq:queue:default", keys.TODO) == 0
    assert 0 < connection.ttl(keys.job(ids[-1])) <= 86_400


@pytest.mark.parametrize("act", ["add", "release", "settle"])
def test_the_cost_per_blocker_does_not_grow_with_their_number(
    queue: Queue, connection: redis.Redis, act: str
) -> None:
    """Counted in commands, those inside scripts included, for the next 50 blockers."""
    costs = []
    for size in (100, 2_000):
        connection.flushall()
        future = queue.enqueue("operator.add", 1, 2, deferred=True)
        add_blockers(queue, future, size)
        counted = Queue("counted", connection=connection)
        if act == "add":
            connection.config_resetstat()
            add_blockers(counted, future, 50, first=size)
        elif act == "release":
            begin_release(future)
            for _ in range(size // steps.ITEMS_PER_STEP):
                steps.step(connection, f"free:{future.id}")
            steps.step(connection, f"free:{future.id}")
            add_blockers(counted, future, 50, first=size)  # already on its way
            connection.config_resetstat()
            future.release()
        else:
            future.release()
            jobs = [get_job(f"b{n}", connection) for n in range(50)]
            connection.config_resetstat()
            for job in jobs:
                job.set_status(JobStatus.FINISHED)
        costs.append(calls_per_command(connection))
    assert costs[0] == costs[1]


def test_a_release_whose_process_was_killed_is_finished_by_others(
    queue: Queue, connection: redis.Redis
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    ids = add_blockers(queue, future, 600)
    begin_release(future)
    steps.step(connection, "")
    assert queue.job_ids == ids[: steps.ITEMS_PER_STEP]
    assert steps.run_steps(connection) == 5
    assert queue.job_ids == ids
    assert connection.exists(keys.TODO) == 0


def test_a_release_whose_process_is_really_killed_loses_nothing(
    queue: Queue, connection: redis.Redis, redis_url: str, wait_until: Callable[..., None]
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    ids = add_blockers(queue, future, 2_000)
    program = (
        "import redis, sys; from flowq.runtime import steps; from flowq.runtime.job import *\n"
        "steps.ITEMS_PER_STEP = 1\n"
        "release_job(sys.argv[2], redis.Redis.from_url(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, redis_url, future.id])
    wait_until(lambda: queue.count > 0, within_s=20)
    process.kill()
    process.wait()
    assert 0 < queue.count < 2_000
    steps.run_steps(connection)
    assert queue.job_ids == ids


def test_the_maintenance_of_rqs_own_worker_finishes_a_release(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    add_blockers(queue, future, 5)
    begin_release(future)
    work()
    assert future.get_status() == "finished"


def test_a_step_that_cannot_be_made_stops_neither_the_worker_nor_other_steps(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    broken, future = (queue.enqueue("operator.add", 1, 2, deferred=True) for _ in range(2))
    begin_release(broken)
    begin_release(future)
    connection.set(keys.blockers(broken.id), "not a list")
    work()
    work()
    assert future.get_status() in ("queued", "finished")
    work()
    assert connection.zrange(keys.TODO, 0, -1) == [f"free:{broken.id}".encode()]
    connection.delete(keys.blockers(broken.id))
    work()
    assert broken.get_status() == "finished"


def add_tree(queue: Queue) -> Job:
    """A future job with blockers in front of it, some of which are future jobs with blockers."""
    last = queue.enqueue("operator.add", 1, 2, job_id="last", deferred=True)
    for name in ("a", "B", "c", "D", "e"):
        queue.enqueue("operator.add", job_id=name, deferred=name.isupper(), blocked_by=last)
    for name in ("b1", "B2", "b3"):
        queue.enqueue("operator.add", job_id=name, deferred=name.isupper(), blocked_by="B")
    for name, future in {"d1": "D", "d2": "D", "bb1": "B2", "bb2": "B2"}.items():
        queue.enqueue("operator.add", job_id=name, blocked_by=future)
    return last


def states(connection: redis.Redis, *futures: str) -> set[object]:
    return {connection.hget(keys.future(each), "state") for each in futures}


def test_a_release_that_goes_on_queues_the_blockers_of_each_future_job_after_those_before(
    queue: Queue, connection: redis.Redis
) -> None:
    add_tree(queue).release(cascade=True)
    assert queue.job_ids == ["a", "c", "e", "b1", "b3", "d1", "d2", "bb1", "bb2"]
    assert states(connection, "last", "B", "D", "B2") == {b"released"}
    assert connection.exists(keys.TODO) == 0


@pytest.mark.parametrize("items", range(1, 8))
def test_a_release_goes_on_in_steps_of_any_size(
    queue: Queue, connection: redis.Redis, monkeypatch: pytest.MonkeyPatch, items: int
) -> None:
    monkeypatch.setattr(steps, "ITEMS_PER_STEP", items)
    add_tree(queue).release(cascade=True)
    for own in (["a", "c", "e"], ["b1", "b3"], ["d1", "d2"], ["bb1", "bb2"]):
        assert [each for each in queue.job_ids if each in own] == own
    assert len(queue.job_ids) == 9
    assert states(connection, "last", "B", "D", "B2") == {b"released"}
    assert connection.exists(keys.TODO) == 0


def test_a_release_that_goes_on_far_takes_few_and_short_calls(
    queue: Queue, connection: redis.Redis
) -> None:
    jobs = [Queue.prepare_data("operator.add", job_id="n0", deferred=True)]
    jobs += [
        Queue.prepare_data("operator.add", job_id=f"n{n}", deferred=True, blocked_by=f"n{n - 1}")
        for n in range(1, 1_000)
    ]
    first = queue.enqueue_many(jobs)[0]
    assert isinstance(first, Job)
    with short_calls(connection):
        first.release(cascade=True)
        assert connection.info("commandstats")["cmdstat_fcall"]["calls"] < 20
    assert queue.job_ids == ["n999"]
    assert connection.exists(keys.TODO) == 0


def test_a_link_of_a_chain_is_declared_and_released_by_so_many_commands(
    queue: Queue, connection: redis.Redis
) -> None:
    """Measured with two lengths, so that what a call costs by itself does not count."""

    def count(links: int) -> tuple[int, int]:
        connection.flushdb()
        jobs = [
            Queue.prepare_data("time.time", job_id=f"n{n}", deferred=True, blocked_by=f"n{n - 1}")
            for n in range(1, links)
        ]
        connection.config_resetstat()
        first = queue.enqueue_many(
            [Queue.prepare_data("time.time", job_id="n0", deferred=True), *jobs]
        )[0]
        declared = count_calls(connection)
        assert isinstance(first, Job)
        first.release(cascade=True)
        return declared, count_calls(connection) - declared

    short, long = count(10), count(60)
    assert (long[0] - short[0]) / 50 <= 11
    assert (long[1] - short[1]) / 50 <= 14.1


def test_a_release_goes_on_past_one_that_fails_when_that_is_mended(
    queue: Queue, connection: redis.Redis
) -> None:
    last = add_tree(queue)
    edges = connection.dump(keys.blockers("B"))
    connection.set(keys.blockers("B"), "broken")
    with pytest.raises(ResponseError, match="free:B: "):
        last.release(cascade=True)
    connection.delete(keys.blockers("B"))
    connection.restore(keys.blockers("B"), 0, edges)
    steps.run_steps(connection)
    assert sorted(queue.job_ids) == ["a", "b1", "b3", "bb1", "bb2", "c", "d1", "d2", "e"]
    assert connection.exists(keys.TODO) == 0


def test_two_releasers_free_each_blocker_once(
    queue: Queue, connection: redis.Redis, redis_url: str
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    ids = add_blockers(queue, future, 250)
    begin_release(future)
    operation = f"free:{future.id}"
    with redis.Redis.from_url(redis_url) as other:
        answers = [steps.step(one, operation)[1] for one in (connection, other, connection, other)]
    assert answers == [True, True, False, False]
    assert get_job(future.id, connection).release() is False
    assert queue.job_ids == ids


def test_additions_during_a_stepwise_release_queue_behind_those_being_freed(
    queue: Queue, connection: redis.Redis
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    ids = add_blockers(queue, future, 300)
    begin_release(future)
    steps.step(connection, f"free:{future.id}")
    late = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    assert late.get_status() == "deferred"
    future.release()
    assert queue.job_ids == [*ids, late.id]


def test_a_cancel_during_a_stepwise_release_wins(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    ids = add_blockers(queue, future, 600)
    begin_release(future)
    steps.step(connection, f"free:{future.id}")
    future.cancel()
    freed = steps.ITEMS_PER_STEP
    assert queue.job_ids == ids[:freed], "those that were queued are independent"
    statuses = {get_job(job_id, connection).get_status() for job_id in ids[freed:]}
    assert statuses == {"canceled"}
    assert connection.exists(keys.TODO) == 0
    with pytest.raises(FutureEnded):
        future.release()
    work()
    assert future.get_status() == "canceled"


def test_the_last_blocker_ends_while_the_release_is_under_way(
    queue: Queue, connection: redis.Redis
) -> None:
    """Whichever of the two comes last queues the future job, once."""
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    ids = add_blockers(queue, future, steps.ITEMS_PER_STEP + 1)
    begin_release(future)
    steps.step(connection, f"free:{future.id}")
    for job_id in ids[:-1]:
        get_job(job_id, connection).set_status(JobStatus.FINISHED)
    get_job(ids[-1], connection).cancel()
    get_job(ids[-1], connection).delete()
    assert future.get_status() == "deferred"
    future.release()
    assert queue.job_ids.count(future.id) == 1


def test_blockers_that_were_canceled_or_deleted_before_the_release(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    canceled, deleted, kept = (
        queue.enqueue("operator.add", 1, 1, blocked_by=future) for _ in range(3)
    )
    canceled.cancel()
    deleted.delete()
    future.release()
    assert queue.job_ids == [kept.id]
    work()
    assert future.get_status() == "deferred"
    canceled.delete()
    assert future.get_status() == "queued"


def test_releasing_what_is_not_there_or_was_canceled(queue: Queue, connection: redis.Redis) -> None:
    from flowq.runtime.job import release_job

    with pytest.raises(JobNotFound):
        release_job("nothing", connection=connection)
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    future.cancel()
    with pytest.raises(FutureEnded, match="is canceled"):
        future.release()
    gone = queue.enqueue("operator.add", 1, 2, deferred=True)
    gone.delete()
    with pytest.raises(JobNotFound):
        gone.release()


def test_a_future_job_canceled_by_rqs_own_class_is_over(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    from rq import cancel_job

    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    cancel_job(future.id, connection=connection)
    with pytest.raises(FutureEnded):
        future.release()
    with pytest.raises(FutureEnded):
        queue.enqueue("operator.add", 1, 2, blocked_by=future)
