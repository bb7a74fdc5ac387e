"""saq: no join that is stored; `Queue.map` waits for the results where it was called."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import mark
from body import Body
from saq import Queue

queue = Queue.from_url(os.environ["BENCHMARK_URL"], name="tasks")
loop = asyncio.new_event_loop()
WAIT_S = 600
RETRIES = 3
"""A worker that starts may sweep a job that it has just taken from the queue."""


async def nothing(_: object) -> None:
    """Do nothing."""
    mark.nothing()


async def spin(_: object, *, value: float) -> None:
    """Use the processor."""
    mark.spin(value)


async def take(_: object, *, value: str) -> None:
    """Take an argument."""
    mark.take(value)


settings = {"queue": queue, "functions": [nothing, spin, take], "concurrency": 10}


def fan_in(count: int, body: Body, hold: bool) -> None:
    """Enqueue the jobs; unless they are held, wait for them, and be the join."""
    arguments: dict[str, Any] = {"value": body.arguments[0]} if body.arguments else {}
    if hold:
        loop.run_until_complete(_enqueue_all(count, body.name, arguments))
        return
    loop.run_until_complete(queue.map(body.name, [arguments] * count, timeout=WAIT_S))
    mark.join()


def one() -> None:
    """Enqueue one job."""
    loop.run_until_complete(queue.enqueue("nothing", retries=RETRIES))


async def _enqueue_all(count: int, name: str, arguments: dict[str, Any]) -> None:
    for _ in range(count):
        await queue.enqueue(name, retries=RETRIES, **arguments)
