"""Who listens where: a job on a queue without a worker waits, and somebody should say so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rq.queue import Queue as RQQueue
from rq.utils import as_text
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from flowq.runtime import keys

if TYPE_CHECKING:
    from redis import Redis

QUEUES = RQQueue.redis_queues_keys
"""RQ's set of all queues."""


def find_unattended(queues: Iterable[str], connection: Redis) -> list[str]:
    """Return the queues that no worker listens on, in the order given, each once.

    One of RQ's workers that was killed counts until its last heartbeat runs out, one of ours until
    its lease does. On the queue that a run has for itself count ours alone, and those that serve
    this run as long as they are connected.
    """
    names = list(dict.fromkeys(queues))
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.smembers(WORKERS_BY_QUEUE_KEY % name)
        workers_by_queue: list[Any] = pipeline.execute()
    workers = {as_text(key) for workers in workers_by_queue for key in workers}
    ours, others = _find_living(workers, connection)
    unattended = [
        name
        for name, keys_of_workers in zip(names, workers_by_queue, strict=True)
        if (ours if _run_of(name) else ours | others).isdisjoint(map(as_text, keys_of_workers))
    ]
    served = find_served(connection) if any(map(_run_of, unattended)) else set()
    return [name for name in unattended if _run_of(name) not in served]


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


def _run_of(queue: str) -> str:
    is_own = queue.startswith(keys.OWN_QUEUE)
    return queue.removeprefix(keys.OWN_QUEUE) if is_own else ""


def _find_living(workers: set[str], connection: Redis) -> tuple[set[str], set[str]]:
    """Return those of the keys of workers that are of living ones: of ours, and of RQ's."""
    seconds, microseconds = connection.time()
    now = seconds + microseconds / 1e6
    in_order = sorted(workers)
    with connection.pipeline(transaction=False) as pipeline:
        for key in in_order:
            pipeline.exists(key)
            pipeline.zscore(keys.WORKERS, key.removeprefix(keys.worker("")))
        answers = pipeline.execute()
    leases = zip(in_order, answers[::2], answers[1::2], strict=True)
    living = {key: lease for key, exists, lease in leases if exists}
    ours = {key for key, lease in living.items() if lease is not None and lease > now}
    return ours, {key for key, lease in living.items() if lease is None}
