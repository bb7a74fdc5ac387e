"""Who listens where: a job on a queue without a worker waits, and somebody should say so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rq.queue import Queue as RQQueue
from rq.utils import as_text
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from flowq.runtime import keys
from flowq.runtime.clocks import read_clock

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
        listening = [set(map(as_text, workers)) for workers in pipeline.execute()]
    living = _find_living(set().union(*listening), connection)
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


def _run_of(queue: str) -> str:
    is_own = queue.startswith(keys.OWN_QUEUE)
    return queue.removeprefix(keys.OWN_QUEUE) if is_own else ""


def _find_living(workers: set[str], connection: Redis) -> set[str]:
    """Return those of the keys of workers that are of living ones."""
    now_s = read_clock(connection)
    in_order = sorted(workers)
    with connection.pipeline(transaction=False) as pipeline:
        for key in in_order:
            pipeline.exists(key)
            pipeline.zscore(keys.WORKERS, key.removeprefix(keys.worker("")))
        answers = pipeline.execute()
    leases = dict(zip(in_order, answers[1::2], strict=True))
    there = [key for key, exists in zip(in_order, answers[::2], strict=True) if exists]
    ours = {key: key.removeprefix(keys.worker("")) for key in there if (leases[key] or 0) > now_s}
    connected = find_connected(ours.values(), connection)
    return {key for key in there if leases[key] is None or ours.get(key) in connected}


def find_connected(workers: Iterable[str], connection: Redis) -> set[str]:
    """Return which of our workers, by name, are connected and listen to commands.

    In a cluster they may be connected to another node, so there all of them count.
    """
    names = list(workers)
    if "{" in keys.PREFIX or not names:
        return set(names)
    subscribed = connection.pubsub_numsub(*map(keys.commands, names))
    return {name for name, (_, count) in zip(names, subscribed, strict=True) if count}
