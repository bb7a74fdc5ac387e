"""The same promises under flowq's own worker, whose scripts end jobs without RQ's Python code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from flowq.runtime import keys
from flowq.runtime.job import get_job
from flowq.runtime.maintenance import Pass
from flowq.runtime.queue import Queue
from flowq.runtime.steps import run_steps
from flowq.workers import Worker
from tests import JOBS_FOLDER


@pytest.fixture
def own_work(connection: redis.Redis) -> Callable[[], None]:
    def run() -> None:
        worker = Worker(["default"], connection=connection, paths=[JOBS_FOLDER], mode="warm")
        worker.work(burst=True, logging_level="CRITICAL")

    return run


def test_a_future_job_waits_for_success_failure_and_requeue(
    queue: Queue, connection: redis.Redis, own_work: Callable[[], None], tmp_path: Path
) -> None:
    flag, log = tmp_path / "flag", tmp_path / "log"
    waits = queue.enqueue("runtime_jobs.note", str(log), "waits", deferred=True)
    skipped = queue.enqueue(
        "runtime_jobs.note", str(log), "skipped", deferred=True, on_blocker_failure="skip"
    )
    runs = queue.enqueue(
        "runtime_jobs.note", str(log), "runs", deferred=True, on_blocker_failure="run"
    )
    blocker = queue.enqueue(
        "runtime_jobs.fail_unless", str(flag), blocked_by=[waits, skipped, runs]
    )
    good = queue.enqueue("runtime_jobs.note", str(log), "good", blocked_by=waits, result_ttl=0)
    for job in (waits, skipped, runs):
        job.release()
    own_work()
    assert log.read_text().split() == ["good", "runs"]
    assert (waits.get_status(), skipped.get_status()) == ("deferred", "canceled")
    assert waits.blockers[1].result == "good"
    flag.touch()
    get_job(blocker.id, connection).requeue()
    own_work()
    assert sorted(log.read_text().split()) == ["good", "runs", "skipped", "waits"]
    while run_steps(connection):
        pass
    assert connection.exists(good.key) == 0
    assert 0 < connection.ttl(blocker.key) <= 500


def test_blockers_are_retired_although_the_result_of_the_future_job_was_gone_before(
    queue: Queue,
    connection: redis.Redis,
    own_work: Callable[[], None],
    wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True, result_ttl=100)
    blocker = queue.enqueue("operator.add", 1, 2, blocked_by=future)
    future.release()
    with monkeypatch.context() as patched:  # as if it was killed before the maintenance
        patched.setattr("flowq.workers.periodic.make_pass", lambda connection: Pass(0, [], []))
        own_work()
    assert future.get_status() == "finished"
    assert connection.zscore(keys.TODO, f"retire:{future.id}") is not None
    connection.pexpire(future.key, 1)
    wait_until(lambda: not connection.exists(future.key))
    while run_steps(connection):
        pass
    assert 0 < connection.ttl(blocker.key) <= 500
    assert connection.exists(keys.future(future.id), keys.edges(future.id)) == 0
    assert connection.exists(keys.blockers(future.id)) == 0


def test_a_future_job_that_keeps_nothing_ends_all_the_same(
    queue: Queue, connection: redis.Redis, own_work: Callable[[], None]
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True, result_ttl=0)
    queue.enqueue("operator.add", 1, 2, blocked_by=future)
    future.release()
    own_work()
    while run_steps(connection):
        pass
    assert not [key for key in connection.keys("*") if future.id.encode() in key]


def test_a_job_whose_ttl_was_over_settles_as_expired(
    queue: Queue, connection: redis.Redis, own_work: Callable[[], None]
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future, ttl=100)
    future.release()
    connection.delete(blocker.key)
    own_work()
    assert connection.hget(future.key, "flowq_outcome") == b"skipped"
