"""What two processes may do to one future job at once, forced step by step: no timing, no threads.

Every operation of the runtime is one script or one transaction, so all that can happen is an order
of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import pytest
import redis
from rq import SimpleWorker
from rq.job import JobStatus
from rq.utils import now

from flowq.errors import FutureAlreadyStarted, FutureEnded
from flowq.runtime import keys, scripts, steps
from flowq.runtime.job import Job, get_job
from flowq.runtime.queue import Queue

Act = Callable[[], Any]
Work = Callable[..., None]


@pytest.fixture
def other(redis_url: str) -> Iterator[redis.Redis]:
    """The connection of a second process."""
    with redis.Redis.from_url(redis_url) as connected:
        yield connected


def make_future(queue: Queue, **options: Any) -> Job:
    return queue.enqueue("operator.add", 1, 2, job_id="future", deferred=True, **options)


def add_blockers(queue: Queue, count: int) -> list[Job]:
    add = queue.enqueue
    return [add("operator.add", 1, 1, job_id=f"b{n}", blocked_by="future") for n in range(count)]


def begin_release(connection: redis.Redis) -> None:
    scripts.RELEASE.call(connection, keys.job("future"), "future", 0)


def step(connection: redis.Redis, items: int = 1, what: str = "free:future") -> None:
    scripts.STEP.call(connection, keys.TODO, what, items)


def end(connection: redis.Redis, job_id: str, status: JobStatus = JobStatus.FINISHED) -> None:
    """What a worker's transaction does, without the rest of it."""
    get_job(job_id, connection).set_status(status)


def settled(connection: redis.Redis, job_id: str = "future") -> str:
    """The job's status when nothing is left on the way; it is queued once, or not at all."""
    steps.run_steps(connection)
    assert connection.exists(keys.TODO) == 0
    status = get_job(job_id, connection).get_status().value
    ids = connection.lrange(keys.queue("default"), 0, -1)
    assert ids.count(job_id.encode()) == (status == "queued")
    return str(status)


WORDS = ("release", "step", "step", "end 0", "end 1")

# The last blocker ends at the moment of the release ----------------------------------------------


@pytest.mark.parametrize("order", sorted(set(permutations(WORDS))))
def test_blockers_end_before_between_and_after_the_steps_of_a_release(
    queue: Queue, connection: redis.Redis, other: redis.Redis, order: tuple[str, ...]
) -> None:
    """A blocker that was executed elsewhere, or whose end was heard early, may be first."""
    make_future(queue)
    add_blockers(queue, 2)
    acts: dict[str, Act] = {
        "release": lambda: begin_release(connection),
        "step": lambda: step(connection),
        "end 0": lambda: end(other, "b0"),
        "end 1": lambda: end(other, "b1"),
    }
    for name in order:
        acts[name]()
    assert settled(connection) == "queued"


@pytest.mark.parametrize("policy", ["wait", "skip", "run"])
@pytest.mark.parametrize("is_late", [False, True])
def test_the_last_blocker_fails_around_the_last_step_of_the_release(
    queue: Queue, connection: redis.Redis, policy: str, is_late: bool
) -> None:
    make_future(queue, on_blocker_failure=policy)
    add_blockers(queue, 1)
    begin_release(connection)
    step(connection, 1 if is_late else 0)
    end(connection, "b0", JobStatus.FAILED)
    expected = {"wait": "deferred", "skip": "canceled", "run": "queued"}
    assert settled(connection) == expected[policy]


def test_two_processes_release_step_by_step_in_turns(
    queue: Queue, connection: redis.Redis, other: redis.Redis
) -> None:
    make_future(queue)
    blockers = [job.id for job in add_blockers(queue, 7)]
    answers = [
        scripts.RELEASE.call(one, keys.job("future"), "future", 0) for one in (connection, other)
    ]
    assert answers == [[1], [0]]
    for turn in range(7):
        step((connection, other)[turn % 2])
        assert queue.job_ids == blockers[: turn + 1]
    for one in (connection, other):
        steps.finish(one, "free:future")
    assert queue.job_ids == blockers
    for job_id in blockers:
        end(other, job_id)
    assert settled(connection) == "queued"


# An adder that dies -------------------------------------------------------------------------------


