"""What type checkers have to accept, and to see as it is; nothing here is executed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta
from typing import assert_type

from redis import Redis

import flowq

queue = flowq.Queue(connection=flowq.connect())
queue = flowq.Queue(connection=Redis())
future = assert_type(queue.enqueue("operator.add", 1, 2, deferred=True), flowq.Job)
assert_type(queue.enqueue("math.factorial", 3, blocked_by=future), flowq.Job)
assert_type(queue.enqueue_call("math.factorial", args=(3,)), flowq.Job)
assert_type(queue.enqueue_in(timedelta(seconds=1), "math.factorial", 3), flowq.Job)
assert_type(queue.create_job("math.factorial", (3,)), flowq.Job)
assert_type(queue.enqueue_job(queue.create_job("math.factorial", (3,))), flowq.Job)
data = flowq.Queue.prepare_data("math.factorial", (3,), blocked_by=future)
assert_type(queue.enqueue_many([data]), list[flowq.Job])
assert_type(queue.fetch_job("id"), flowq.Job | None)
assert_type(flowq.Job.fetch("id", connection=Redis()), flowq.Job)
assert_type(future.release(), bool)
flowq.release_job(future)


@flowq.job
def plain(path: str, size: int = 1) -> int:
    """Count."""
    return len(path) * size


@flowq.job(timeout="30s", retries=3)
def configured(path: str) -> int:
    """Count."""
    return len(path)


@flowq.deferred(queue="reports")
def report(title: str) -> str:
    """Write."""
    return title


assert_type(plain("a", size=2), int)
assert_type(configured("a"), int)
assert_type(plain.enqueue("a"), flowq.Job)
assert_type(plain.enqueue("a", size=2), flowq.Job)
assert_type(plain.enqueue(path="a", size=2, blocks=future), flowq.Job)
assert_type(configured.enqueue("a", blocked_by=[future], timeout=3), flowq.Job)
assert_type(configured.options(blocks=future).enqueue("a"), flowq.Job)
assert_type(report.open("a"), AbstractContextManager[flowq.Job])
assert_type(plain.map(["a", "b"], blocks=future), list[flowq.Job])
with report.open(title="a") as opened:
    assert_type(opened, flowq.Job)
