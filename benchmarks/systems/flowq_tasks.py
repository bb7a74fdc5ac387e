"""flowq: future jobs and their blockers, which are enqueued in batches, as `.map` does."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import islice

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
    """Enqueue the last one first."""
    last = after = queue.enqueue(JOIN, deferred=True)
    for _ in range(count - 2):
        after = queue.enqueue(NOTHING, deferred=True, blocked_by=after)
    queue.enqueue(NOTHING, blocked_by=after)
    _release([last], hold)


def diamonds(count: int, hold: bool) -> None:
    """Enqueue a join, four jobs before it, and their source, so many times."""
    lasts = []
    for _ in range(count):
        last = queue.enqueue(JOIN, deferred=True)
        middle = [queue.enqueue(NOTHING, deferred=True, blocked_by=last) for _ in range(4)]
        queue.enqueue(NOTHING, blocked_by=middle)
        lasts.append(last)
    _release(lasts, hold)


def one() -> None:
    """Enqueue one job."""
    queue.enqueue(NOTHING)


def go() -> None:
    """Release what is held."""
    while held:
        held.pop(0).release(cascade=True)


def _release(lasts: list[Job], hold: bool) -> None:
    held.extend(lasts)
    if not hold:
        go()


def _enqueue_all(datas: Iterable[EnqueueData], size: int) -> None:
    left = iter(datas)
    while batch := list(islice(left, size)):
        queue.enqueue_many(batch)