def test_a_blocker_adds_a_blocker_and_dies_and_does_so_again(
    queue: Queue, connection: redis.Redis, other: redis.Redis
) -> None:
    """The second execution meets its own addition, wherever that is by then."""
    make_future(queue)
    add_blockers(queue, 1)
    get_job("future", connection).release()
    elsewhere = Queue("elsewhere", connection=other)

    def add_child() -> Job:
        return elsewhere.enqueue("operator.add", 1, 1, job_id="child", blocked_by="future")

    assert add_child().get_status() == "queued"
    assert add_child().get_status() == "queued"
    assert elsewhere.job_ids == ["child"]
    end(other, "child")
    assert add_child().get_status() == "finished"
    end(connection, "b0")
    assert connection.lrange(keys.blockers("future"), 0, -1) == [b"b0", b"child"]
    assert settled(connection) == "queued"


def test_the_adder_ends_before_its_last_addition(queue: Queue, connection: redis.Redis) -> None:
    """The check of the door and the addition are one step: late is late."""
    make_future(queue)
    add_blockers(queue, 1)
    get_job("future", connection).release()
    end(connection, "b0")
    with pytest.raises(FutureAlreadyStarted):
        queue.enqueue("operator.add", 1, 1, job_id="late", blocked_by="future")
    assert connection.exists(keys.job("late")) == 0
    assert settled(connection) == "queued"


# Ending twice -------------------------------------------------------------------------------------

CANCELED, FAILED, FINISHED, STOPPED = (
    JobStatus.CANCELED,
    JobStatus.FAILED,
    JobStatus.FINISHED,
    JobStatus.STOPPED,
)


@pytest.mark.parametrize("ends", list(permutations([CANCELED, FAILED, FINISHED, STOPPED], 2)))
@pytest.mark.parametrize("policy", ["wait", "skip", "run"])
def test_before_the_decision_the_last_end_counts(
    queue: Queue, connection: redis.Redis, ends: tuple[JobStatus, ...], policy: str
) -> None:
    make_future(queue, on_blocker_failure=policy)
    add_blockers(queue, 2)
    get_job("future", connection).release()
    for status in ends:
        end(connection, "b0", status)
        assert settled(connection) == "deferred"
    end(connection, "b1")
    bad = {"wait": "deferred", "skip": "canceled", "run": "queued"}[policy]
    assert settled(connection) == ("queued" if ends[-1] is FINISHED else bad)


@pytest.mark.parametrize("late", [CANCELED, FAILED, STOPPED])
def test_after_the_decision_it_is_frozen(
    queue: Queue, connection: redis.Redis, late: JobStatus
) -> None:
    make_future(queue, on_blocker_failure="skip")
    add_blockers(queue, 1)
    get_job("future", connection).release()
    end(connection, "b0")
    end(connection, "b0", late)
    assert connection.hgetall(keys.edges("future")) == {b"b0": b"finished"}
    assert settled(connection) == "queued"


def test_failed_requeued_and_finished(queue: Queue, connection: redis.Redis, work: Work) -> None:
    make_future(queue)
    add_blockers(queue, 1)
    get_job("future", connection).release()
    queue.pop_job_id()
    worker = SimpleWorker([queue], connection=connection, job_class=Job, queue_class=Queue)
    job = get_job("b0", connection)
    job.started_at = job.ended_at = now()
    worker.handle_job_failure(job, queue, exc_string="boom")
    assert settled(connection) == "deferred"
    get_job("b0", connection).requeue()
    work(max_jobs=1)
    assert settled(connection) == "queued"


def test_the_same_transaction_is_sent_twice(queue: Queue, connection: redis.Redis) -> None:
    """The reply of the first was lost, and redis-py sends it again."""
    make_future(queue)
    add_blockers(queue, 2)
    get_job("future", connection).release()
    job = get_job("b0", connection)
    for _ in range(2):
        with connection.pipeline() as pipeline:
            job.set_status(FINISHED, pipeline)
            pipeline.execute()
    assert connection.hget(keys.future("future"), "pending") == b"1"
    end(connection, "b1")
    assert settled(connection) == "queued"


# Calling off in between ---------------------------------------------------------------------------


@pytest.mark.parametrize("is_first", [False, True])
def test_a_cancel_and_an_addition_cross(
    queue: Queue, connection: redis.Redis, other: redis.Redis, is_first: bool
) -> None:
    """Either the addition is refused, or it is canceled with the others."""
    make_future(queue)

    def add() -> Job:
        return queue.enqueue("operator.add", 1, 1, job_id="b", blocked_by="future")

    with other.pipeline() as transaction:
        get_job("future", other).cancel(pipeline=transaction)
        if is_first:
            transaction.execute()
            with pytest.raises(FutureEnded):
                add()
        else:
            add()
            transaction.execute()
    assert settled(connection) == "canceled"
    assert connection.exists(keys.job("b")) == (not is_first)
    assert is_first or get_job("b", connection).get_status() == "canceled"
    assert queue.count == 0


