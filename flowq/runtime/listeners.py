"""Who listens where: a job on a queue without a worker waits, and somebody should say so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rq.queue import Queue as RQQueue
from rq.utils import as_text
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from flowq.runtime import keys, scripts

if TYPE_CHECKING:
    from redis import Redis

QUEUES = RQQueue.redis_queues_keys
"""RQ's set of all queues."""


def find_unattended(queues: Iterable[str], connection: Redis) -> list[str]:
    """Return the queues that no worker listens on, in the order given, each once.

    One of RQ's workers that was killed counts until its last heartbeat runs out, one of ours until
    its connection is closed, or its lease is over. On the queue that a run has for itself count
    those that serve this run, as long as they are connected.
    """
    names = list(dict.fromkeys(queues))
    served = find_served(connection) if any(map(_run_of, names)) else set()
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.smembers(WORKERS_BY_QUEUE_KEY % name)
        listening = [set(map(_name_of, workers)) for workers in pipeline.execute()]
    living = find_there(set().union(*listening), connection)
    return [
        name
        for name, workers in zip(names, listening, strict=True)
        if (_run_of(name) not in served if _run_of(name) else living.isdisjoint(workers))
    ]


def count_left_alone(connection: Redis) -> dict[str, int]:
    """Return how many jobs are queued on each queue that no worker listens on, by its name.

    Without the queues that runs have for themselves.
    """
    prefix = keys.queue("")
    names = sorted(as_text(key).removeprefix(prefix) for key in connection.smembers(QUEUES))
    shared = [name for name in names if not _run_of(name)]
    with connection.pipeline(transaction=False) as pipeline:
        for name in shared:
            pipeline.llen(keys.queue(name))
        counts = dict(zip(shared, pipeline.execute(), strict=True))
    waiting = [name for name, count in counts.items() if count]
    return {name: counts[name] for name in find_unattended(waiting, connection)}


def find_served(connection: Redis) -> set[str]:
    """Return the ids of the runs whose own workers live, or wait until there is something to do."""
    names = (as_text(client.get("name", "")) for client in connection.client_list())
    return {
        name.removeprefix(keys.RUN_CLIENT) for name in names if name.startswith(keys.RUN_CLIENT)
    }


def _name_of(key: str | bytes) -> str:
    return as_text(key).removeprefix(keys.worker(""))


def _run_of(queue: str) -> str:
    is_own = queue.startswith(keys.OWN_QUEUE)
    return queue.removeprefix(keys.OWN_QUEUE) if is_own else ""


def find_there(workers: Iterable[str], connection: Redis) -> set[str]:
    """Return which of these workers, by name, are there: of ours those whose lease is not over, as
    long as they are connected, and of RQ's those whose hash is there.

    In a cluster ours may be connected to another node, so there only the lease counts.
    """
    names = list(workers)
    answer = scripts.ARE_THERE.call(connection, keys.WORKERS, *names) if names else []
    return set(map(as_text, answer))


def find_living(connection: Redis) -> list[str]:
    """Return the names of flowq's workers that are there."""
    names: Any = connection.zrange(keys.WORKERS, 0, -1)
    return sorted(find_there(map(as_text, names), connection))
