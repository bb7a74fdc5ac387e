"""Celery: chords and chains."""

from __future__ import annotations

import os

import mark
from body import Body
from celery import Celery, chord, group
from celery import chain as chain_of

URL = os.environ["BENCHMARK_URL"]
app = Celery("tasks", broker=URL, backend=URL)
app.conf.update(broker_connection_retry_on_startup=True)
kept = []
"""Results: one that is dropped unsubscribes, which takes time."""

nothing = app.task(mark.nothing)
spin = app.task(mark.spin)
take = app.task(mark.take)
join = app.task(mark.join)


def fan_in(count: int, body: Body, hold: bool) -> None:
    """A chord."""
    task = globals()[body.name]
    kept.append(chord([task.si(*body.arguments) for _ in range(count)])(join.si()))


def chain(count: int, hold: bool) -> None:
    """A chain."""
    kept.append(chain_of(*[nothing.si() for _ in range(count - 1)], join.si()).apply_async())


def diamonds(count: int, hold: bool) -> None:
    """A chain with a group in it, so many times."""
    for _ in range(count):
        middle = group(nothing.si() for _ in range(4))
        kept.append(chain_of(nothing.si(), middle, join.si()).apply_async())


def one() -> None:
    """Enqueue one job."""
    kept.append(nothing.delay())
