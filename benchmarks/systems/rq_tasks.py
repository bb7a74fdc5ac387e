"""RQ: `depends_on`."""

from __future__ import annotations

import os

from body import Body
from redis import Redis
from rq import Queue

queue = Queue(connection=Redis.from_url(os.environ["BENCHMARK_URL"]))
NOTHING = "mark.nothing"
JOIN = "mark.join"


def fan_in(count: int, body: Body, hold: bool) -> None:
    """Enqueue the blockers at once, and then the join."""
    function = f"mark.{body.name}"
    datas = [Queue.prepare_data(function, body.arguments) for _ in range(count)]
    queue.enqueue(JOIN, depends_on=queue.enqueue_many(datas))


def chain(count: int, hold: bool) -> None:
    """Enqueue one after another."""
    last = queue.enqueue(NOTHING)
    for _ in range(count - 2):
        last = queue.enqueue(NOTHING, depends_on=last)
    queue.enqueue(JOIN, depends_on=last)


def diamonds(count: int, hold: bool) -> None:
    """Enqueue a source, four jobs behind it, and a join, so many times."""
    for _ in range(count):
        source = queue.enqueue(NOTHING)
        queue.enqueue(
            JOIN, depends_on=[queue.enqueue(NOTHING, depends_on=source) for _ in range(4)]
        )


def one() -> None:
    """Enqueue one job."""
    queue.enqueue(NOTHING)
