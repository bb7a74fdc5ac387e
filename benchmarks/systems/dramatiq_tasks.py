"""Dramatiq: groups with a completion callback, and pipelines."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
import mark
from body import Body
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend

URL = os.environ["BENCHMARK_URL"]
broker = RedisBroker(url=URL)
broker.add_middleware(GroupCallbacks(RedisBackend(url=URL)))
dramatiq.set_broker(broker)

nothing = dramatiq.actor(mark.nothing, max_retries=0)
spin = dramatiq.actor(mark.spin, max_retries=0)
take = dramatiq.actor(mark.take, max_retries=0)
join = dramatiq.actor(mark.join, max_retries=0)


@dramatiq.actor(max_retries=0)
def source() -> None:
    """Begin a diamond: a pipeline cannot hold a group, so the rest is enqueued by its first job."""
    mark.nothing()
    _join_behind(4, nothing, ())


def fan_in(count: int, body: Body, hold: bool) -> None:
    """A group with the join as its callback."""
    _join_behind(count, globals()[body.name], body.arguments)


def chain(count: int, hold: bool) -> None:
    """A pipeline."""
    after = {"pipe_ignore": True}
    middle = [nothing.message_with_options(**after) for _ in range(count - 2)]
    dramatiq.pipeline([nothing.message(), *middle, join.message_with_options(**after)]).run()


def diamonds(count: int, hold: bool) -> None:
    """The sources."""
    for _ in range(count):
        source.send()


def one() -> None:
    """Enqueue one job."""
    nothing.send()


def _join_behind(count: int, actor: Any, arguments: tuple[Any, ...]) -> None:
    group = dramatiq.group([actor.message(*arguments) for _ in range(count)])
    group.add_completion_callback(join.message())
    group.run()
