"""What the state machine of tests/property and the thinking about it have found, made short."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from rq.job import JobStatus

from flowq.errors import FutureEnded, WrongState
from flowq.plan import Call, Commit, Enqueue, Plan, Release
from flowq.runtime import keys, retry, runs, scripts, steps
from flowq.runtime.job import Job, get_job
from flowq.runtime.queue import Queue
from flowq.spec import Block

Work = Callable[..., None]
EdgeOf = Callable[[Job, Job], str]


def future_jobs(queue: Queue, count: int, **options: str) -> list[Job]:
    return [queue.enqueue("operator.add", 1, 2, deferred=True, **options) for _ in range(count)]


def add(queue: Queue, job_id: str, *futures: Job) -> Job:
    return queue.enqueue("operator.add", 1, 1, job_id=job_id, blocked_by=list(futures))


def test_a_deleted_blocker_that_is_added_again_is_one_blocker(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    """It was listed twice, and its second gate was lifted with the first."""
    future, other = future_jobs(queue, 2, on_blocker_failure="skip")
    add(queue, "again", future, other).delete()
    again = add(queue, "again", future, other)
    assert connection.lrange(keys.blockers(future.id), 0, -1) == [b"again"]
    future.release()
    assert again.get_status() == "deferred", "the other has not been released"
    other.release()
    work()
    assert [job.get_status() for job in (future, other)] == ["finished", "finished"]


def test_an_id_used_again_in_front_of_another_future_job_keeps_that_ones_gate(
    queue: Queue,
) -> None:
    future, other = future_jobs(queue, 2)
    add(queue, "again", future).delete()
    again = add(queue, "again", other)
    future.release()
    assert [job.get_status() for job in (future, again)] == ["queued", "deferred"]


def test_an_id_used_again_is_in_the_dependents_of_nobody_while_it_is_held(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    """RQ remembered the deleted job as a dependent, and queued the new one in spite of its gate."""
    dependency = Queue("slow", connection=connection).enqueue("operator.add", 1, 1)
    future, other = future_jobs(queue, 2)

    def add_dependent(target: Job) -> Job:
        options = {"job_id": "again", "depends_on": dependency, "blocked_by": target}
        return queue.enqueue("operator.add", 1, 1, **options)

    add_dependent(future)
    future.release()
    get_job("again", connection).delete()
    again = add_dependent(other)
    work(None, "slow")
    assert again.get_status() == "deferred"
    other.release()
    work()
    assert other.get_status() == "finished"


def test_a_job_that_expires_leaves_no_note_of_its_dependency(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    dependency = queue.enqueue("operator.add", 1, 1)
    (future,) = future_jobs(queue, 1)
    blocker = queue.enqueue(
        "operator.add", 1, 1, blocked_by=future, depends_on=dependency, ttl=1_000
    )
    future.release()
    work(max_jobs=1)
    connection.delete(blocker.key)  # as the server does when its ttl is over
    work()
    assert future.get_status() == "canceled"
    assert not connection.keys(f"*{blocker.id}*")


@pytest.mark.parametrize("place", [0, 1])
def test_a_blocker_is_added_again_while_its_future_job_is_being_released(
    queue: Queue, connection: redis.Redis, work: Work, place: int
) -> None:
    (future,) = future_jobs(queue, 1)
    jobs = [add(queue, f"b{n}", future) for n in range(2)]
    jobs[place].delete()
    assert scripts.RELEASE.call(connection, future.key, future.id, 0) == [1]
    scripts.STEP.call(connection, keys.TODO, f"free:{future.id}", 1)
    again = add(queue, f"b{place}", future)
    assert again.get_status() == ("queued" if place == 0 else "deferred")
    steps.run_steps(connection)
    work()
    assert future.get_status() == "finished"


@pytest.mark.parametrize("by", ["another end", "a requeue"])
def test_a_join_that_only_rqs_dependency_holds_still_minds_its_blockers(
    queue: Queue, connection: redis.Redis, work: Work, edge: EdgeOf, by: str
) -> None:
    dependency = Queue("slow", connection=connection).enqueue("operator.add", 1, 1)
    future = queue.enqueue(
        "operator.add", 1, 2, deferred=True, on_blocker_failure="run", depends_on=dependency
    )
    blocker = add(queue, "b", future)
    future.release()
    work()
    assert connection.hget(keys.future(future.id), "state") == b"met"
    if by == "another end":
        get_job("b", connection).set_status(JobStatus.STOPPED)
        assert edge(blocker, future) == "stopped"
    else:
        with connection.pipeline() as pipeline:  # it is started again
            get_job("b", connection).prepare_for_execution("worker", pipeline)
            pipeline.execute()
        work(None, "slow")
        assert future.get_status() == "deferred"
        get_job("b", connection).set_status(JobStatus.FINISHED)
    work(None, "slow", "default")
    assert future.get_status() == "finished"


def submit(connection: redis.Redis) -> None:
    """One future job in a run, and one blocker of it."""
    call = "runtime_jobs:any_keyword"
    last = Enqueue("r-last", "last", Call(call, {"a": 1}), deferred=True, is_open=True)
    first = Enqueue(
        "r-first", "first", Call("runtime_jobs:any_keyword", {"a": 1}), blocks=(Block("r-last"),)
    )
    plan = Plan("r", "demo", {}, (last, first, Commit("r"), Release("r-last")))
    runs.submit(plan, connection)


def test_a_future_job_that_joined_a_run_late_is_released_by_its_retry(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    """Nobody else would: the run never reached an end."""
    submit(connection)
    (late,) = future_jobs(queue, 1, on_blocker_failure="skip", blocked_by="r-last")
    queue.enqueue("runtime_jobs.fail", blocked_by=late)
    late.release()
    work()
    assert runs.get_record("r", connection).state == "failed"
    for _ in range(2):
        retry.retry("r", connection)
        assert runs.get_record("r", connection).state == "running"
        work()
        assert runs.get_record("r", connection).state == "failed"


def test_adding_to_a_job_whose_run_is_over_says_what_became_of_the_job(
    queue: Queue, connection: redis.Redis
) -> None:
    submit(connection)
    runs.cancel("r", connection)
    with pytest.raises(FutureEnded, match="r-last"):
        queue.enqueue("operator.add", 1, 1, blocked_by="r-last")


def test_a_retry_holds_only_what_it_releases_again(
    queue: Queue, connection: redis.Redis, work: Work, tmp_path: Path
) -> None:
    """The gate of a future job outside of the run was closed again, and nobody opened it."""
    submit(connection)
    (outside,) = future_jobs(queue, 1)
    shared = queue.enqueue(
        "runtime_jobs.fail_unless", str(tmp_path / "flag"), blocked_by=["r-last", outside]
    )
    outside.release()
    work()
    assert runs.get_record("r", connection).state == "failed"
    (tmp_path / "flag").touch()
    assert set(retry.retry("r", connection)) == {"r-last", shared.id}
    assert shared.get_status() == "queued"
    work()
    assert runs.get_record("r", connection).state == "succeeded"
    assert outside.get_status() == "finished"


def test_a_retry_with_nothing_left_to_do_is_refused_in_words(
    connection: redis.Redis, work: Work
) -> None:
    """A success that came after the end of the run: it was an error of the script."""
    submit(connection)
    runs.cancel("r", connection)
    for job_id in ("r-first", "r-last"):
        get_job(job_id, connection).set_status(JobStatus.FINISHED)
    with pytest.raises(WrongState, match="nothing to retry"):
        retry.retry("r", connection)


def test_a_failed_job_of_a_run_that_is_requeued_and_expires_counts_once(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    submit(connection)
    failing = queue.enqueue("runtime_jobs.fail", blocked_by="r-last", ttl=1_000)
    steps.run_steps(connection)
    work()
    assert connection.hmget(keys.run("r"), "left", "bad") == [b"0", b"1"]
    get_job(failing.id, connection).requeue()
    connection.delete(failing.key)  # as the server does when its ttl is over
    work()
    assert connection.hmget(keys.run("r"), "left", "bad") == [b"0", b"1"]


def test_a_retry_takes_over_what_was_requeued_by_rqs_tools(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    """It was in its queue twice."""
    submit(connection)
    failing = queue.enqueue("runtime_jobs.fail", blocked_by="r-last")
    work()
    get_job(failing.id, connection).requeue()
    retry.retry("r", connection)
    assert queue.job_ids == [failing.id]
