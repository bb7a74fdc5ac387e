"""Which workers are alive, and which queues have some.

Commands, maintenance and a cancel ask this before they wait for a job, or tell a user to start a
worker. The answer may be out of date when it arrives: it decides messages and what is waited for,
never whether a job may be taken from a worker (`Lease` in maintenance.py does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rq.queue import Queue as RQQueue
from rq.utils import as_text
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from flowq.runtime import keys, scripts
from flowq.runtime.connections import read_each

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

Adviser = Callable[["Redis", Sequence[str]], str]

advisers: list[Adviser] = []
"""What knows how to get workers for queues of a server, or returns "": `flowq.local`, for example.
The last one comes first."""

QUEUES = RQQueue.redis_queues_keys
"""RQ's set of all queues."""


STARTING_S = 15
"""How long workers of a run's own that have been started, and are not connected yet, count."""


def note_start(run_id: str, connection: Redis) -> None:
    """Note that workers of a run's own have been started, which connect in a moment."""
    connection.set(keys.starting(run_id), 1, ex=STARTING_S)


def end_start(run_id: str, connection: Redis) -> None:
    """Note that they are connected, or could not be started."""
    connection.delete(keys.starting(run_id))


def find_unattended(queues: Iterable[str], connection: Redis, *, or_soon: bool = True) -> list[str]:
    """Return the queues on which no worker listens, in the given order, each once.

    A killed worker of RQ counts until its last heartbeat expires, one of flowq until its connection
    is closed or its lease expires. On a run's own queue, the workers that serve the run count while
    they are connected and, with `or_soon`, also those that are starting: these are no reason to
    advise anybody, but could still die before they listen.
    """
    names = list(dict.fromkeys(queues))
    own = set(filter(None, map(run_of, names)))
    served = find_served(connection) if own else set()
    if own & served:  # they have started: once they are gone, they are not starting any more
        connection.delete(*map(keys.starting, own & served))
    if or_soon:
        served |= {run_id for run_id in own - served if connection.exists(keys.starting(run_id))}
    return [
        name
        for name, workers in _find_listening(names, connection).items()
        if (run_of(name) not in served if run_of(name) else not workers)
    ]


def _find_listening(queues: Sequence[str], connection: Redis) -> dict[str, set[str]]:
    """Return the names of the living workers that listen on each queue."""
    with connection.pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.smembers(WORKERS_BY_QUEUE_KEY % queue)
        listening = [set(map(_name_of, workers)) for workers in pipeline.execute()]
    living = find_alive(set().union(*listening), connection)
    return {queue: living & names for queue, names in zip(queues, listening, strict=True)}


@dataclass(frozen=True, slots=True)
class QueueRecord:
    """A queue, without those that runs have for themselves.

    `jobs`: how many are queued. `workers`: how many living ones listen on it.
    """

    name: str
    jobs: int
    workers: int


def read_queues(connection: Redis) -> list[QueueRecord]:
    """Return all queues, sorted by name, in a few round trips."""
    names = list_queues(connection)
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.llen(keys.queue(name))
        lengths = pipeline.execute()
    listening = _find_listening(names, connection)
    return [
        QueueRecord(name, length, len(listening[name]))
        for name, length in zip(names, lengths, strict=True)
    ]


def advise(queues: Sequence[str], connection: Redis) -> str:
    """Return what to do for queues on which no worker listens."""
    advice = (adviser(connection, queues) for adviser in reversed(advisers))
    return next(filter(None, advice), f"start one: flowq worker {' '.join(queues)}")


def list_queues(connection: Redis) -> list[str]:
    """Return the names of all queues, sorted, without runs' own queues."""
    prefix = keys.queue("")
    names = sorted(as_text(key).removeprefix(prefix) for key in connection.smembers(QUEUES))
    return [name for name in names if not run_of(name)]


def count_left_alone(connection: Redis) -> dict[str, int]:
    """Return the number of queued jobs of no run on each queue without a worker, by name."""
    shared = list_queues(connection)
    with connection.pipeline(transaction=False) as pipeline:
        for name in shared:
            pipeline.llen(keys.queue(name))
        counts = dict(zip(shared, pipeline.execute(), strict=True))
    waiting = [name for name, count in counts.items() if count]
    alone = {name: _count_alone(name, connection) for name in find_unattended(waiting, connection)}
    return {name: count for name, count in alone.items() if count}


def _count_alone(queue: str, connection: Redis) -> int:
    """Return how many jobs on a queue belong to no run; those of scheduled runs are there too."""
    ids = map(as_text, connection.lrange(keys.queue(queue), 0, -1))

    def ask(pipe: Pipeline, job_id: str) -> None:
        pipe.hexists(keys.job(job_id), "flowq_run")

    return sum(not is_of_run for _, (is_of_run,) in read_each(ids, connection, ask))


def find_served(connection: Redis) -> set[str]:
    """Return the ids of the runs that have workers of their own, working or resting."""
    names = (as_text(client.get("name", "")) for client in connection.client_list())
    return {
        name.removeprefix(keys.RUN_CLIENT) for name in names if name.startswith(keys.RUN_CLIENT)
    }


def find_hosts(workers: Iterable[str], connection: Redis) -> dict[str, tuple[str, int]]:
    """Return the host and the process id of workers, by name, without unknown ones.

    A worker of RQ is known until a minute after its end, one of flowq for some more days.
    """
    names = sorted({name for name in workers if name})
    found: dict[str, tuple[str, int]] = {}

    def ask(pipe: Pipeline, name: str) -> None:
        pipe.get(keys.host(name))
        pipe.hmget(keys.worker(name), "hostname", "pid")

    for name, (told, fields) in read_each(names, connection, ask):
        host, pid = (as_text(each) if each else "" for each in fields)
        if told:
            host, _, pid = as_text(told).rpartition(" ")
        if host and pid.isdecimal():
            found[name] = host, int(pid)
    return found


def _name_of(key: str | bytes) -> str:
    return as_text(key).removeprefix(keys.worker(""))


def run_of(queue: str) -> str:
    """Return the id of the run whose own queue this is; "" for other queues."""
    is_own = queue.startswith(keys.OWN_QUEUE)
    return queue.removeprefix(keys.OWN_QUEUE) if is_own else ""


def find_alive(workers: Iterable[str], connection: Redis) -> set[str]:
    """Return those of these workers that are alive, by name.

    A worker of flowq is alive while it is connected and its lease has not expired, one of RQ while
    its hash exists. In a cluster, flowq's workers may be connected to another node, so only the
    lease counts.
    """
    names = list(workers)
    answer = scripts.ARE_THERE.call(connection, keys.WORKERS, *names) if names else []
    return set(map(as_text, answer))


def find_living(connection: Redis) -> list[str]:
    """Return the names of flowq's workers that are alive."""
    names: Any = connection.zrange(keys.WORKERS, 0, -1)
    return sorted(find_alive(map(as_text, names), connection))
