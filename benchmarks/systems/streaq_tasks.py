"""streaq: tasks that start after others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import mark
from body import Body
from streaq import Worker

worker = Worker(redis_url=os.environ["BENCHMARK_URL"], concurrency=1)
loop = asyncio.new_event_loop()


@worker.task()
async def nothing(*_: object) -> None:
    """Do nothing, whatever the job before has returned."""
    mark.nothing()


@worker.task()
async def spin(ms: float) -> None:
    """Use the processor."""
    mark.spin(ms)


@worker.task()
async def take(payload: str) -> None:
    """Take an argument."""
    mark.take(payload)


@worker.task()
async def join(*_: object) -> None:
    """Be the job that waits for the others, whatever they have returned."""
    mark.join()


def fan_in(count: int, body: Body, hold: bool) -> None:
    """Enqueue the jobs at once, and then the join."""
    _run(_fan_in(count, globals()[body.name], body.arguments))


def chain(count: int, hold: bool) -> None:
    """Enqueue one after another."""
    _run(_chain(count))


def diamonds(count: int, hold: bool) -> None:
    """Enqueue a source, four jobs behind it, and a join, so many times."""
    _run(_diamonds(count))


def one() -> None:
    """Enqueue one job."""
    _run(_one())


async def _fan_in(count: int, task: Any, arguments: tuple[Any, ...]) -> None:
    tasks = [task.enqueue(*arguments) for _ in range(count)]
    await worker.enqueue_many(tasks)
    await join.enqueue().start(after=[each.id for each in tasks])


async def _chain(count: int) -> None:
    last = await nothing.enqueue()
    for _ in range(count - 2):
        last = await nothing.enqueue().start(after=last.id)
    await join.enqueue().start(after=last.id)


async def _diamonds(count: int) -> None:
    for _ in range(count):
        source = await nothing.enqueue()
        middle = [await nothing.enqueue().start(after=source.id) for _ in range(4)]
        await join.enqueue().start(after=[each.id for each in middle])


async def _one() -> None:
    await nothing.enqueue()


def _run(declaring: Coroutine[Any, Any, None]) -> None:
    loop.run_until_complete(_connected(declaring))


async def _connected(declaring: Coroutine[Any, Any, None]) -> None:
    async with worker:
        await declaring
