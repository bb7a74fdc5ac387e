"""A failed blocker that is requeued: its edges hold again, and what was skipped revives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from rq.registry import FailedJobRegistry

from flowq.runtime import keys
from flowq.runtime.job import Job, get_job
from flowq.runtime.queue import Queue

Work = Callable[..., None]
EdgeOf = Callable[[Job, Job], str]
Tidy = Callable[[], None]


def test_a_failure_that_would_not_be_kept_can_still_be_requeued(
    queue: Queue, connection: redis.Redis, work: Work, edge: EdgeOf, tmp_path: Any
) -> None:
    flag = tmp_path / "flag"
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("runtime_jobs.fail_unless", str(flag), blocked_by=future, failure_ttl=0)
    future.release()
    work()
    assert edge(blocker, future) == "failed"
    flag.touch()
    get_job(blocker.id, connection).requeue()
    work()
    assert future.get_status() == "finished"
    assert connection.hget(blocker.key, "failure_ttl") == b"0"


def test_a_requeued_blocker_counts_with_its_last_outcome(
    queue: Queue, connection: redis.Redis, work: Work, edge: EdgeOf, tmp_path: Any
) -> None:
    flag = tmp_path / "flag"
    future = queue.enqueue("runtime_jobs.note", str(tmp_path / "log"), "ran", deferred=True)
    blocker = queue.enqueue("runtime_jobs.fail_unless", str(flag), blocked_by=future)
    queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    work()
    assert (edge(blocker, future), future.get_status()) == ("failed", "deferred")
    assert future.blockers[0].error == f"ValueError: {flag} is missing"
    flag.touch()
    get_job(blocker.id, connection).requeue()
    work()
    assert (edge(blocker, future), future.get_status()) == ("finished", "finished")
    assert (tmp_path / "log").read_text() == "ran\n"


def test_requeue_with_rqs_own_classes_keeps_what_the_job_blocks(
    queue: Queue, connection: redis.Redis, work: Work, tmp_path: Any
) -> None:
    flag = tmp_path / "flag"
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("runtime_jobs.fail_unless", str(flag), blocked_by=future)
    future.release()
    work()
    flag.touch()
    FailedJobRegistry("default", connection=connection).requeue(blocker.id)
    work()
    assert future.get_status() == "finished"


def test_a_skipped_future_job_is_revived_when_its_failed_blocker_runs_again(
    queue: Queue, connection: redis.Redis, work: Work, tmp_path: Any, tidy: Tidy
) -> None:
    flag, log = tmp_path / "flag", str(tmp_path / "log")
    last = queue.enqueue("runtime_jobs.note", log, "last", deferred=True, on_blocker_failure="skip")
    middle = queue.enqueue(
        "runtime_jobs.note", log, "middle", deferred=True, on_blocker_failure="skip", blocks=last
    )
    blocker = queue.enqueue("runtime_jobs.fail_unless", str(flag), blocks=middle)
    last.release()
    middle.release()
    work()
    assert (middle.get_status(), last.get_status()) == ("canceled", "canceled")
    flag.touch()
    get_job(blocker.id, connection).requeue()
    work()
    assert (middle.get_status(), last.get_status()) == ("finished", "finished")
    assert (tmp_path / "log").read_text() == "middle\nlast\n"
    tidy()
    assert 0 < connection.ttl(blocker.key) <= 500
    assert connection.zcard("rq:canceled:default") == 0


def test_a_join_that_has_run_is_not_run_again_by_a_requeue(
    queue: Queue, connection: redis.Redis, work: Work, tmp_path: Any
) -> None:
    log = tmp_path / "log"
    future = queue.enqueue(
        "runtime_jobs.note", str(log), "ran", deferred=True, on_blocker_failure="run"
    )
    blocker = queue.enqueue("runtime_jobs.fail", blocked_by=future)
    future.release()
    work()
    get_job(blocker.id, connection).requeue()
    work()
    assert log.read_text() == "ran\n"


def test_while_a_requeued_future_job_runs_its_blockers_can_be_read(
    queue: Queue, connection: redis.Redis, work: Work, tidy: Tidy
) -> None:
    """Its first end had given a time to live to everything."""
    future = queue.enqueue("runtime_jobs.fail", deferred=True, failure_ttl=50)
    queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    work()
    tidy()
    assert 0 < connection.ttl(keys.blockers(future.id)) <= 50
    failed = get_job(future.id, connection)
    failed.requeue()
    with connection.pipeline() as pipeline:
        failed.prepare_for_execution("worker", pipeline)
        pipeline.execute()
    for key in (keys.blockers, keys.edges, keys.future):
        assert connection.ttl(key(future.id)) == -1
