"""Which connection this process uses when a call says none."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rq import get_current_job

from flowq.runtime.queue import Queue

if TYPE_CHECKING:
    from redis import Redis

_remembered: Redis | None = None
# A forked child inherits it, which is safe: redis-py's pools notice the fork and connect anew. A
# spawned child does not: there the running job's connection, or the environment, serves.


def remember(connection: Redis | None) -> None:
    """Make a connection the default of this process; None forgets it."""
    global _remembered  # noqa: PLW0603 - the one default of the process
    _remembered = connection


def find_connection() -> Redis | None:
    """Return the connection of the job that is running here, else the remembered one, else None."""
    job = get_current_job()
    if job is not None and job.connection is not None:
        return job.connection
    return _remembered


@lru_cache(maxsize=128)
def get_queue(name: str, connection: Redis) -> Queue:
    """Return a queue; the same one each time, because a new one asks the server its version."""
    return Queue(name, connection=connection)
