"""huey: chords and pipelines."""

from __future__ import annotations

import os
from typing import Any

import mark
from body import Body
from huey import RedisHuey, group

huey = RedisHuey("tasks", url=os.environ["BENCHMARK_URL"])


@huey.task()
def nothing(*_: object) -> None:
    """Do nothing, whatever the job before has returned."""
    mark.nothing()


@huey.task()
def join(*_: object) -> None:
    """Be the job that waits for the others, whatever they have returned."""
    mark.join()


@huey.task()
def source() -> None:
    """Begin a diamond: a pipeline cannot hold a chord, so the rest is enqueued by its first job."""
    mark.nothing()
    _join_behind(4, nothing, ())


spin = huey.task()(mark.spin)
take = huey.task()(mark.take)


def fan_in(count: int, body: Body, hold: bool) -> None:
    """A chord."""
    _join_behind(count, globals()[body.name], body.arguments)


def chain(count: int, hold: bool) -> None:
    """A pipeline."""
    first = nothing.s()
    for _ in range(count - 2):
        first.then(nothing)
    huey.enqueue(first.then(join))


def diamonds(count: int, hold: bool) -> None:
    """The sources."""
    for _ in range(count):
        source()


def one() -> None:
    """Enqueue one job."""
    nothing()


def _join_behind(count: int, task: Any, arguments: tuple[Any, ...]) -> None:
    huey.enqueue(group([task.s(*arguments) for _ in range(count)]).then(join))
