"""flowq: future jobs and their blockers, enqueued in batches, as a submitted workflow is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from uuid import uuid4

from body import Body
from redis import Redis
from rq.queue import EnqueueData

from flowq.runtime.job import Job
from flowq.runtime.queue import Queue

queue = Queue(connection=Redis.from_url(os.environ["BENCHMARK_URL"]))
held: list[Job] = []
NOTHING = "mark.nothing"
JOIN = "mark.join"
BATCH = 500
PAYLOADS_BATCH = 50


def fan_in(count: int, body: Body, hold: bool) -> None:
    """Enqueue the join first, and then its blockers."""
    last = queue.enqueue(JOIN, deferred=True)
    function = f"mark.{body.name}"
    _enqueue_all(
        (Queue.prepare_data(function, body.arguments, blocked_by=last) for _ in range(count)),
        PAYLOADS_BATCH if body.name == "take" else BATCH,
    )
    _release([last], hold)


def chain(count: int, hold: bool) -> None:
    """Enqueue all of it, the last one first."""
    _release(_enqueue_all(_chain(count)), hold)


def diamonds(count: int, hold: bool) -> None:
    """Enqueue all of them, each from its join to its source."""
    _release(_enqueue_all(data for _ in range(count) for data in _diamond()), hold)


def one() -> None:
    """Enqueue one job."""
    queue.enqueue(NOTHING)


def go() -> None:
    """Release what is held."""
    while held:
        held.pop(0).release(cascade=True)


def _chain(count: int) -> Iterator[EnqueueData]:
    after = uuid4().hex
    yield Queue.prepare_data(JOIN, job_id=after, deferred=True)
    for _ in range(count - 2):
        before = uuid4().hex
        yield Queue.prepare_data(NOTHING, job_id=before, deferred=True, blocked_by=after)
        after = before
    yield Queue.prepare_data(NOTHING, blocked_by=after)


def _diamond() -> Iterator[EnqueueData]:
    last, *middle = (uuid4().hex for _ in range(5))
    yield Queue.prepare_data(JOIN, job_id=last, deferred=True)
    for each in middle:
        yield Queue.prepare_data(NOTHING, job_id=each, deferred=True, blocked_by=last)
    yield Queue.prepare_data(NOTHING, blocked_by=middle)


def _release(joins: list[Job], hold: bool) -> None:
    held.extend(joins)
    if not hold:
        go()


def _enqueue_all(datas: Iterable[EnqueueData], size: int = BATCH) -> list[Job]:
    """Enqueue in batches; return the joins."""
    left = iter(datas)
    joins = []
    while batch := list(islice(left, size)):
        joins += [job for job in queue.enqueue_many(batch) if job.func_name == JOIN]
    return joins
