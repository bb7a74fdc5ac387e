"""Who listens where: a job on a queue without a worker waits, and somebody should say so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rq.utils import as_text
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

if TYPE_CHECKING:
    from redis import Redis


def find_unattended(queues: Iterable[str], connection: Redis) -> list[str]:
    """Return the queues that no worker listens on, in the order given, each once.

    A worker that was killed counts until its last heartbeat runs out, as it does for RQ.
    """
    names = list(dict.fromkeys(queues))
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.smembers(WORKERS_BY_QUEUE_KEY % name)
        workers_by_queue: list[Any] = pipeline.execute()
    keys = sorted({as_text(key) for workers in workers_by_queue for key in workers})
    alive = _existing(keys, connection)
    return [
        name
        for name, workers in zip(names, workers_by_queue, strict=True)
        if not any(as_text(key) in alive for key in workers)
    ]


def _existing(keys: list[str], connection: Redis) -> set[str]:
    with connection.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.exists(key)
        answers = pipeline.execute()
    return {key for key, exists in zip(keys, answers, strict=True) if exists}