@pytest.mark.parametrize("freed", range(4))
def test_a_cancel_during_a_stepwise_release_wins(
    queue: Queue, connection: redis.Redis, other: redis.Redis, freed: int
) -> None:
    make_future(queue)
    blockers = add_blockers(queue, 3)
    begin_release(connection)
    for _ in range(freed):
        step(connection)
    with other.pipeline() as transaction:
        get_job("future", other).cancel(pipeline=transaction)
        transaction.execute()
    step(connection)
    statuses = ["queued"] * freed + ["canceled"] * (3 - freed)
    assert settled(connection) == "canceled"
    assert [job.get_status() for job in blockers] == statuses[:3]


def test_the_abandoning_is_done_by_two_processes_in_turns(
    queue: Queue, connection: redis.Redis, other: redis.Redis
) -> None:
    make_future(queue)
    kept = queue.enqueue("operator.add", 1, 2, deferred=True)
    blockers = add_blockers(queue, 4)
    shared = queue.enqueue("operator.add", 1, 1, blocked_by=["future", kept])
    with connection.pipeline() as transaction:
        get_job("future", connection).cancel(pipeline=transaction)
        transaction.execute()
    for turn in range(6):
        step((connection, other)[turn % 2], what="abandon:future")
    assert settled(connection) == "canceled"
    assert {job.get_status() for job in blockers} == {"canceled"}
    assert shared.get_status() == "deferred"
    kept.release()
    assert shared.get_status() == "queued"


# Losing things ------------------------------------------------------------------------------------


def test_a_result_that_has_expired_before_the_join_does_not_keep_it(
    queue: Queue, connection: redis.Redis
) -> None:
    make_future(queue)
    add_blockers(queue, 2)
    get_job("future", connection).release()
    end(connection, "b0")
    connection.delete(keys.job("b0"), keys.results("b0"))  # as the server does when they expire
    end(connection, "b1")
    assert settled(connection) == "queued"
    outcomes = get_job("future", connection).blockers
    assert [(each.status, each.result) for each in outcomes] == [("finished", None)] * 2


@pytest.mark.parametrize("at", range(6))
def test_the_scripts_are_lost_at_any_point(
    queue: Queue, connection: redis.Redis, other: redis.Redis, at: int
) -> None:
    acts: list[Act] = [
        lambda: make_future(queue),
        lambda: add_blockers(queue, 2),
        lambda: begin_release(connection),
        lambda: step(connection),
        lambda: end(connection, "b0"),
        lambda: end(connection, "b1"),
    ]
    for number, act in enumerate(acts):
        if number == at:
            other.script_flush()
        act()
    assert settled(connection) == "queued"


@pytest.mark.parametrize("what", ["flush", "end", "release", "add", "cancel"])
def test_another_connection_acts_while_our_settling_is_in_a_multi(
    queue: Queue, connection: redis.Redis, other: redis.Redis, what: str
) -> None:
    """The settling is part of the transaction, and sees what is there at its EXEC."""
    make_future(queue)
    add_blockers(queue, 2)
    begin_release(connection)
    step(connection)
    acts: dict[str, Act] = {
        "flush": connection.script_flush,
        "end": lambda: end(connection, "b1"),
        "release": lambda: steps.finish(connection, "free:future"),
        "add": lambda: queue.enqueue("operator.add", 1, 1, job_id="late", blocked_by="future"),
        "cancel": lambda: get_job("future", connection).cancel(),
    }
    with other.client() as client:  # a pipeline would keep the commands to itself until EXEC
        assert client.execute_command("MULTI") == b"OK"
        get_job("b0", connection).set_status(FINISHED, client)
        acts[what]()
        assert connection.hget(keys.edges("future"), "b0") == b"pending"
        assert client.execute_command("EXEC")[-1] == b"OK"
    steps.run_steps(connection)
    if what != "end":
        end(connection, "b1")
    if what == "add":
        assert settled(connection) == "deferred"
        end(connection, "late")
    assert settled(connection) == ("canceled" if what == "cancel" else "queued")
