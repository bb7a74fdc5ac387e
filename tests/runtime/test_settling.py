"""What becomes of a future job when its blockers end: every end, every policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from rq import Callback, Repeat, Retry
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.registry import FinishedJobRegistry, StartedJobRegistry

from flowq.runtime import keys, scripts
from flowq.runtime.holds import Edge
from flowq.runtime.job import Job, get_job
from flowq.runtime.queue import Queue

Work = Callable[..., None]
EdgeOf = Callable[[Job, Job], str]


def enqueue_that_will(end: str, queue: Queue, edge: Edge) -> Job:
    if end == "fail":
        return queue.enqueue("runtime_jobs.fail", blocked_by=edge)
    if end == "be skipped":
        blocker = queue.enqueue(
            "operator.add", 1, 1, blocked_by=edge, deferred=True, on_blocker_failure="skip"
        )
        queue.enqueue("runtime_jobs.fail", blocked_by=blocker)
        blocker.release()
        return blocker
    if end == "be skipped neutrally":
        blocker = queue.enqueue(
            "operator.add", 1, 1, blocked_by=edge, deferred=True, if_empty="skip"
        )
        blocker.release()
        return blocker
    return queue.enqueue("operator.add", 1, 1, blocked_by=edge, ttl=1_000)


def make_it(end: str, blocker: Job, work: Work) -> None:
    if end == "stop":
        blocker.set_status(JobStatus.STOPPED)
        blocker.connection.lrem("rq:queue:default", 0, blocker.id)
    elif end == "be canceled":
        blocker.cancel()
    elif end == "be deleted":
        blocker.delete()
    elif end == "expire":
        blocker.connection.delete(blocker.key)  # as the server does when its ttl is over
    work()


ENDS = (
    "finish",
    "be skipped neutrally",
    "fail",
    "stop",
    "be canceled",
    "be skipped",
    "be deleted",
    "expire",
)
GOES_ON = "finished"
HOLDS = "deferred"
SKIPPED = "canceled"
STATUS_BY_POLICY = {
    "wait": [GOES_ON, GOES_ON, HOLDS, HOLDS, HOLDS, HOLDS, GOES_ON, SKIPPED],
    "skip": [GOES_ON, GOES_ON, SKIPPED, SKIPPED, SKIPPED, SKIPPED, SKIPPED, SKIPPED],
    "run": [GOES_ON] * 8,
}


@pytest.mark.parametrize("policy", ["wait", "skip", "run"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("ignored", [False, True])
def test_the_table_of_ends_and_policies(
    queue: Queue, connection: redis.Redis, work: Work, end: str, policy: str, ignored: bool
) -> None:
    slow = Queue("slow", connection=connection)
    future = queue.enqueue("operator.add", 1, 2, deferred=True, on_blocker_failure=policy)
    last = slow.enqueue("operator.add", 1, 1, blocked_by=future)
    blocker = enqueue_that_will(end, queue, Edge(future, "ignore" if ignored else None))
    future.release()
    make_it(end, blocker, work)
    assert future.get_status() == "deferred", "it is decided when all have ended"
    work(None, "slow")
    assert last.get_status() == "finished"
    work()
    expected = GOES_ON if ignored else STATUS_BY_POLICY[policy][ENDS.index(end)]
    assert future.get_status() == expected
    if expected == SKIPPED:
        reason = connection.hget(future.key, "flowq_reason")
        assert reason.startswith(f"{blocker.id} ".encode())
        assert connection.hget(future.key, "flowq_outcome") == b"skipped"


def test_a_skip_propagates_and_a_neutral_one_does_not(queue: Queue, work: Work) -> None:
    last = queue.enqueue("operator.add", 1, 2, deferred=True, on_blocker_failure="skip")
    middle = queue.enqueue(
        "operator.add", 1, 2, deferred=True, on_blocker_failure="skip", blocked_by=last
    )
    queue.enqueue("runtime_jobs.fail", blocked_by=middle)
    last.release()
    middle.release()
    work()
    assert (middle.get_status(), last.get_status()) == ("canceled", "canceled")


def test_with_retries_left_nothing_is_settled(queue: Queue, work: Work, edge: EdgeOf) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True, on_blocker_failure="run")
    blocker = queue.enqueue("runtime_jobs.fail", blocked_by=future, retry=Retry(max=2))
    future.release()
    work(max_jobs=1)
    assert edge(blocker, future) == "pending"
    work(max_jobs=1)
    assert edge(blocker, future) == "pending"
    work(max_jobs=1)
    assert edge(blocker, future) == "failed"
    assert future.get_status() == "queued"


def test_a_returned_retry_is_no_end_until_there_are_too_many_of_them(
    queue: Queue, work: Work, edge: EdgeOf
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("runtime_jobs.ask_for_a_retry", blocked_by=future)
    future.release()
    work(max_jobs=1)
    assert (blocker.get_status(), edge(blocker, future)) == ("queued", "pending")
    work(max_jobs=1)
    assert (blocker.get_status(), edge(blocker, future)) == ("failed", "failed")


def test_what_fails_beside_the_function_is_a_failure_too(
    queue: Queue, work: Work, edge: EdgeOf
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True, on_blocker_failure="run")
    callback = Callback("runtime_jobs.raising_callback")
    raising = queue.enqueue("operator.add", 1, 2, blocked_by=future, on_success=callback)
    unknown = queue.enqueue("no_such_module.function", blocked_by=future)
    future.release()
    work(max_jobs=2)
    assert (edge(raising, future), edge(unknown, future)) == ("failed", "failed")
    assert future.get_status() == "queued"


def test_of_a_repeated_job_only_the_last_run_settles(
    queue: Queue, work: Work, edge: EdgeOf
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future, repeat=Repeat(times=2))
    future.release()
    for _ in range(2):
        work(max_jobs=1)
        assert edge(blocker, future) == "pending"
    work(max_jobs=1)
    assert edge(blocker, future) == "finished"
    assert future.get_status() == "queued"


@pytest.mark.parametrize("result_ttl", [0, 1, None, -1])
def test_success_settles_whatever_becomes_of_the_result(
    queue: Queue, work: Work, edge: EdgeOf, result_ttl: int | None
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True, result_ttl=result_ttl)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future, result_ttl=result_ttl)
    future.release()
    work(max_jobs=1)
    assert edge(blocker, future) == "finished"
    assert future.blockers[0].result == 2, "a result is kept until the future job has ended"
    assert future.get_status() == "queued"
    work()
    assert queue.count == 0


def test_a_job_of_rqs_own_class_with_result_ttl_0_is_told_from_a_deleted_one(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    """The only success that RQ commits without set_status: a future job that keeps nothing."""
    future = queue.enqueue("operator.add", 1, 2, deferred=True, result_ttl=0)
    queue.enqueue("operator.add", 1, 2, blocked_by=future)
    future.release()
    work()
    assert connection.exists(future.key) == 0
    assert connection.hget(keys.future(future.id), "state") == b"finished"


def test_a_blocker_that_ends_twice_counts_once_and_the_last_end_counts(
    queue: Queue, connection: redis.Redis, work: Work, edge: EdgeOf
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    twice = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    other = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    for status in (JobStatus.CANCELED, JobStatus.FINISHED, JobStatus.FINISHED):
        twice.set_status(status)
        assert future.get_status() == "deferred"
    other.set_status(JobStatus.FINISHED)
    assert future.get_status() == "queued"
    twice.set_status(JobStatus.FAILED)  # e.g. a stop command that came too late
    assert edge(twice, future) == "finished", "frozen since the decision"
    assert queue.job_ids.count(future.id) == 1


def test_settling_survives_a_flush_of_the_script_cache(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    queue.enqueue("operator.add", 1, 1, blocked_by=future)
    connection.script_flush()
    future.release()
    connection.script_flush()
    work()
    assert future.get_status() == "finished"


def test_a_dependent_added_while_the_blocker_runs_makes_rq_commit_again_and_settles_once(
    queue: Queue, connection: redis.Redis, work: Work, edge: EdgeOf, monkeypatch: Any
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    calls: list[str] = []
    append = scripts.SETTLE.append

    def append_after_a_change(pipeline: Any, key: str, job_id: str, *rest: Any) -> None:
        if not calls:  # another process registers a dependent between the reads and the commit
            with redis.Redis(connection_pool=connection.connection_pool) as other:
                Queue(connection=other).enqueue(
                    "operator.add", 3, 3, job_id="dependent", depends_on=job_id
                )
        calls.append(job_id)
        append(pipeline, key, job_id, *rest)

    monkeypatch.setattr(scripts.SETTLE, "append", append_after_a_change)
    work(max_jobs=1)
    assert calls == [blocker.id, blocker.id]
    assert edge(blocker, future) == "finished"
    assert queue.job_ids == [future.id, "dependent"]


def test_deleting_a_finished_blocker_takes_nothing_back(queue: Queue, work: Work) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True, on_blocker_failure="skip")
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    slow = Queue("slow", connection=queue.connection)
    slow.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    work()
    blocker.delete()  # with a copy that believes that the job is deferred
    work(None, "slow", "default")
    assert future.get_status() == "finished"


def test_deleting_a_failed_blocker_lets_the_future_job_go_on(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("runtime_jobs.fail", blocked_by=future)
    future.release()
    work()
    assert future.get_status() == "deferred"
    get_job(blocker.id, connection).delete()
    assert future.get_status() == "queued"


def test_deleting_in_a_pipeline_settles_with_it(
    queue: Queue, connection: redis.Redis, edge: EdgeOf
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    with connection.pipeline() as pipeline:
        blocker.delete(pipeline=pipeline)
        assert edge(blocker, future) == "pending"
        pipeline.execute()
    assert edge(blocker, future) == "deleted"
    assert future.get_status() == "queued"


def test_an_abandoned_blocker_settles_as_failed(
    queue: Queue, connection: redis.Redis, edge: EdgeOf
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True, on_blocker_failure="run")
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    queue.pop_job_id()
    registry = StartedJobRegistry("default", connection=connection, job_class=Job)
    with connection.pipeline() as pipeline:
        blocker.prepare_for_execution("a worker that dies", pipeline)
        pipeline.zadd(registry.key, {f"{blocker.id}:execution": 1})
        pipeline.execute()
    registry.cleanup()
    assert edge(blocker, future) == "failed"
    assert future.get_status() == "queued"


def test_emptying_and_deleting_a_queue_accounts_for_the_blockers_in_it(
    queue: Queue, connection: redis.Redis, edge: EdgeOf
) -> None:
    for remove in (Queue.empty, Queue.delete):
        other = Queue("other", connection=connection)
        future = queue.enqueue("operator.add", 1, 2, deferred=True)
        blockers = [other.enqueue("operator.add", 1, 1, blocked_by=future) for _ in range(3)]
        other.enqueue("operator.add", 1, 1)
        future.release()
        remove(other)
        assert other.count == 0
        assert [edge(job, future) for job in blockers] == ["deleted"] * 3
        assert future.get_status() == "queued"
        assert connection.exists(*(job.key for job in blockers)) == 0
    assert Queue("other", connection=connection).empty() == 0


def test_a_success_of_rqs_own_worker_class_is_not_seen_but_loses_nothing(
    queue: Queue, connection: redis.Redis, work_plainly: Work, edge: EdgeOf
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    work_plainly()
    assert RQJob.fetch(blocker.id, connection=connection).get_status() == "finished"
    assert edge(blocker, future) == "pending"
    fetched = get_job(blocker.id, connection)
    assert fetched.future_ids == (future.id,)
    fetched.set_status(JobStatus.FINISHED)  # what a maintenance pass does
    assert future.get_status() == "queued"
    assert blocker.id in FinishedJobRegistry("default", connection=connection)
