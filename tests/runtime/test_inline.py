"""Synchronous queues: the release runs everything in this process."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from flowq.runtime.job import Job
from flowq.runtime.queue import Queue


@pytest.fixture
def inline(connection: redis.Redis) -> Queue:
    return Queue(connection=connection, is_async=False)


def test_the_release_runs_the_blockers_in_order_and_then_the_future_job(
    inline: Queue, tmp_path: Any
) -> None:
    log = tmp_path / "log"
    future = inline.enqueue("runtime_jobs.note", str(log), "last", deferred=True)
    for text in ("one", "two"):
        inline.enqueue("runtime_jobs.note", str(log), text, blocked_by=future)
    assert not log.exists()
    assert future.release() is True
    assert log.read_text().split() == ["one", "two", "last"]
    assert (future.get_status(), future.return_value()) == ("finished", "last")
    assert [outcome.result for outcome in future.blockers] == ["one", "two"]


def test_a_future_job_without_blockers_runs_at_once(inline: Queue) -> None:
    future = inline.enqueue("operator.add", 1, 2, deferred=True)
    future.release()
    assert future.return_value() == 3


@pytest.mark.parametrize("order", ["inner first", "outer first"])
def test_nested_future_jobs_run_whichever_is_released_first(
    inline: Queue, tmp_path: Any, order: str
) -> None:
    log = tmp_path / "log"
    outer = inline.enqueue("runtime_jobs.note", str(log), "outer", deferred=True)
    inner = inline.enqueue("runtime_jobs.note", str(log), "inner", deferred=True, blocks=outer)
    inline.enqueue("runtime_jobs.note", str(log), "leaf", blocked_by=inner)
    for job in (inner, outer) if order == "inner first" else (outer, inner):
        job.release()
    assert log.read_text().split() == ["leaf", "inner", "outer"]


def test_a_failed_blocker_leaves_the_future_job_waiting_and_a_policy_lets_it_run(
    inline: Queue,
) -> None:
    waits = inline.enqueue("operator.add", 1, 2, deferred=True)
    runs = inline.enqueue("operator.add", 1, 2, deferred=True, on_blocker_failure="run")
    skipped = inline.enqueue("operator.add", 1, 2, deferred=True, on_blocker_failure="skip")
    inline.enqueue("runtime_jobs.fail", blocked_by=[waits, runs, skipped])
    for job in (waits, runs, skipped):
        job.release()
    statuses = [job.get_status() for job in (waits, runs, skipped)]
    assert statuses == ["deferred", "finished", "canceled"]


def test_a_blocker_may_add_blockers_to_the_future_job_while_it_runs(
    inline: Queue, tmp_path: Any
) -> None:
    log = tmp_path / "log"
    future: Job = inline.enqueue("runtime_jobs.note", str(log), "last", deferred=True)
    inline.enqueue("runtime_jobs.note", str(log), "first", blocked_by=future)
    inline.enqueue(
        "runtime_jobs.add_inline", future.id, "runtime_jobs.note", str(log), "added", blocks=future
    )
    future.release()
    assert log.read_text().split() == ["first", "added", "last"]


def test_deleted_blockers_and_dependencies(inline: Queue) -> None:
    future = inline.enqueue("operator.add", 1, 2, deferred=True)
    dependency = inline.enqueue("operator.add", 1, 1)
    inline.enqueue("operator.add", 2, 2, blocked_by=future, depends_on=dependency)
    inline.enqueue("operator.add", 1, 1, blocked_by=future).delete()
    future.release()
    assert future.get_status() == "finished"


def test_enqueue_many_and_plain_jobs(inline: Queue) -> None:
    future, blocker, plain = inline.enqueue_many(
        [
            Queue.prepare_data("operator.add", (1, 2), job_id="f", deferred=True),
            Queue.prepare_data("operator.add", (3, 4), blocked_by="f"),
            Queue.prepare_data("operator.add", (5, 6)),
        ]
    )
    assert (plain.return_value(), blocker.return_value(refresh=True)) == (11, None)
    future.release()
    assert (blocker.return_value(refresh=True), future.return_value()) == (7, 3)
