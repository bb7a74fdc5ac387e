"""RQ's other options, and its other ways to enqueue, together with ours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
import runtime_jobs
from rq import Callback, Repeat, Retry, SimpleWorker
from rq.decorators import job as rq_job
from rq.group import Group
from rq.job import Job as RQJob
from rq.queue import Queue as RQQueue
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

from flowq.runtime import keys
from flowq.runtime.job import Job, get_job
from flowq.runtime.queue import Queue

Work = Callable[..., None]


# Other ways to enqueue ---------------------------------------------------------------------------


def test_enqueue_call_and_positional_options(queue: Queue, connection: redis.Redis) -> None:
    future = queue.enqueue_call("operator.add", (1, 2), None, 60, 70, deferred=True)
    assert (future.args, future.timeout, future.result_ttl) == ((1, 2), 60, 70)
    blocker = queue.enqueue_call(
        "operator.add", (1,), {"b": 2}, 60, 70, 80, 90, "text", None, "the-id", True, {"m": 1},
        Retry(3), blocks=future,
    )  # fmt: skip
    kept = get_job("the-id", connection)
    assert (kept.kwargs, kept.description, kept.meta) == ({"b": 2}, "text", {"m": 1})
    assert (kept.retries_left, kept.enqueue_at_front) == (3, True)
    assert blocker.future_ids == (future.id,)
    with pytest.raises(TypeError):
        queue.enqueue_call("operator.add", unknown=1, deferred=True)


def test_enqueue_many_with_and_without_holds(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    slow = Queue("slow", connection=connection)
    dependency = slow.enqueue("operator.add", 0, 0)
    jobs = queue.enqueue_many(
        [
            Queue.prepare_data("operator.add", (1, 2), job_id="last", deferred=True),
            Queue.prepare_data("operator.add", (1, 1), job_id="first", blocked_by="last"),
            Queue.prepare_data("operator.add", (1, 1), job_id="plain"),
            Queue.prepare_data("operator.add", (1, 1), job_id="front", at_front=True),
            Queue.prepare_data("operator.add", (1, 1), job_id="after", depends_on="plain"),
            Queue.prepare_data("operator.add", (1, 1), job_id="slow", depends_on=dependency),
        ]
    )
    assert [job.id for job in jobs] == ["last", "first", "plain", "front", "after", "slow"]
    assert queue.job_ids == ["front", "plain"]
    work()
    statuses = [job.get_status() for job in jobs]
    assert statuses == ["deferred", "deferred", "finished", "finished", "finished", "deferred"]
    jobs[0].release()
    work(None, "default", "slow")
    assert {job.get_status() for job in jobs} == {"finished"}


def test_enqueue_many_without_holds_is_rqs(queue: Queue, work: Work) -> None:
    jobs = queue.enqueue_many(iter([Queue.prepare_data("operator.add", (1, 2))]))
    work()
    assert jobs[0].return_value() == 3


def test_a_group_of_held_jobs(queue: Queue, connection: redis.Redis, work: Work) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    group = Group.create(connection)
    jobs = group.enqueue_many(
        queue, [Queue.prepare_data("operator.add", (n, n), blocked_by=future) for n in range(3)]
    )
    assert {job.id for job in group.get_jobs()} == {job.id for job in jobs}
    assert get_job(jobs[0].id, connection).group_id == group.name
    future.release()
    work()
    assert [outcome.result for outcome in future.blockers] == [0, 2, 4]


def test_create_job_and_enqueue_job(queue: Queue, connection: redis.Redis, work: Work) -> None:
    future = queue.create_job("operator.add", (1, 2), deferred=True, if_empty="skip")
    assert connection.exists(future.key) == 0
    queue.enqueue_job(future)
    blocker = queue.create_job("operator.add", (1, 2), blocked_by=future)
    queue.enqueue_job(blocker, at_front=True)
    plain = queue.enqueue_job(queue.create_job("operator.add", (1, 2)))
    future.release()
    assert queue.job_ids == [blocker.id, plain.id]
    work()
    assert future.get_status() == "finished"


def test_the_decorator_of_rq(connection: redis.Redis, work: Work) -> None:
    decorated = rq_job("default", connection=connection, queue_class=Queue)(runtime_jobs.note)
    future = decorated.delay("log", text="last", deferred=True)
    blocker = decorated.delay("log", "first", blocked_by=future)
    kept = get_job(blocker.id, connection)
    assert (kept.args, kept.kwargs) == (("log", "first"), {})
    assert (future.get_status(), kept.future_ids) == ("deferred", (future.id,))


def test_a_parameter_of_the_function_is_the_functions(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    named = queue.enqueue_call(runtime_jobs.takes_blocks, kwargs={"blocks": 3})
    listed = queue.enqueue(runtime_jobs.any_keyword, kwargs={"blocks": 3, "deferred": True})
    by_name = queue.enqueue_call("runtime_jobs.any_keyword", kwargs={"deferred": True})
    work()
    assert named.return_value() == 3
    assert listed.return_value() == {"blocks": 3, "deferred": True}
    assert by_name.return_value() == {"deferred": True}


# Times -------------------------------------------------------------------------------------------


def run_scheduler(connection: redis.Redis) -> None:
    scheduler = RQScheduler(["default"], connection)
    scheduler.acquire_locks()
    scheduler.enqueue_scheduled_jobs()
    scheduler.release_locks()


def test_a_held_job_with_a_time_goes_to_rqs_schedule_when_its_holds_are_lifted(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    later = queue.enqueue_in(timedelta(hours=1), "operator.add", 1, 1, blocked_by=future)
    assert later.get_status() == "deferred"
    assert connection.exists("rq:scheduled:default") == 0
    future.release()
    assert later.get_status() == "scheduled"
    score = connection.zscore("rq:scheduled:default", later.id)
    assert score == pytest.approx(datetime.now(UTC).timestamp() + 3600, abs=60)
    connection.zadd("rq:scheduled:default", {later.id: 1})  # an hour later
    run_scheduler(connection)
    work()
    assert (later.get_status(), future.get_status()) == ("finished", "finished")


def test_a_time_that_is_over_at_the_release_delays_nothing(queue: Queue) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    future = queue.enqueue_at(past, "operator.add", 1, 2, deferred=True, at_front=True)
    future.release()
    assert future.get_status() == "queued"


def test_a_future_job_with_a_time_waits_for_its_blockers_and_then_for_the_time(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future = queue.enqueue_in(timedelta(hours=1), "operator.add", 1, 2, deferred=True)
    queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    work()
    assert future.get_status() == "scheduled"
    future.cancel()
    assert connection.exists("rq:scheduled:default") == 0


# Everything that is passed through -----------------------------------------------------------


def test_options_of_rq_reach_the_job_and_work(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future = queue.enqueue(
        "operator.add",
        args=(1, 2),
        deferred=True,
        job_timeout="2m",
        description="the sum",
        meta={"a": 1},
        result_ttl=77,
        job_id="the-sum",
        on_success=Callback(runtime_jobs.callback),
    )
    failing = queue.enqueue(
        "runtime_jobs.fail", "oh", blocked_by=future, on_failure=Callback(runtime_jobs.on_failure),
        failure_ttl=66, retry=Retry(max=1),
    )  # fmt: skip
    kept = get_job("the-sum", connection)
    assert (kept.timeout, kept.description, kept.meta) == (120, "the sum", {"a": 1})
    assert kept.origin == "default"
    future.release()
    work()
    failing.delete()
    work()
    assert connection.lrange("test:callbacks", 0, -1) == [
        *[f"{failing.id} oh".encode()] * 2,
        b"the-sum",
    ]
    assert 0 < connection.ttl(future.key) <= 77


def test_a_queues_default_timeout_and_our_jobs(connection: redis.Redis) -> None:
    queue = Queue(connection=connection, default_timeout=33)
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    assert get_job(future.id, connection).timeout == 33


def test_at_front_counts_when_the_job_is_queued(queue: Queue) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    back = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    front = queue.enqueue("operator.add", 1, 1, blocked_by=future, at_front=True)
    plain = queue.enqueue("operator.add", 1, 1)
    future.release()
    assert queue.job_ids == [front.id, plain.id, back.id]


def test_each_blocker_goes_to_its_own_queue(queue: Queue, connection: redis.Redis) -> None:
    other = Queue("other", connection=connection)
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = other.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    assert (queue.job_ids, other.job_ids) == ([], [blocker.id])
    assert b"rq:queue:other" in connection.smembers("rq:queues")


def test_a_repeated_future_job_runs_again_and_its_blockers_do_not(
    queue: Queue, connection: redis.Redis, work: Work, tmp_path: Any
) -> None:
    log = tmp_path / "log"
    future = queue.enqueue(
        "runtime_jobs.note", str(log), "last", deferred=True, repeat=Repeat(times=2)
    )
    queue.enqueue("runtime_jobs.note", str(log), "first", blocked_by=future)
    future.release()
    work()
    assert log.read_text().split() == ["first", "last", "last", "last"]
    assert connection.hget(keys.future(future.id), "state") == b"finished"


def test_the_json_serializer(connection: redis.Redis) -> None:
    queue = Queue(connection=connection, serializer=JSONSerializer)
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, job_id="blocker", blocked_by=future)
    again = queue.enqueue("operator.add", 1, 1, job_id="blocker", blocked_by=future)
    assert (again.id, again.args) == (blocker.id, [1, 1])
    future.release()
    SimpleWorker(
        [queue], connection=connection, job_class=Job, queue_class=Queue, serializer=JSONSerializer
    ).work(burst=True, logging_level="CRITICAL")
    assert Job.fetch(future.id, connection, JSONSerializer).return_value() == 3
    reader = get_job(future.id, connection)  # with RQ's default serializer
    assert reader.blockers[0].result == 2, "the serializer is recorded with the blocker"


# Ids that are used again -------------------------------------------------------------------------


def test_an_id_of_an_existing_blocker_of_the_same_future_job_is_that_job(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    """So that an adder that is run again does not double its children."""
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    first = queue.enqueue("operator.add", 1, 1, job_id="child", blocked_by=future)
    again = queue.enqueue("operator.add", 5, 5, job_id="child", blocked_by=future)
    assert (again.id, again.args) == (first.id, (1, 1))
    assert len(future.blockers) == 1
    future.release()
    work(max_jobs=1)
    assert get_job("child", connection).get_status() == "finished"
    assert future.get_status() == "queued"


def test_the_id_of_a_job_that_has_ended_can_be_used_again(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    for round_ in range(3):
        future = queue.enqueue("operator.add", round_, 0, job_id="nightly", deferred=True)
        blocker = queue.enqueue("operator.add", round_, 1, job_id="part", blocked_by=future)
        assert len(future.blockers) == 1
        future.release()
        work()
        assert (future.return_value(refresh=True), blocker.return_value()) == (round_, round_ + 1)
    future = queue.enqueue("operator.add", 7, 0, job_id="nightly", deferred=True)
    future.cancel()
    assert queue.enqueue("operator.add", 8, 0, job_id="nightly", deferred=True).is_future
    plain = queue.enqueue("operator.add", 9, 0, job_id="part", deferred=True)
    plain.delete()
    assert queue.enqueue("operator.add", 8, 0, job_id="part", deferred=True).is_future


def test_jobs_without_our_options_are_rqs(queue: Queue, connection: redis.Redis) -> None:
    ours = queue.enqueue("operator.add", 1, 2, job_id="same", description="same")
    fields = set(connection.hgetall(ours.key))
    connection.flushall()
    theirs = RQQueue(connection=connection).enqueue(
        "operator.add", 1, 2, job_id="same", description="same"
    )
    assert set(connection.hgetall(theirs.key)) == fields
    assert isinstance(ours, Job)
    assert not isinstance(RQJob.fetch("same", connection), Job)
