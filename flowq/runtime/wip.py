"""The WIP registry: the jobs that are being executed now. Also: which queues have workers.

`rq:wip:<queue>` is RQ's registry of started jobs; every worker has an entry in it from the start of
an execution to its end. flowq reads it, and adds the worker, the start time and the run from other
keys. It has no registry of its own that could differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rq.queue import Queue as RQQueue
from rq.registry import StartedJobRegistry
from rq.utils import as_text
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from flowq.runtime import keys, scripts
from flowq.runtime.connections import read_each
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from flowq.status import Executing


class WIPRegistry(StartedJobRegistry):
    """RQ's registry of started jobs of one queue, with details about each.

    A job is in it from its start to its end. Reading does not remove entries of dead workers, which
    is the task of maintenance.
    """

    job_class = Job

    def __init__(self, name: str = "default", connection: Redis | None = None, **options: Any):
        options.setdefault("job_class", Job)
        super().__init__(name, connection, **options)

    def executing(self) -> list[Executing]:
        """Return the executions, in the order in which their entries expire.

        Needs two round trips, whatever the number.
        """
        ids = self.get_job_and_execution_ids(cleanup=False)
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id, execution_id in ids:
                pipeline.hmget(keys.job(job_id), *_FIELDS)
                pipeline.hmget(keys.execution(job_id, execution_id), "worker_name", "created_at")
            answers = pipeline.execute()
        return [
            _executing(job_id, execution_id, self.name, job, execution)
            for (job_id, execution_id), job, execution in zip(
                ids, answers[::2], answers[1::2], strict=True
            )
        ]


_FIELDS = ("description", "worker_name", "flowq_run", "flowq_name", "flowq_queue")


def list_executing(connection: Redis, queues: Iterable[str] = ()) -> list[Executing]:
    """Return the executions on these queues, or on all.

    A job on its run's own queue counts for the queue that it declares.
    """
    wanted = set(queues)
    names = sorted({queue.name for queue in Queue.all(connection)} | wanted)
    return [
        entry
        for name in names
        if not wanted or name in wanted or name.startswith(keys.OWN_QUEUE)
        for entry in WIPRegistry(name, connection=connection).executing()
        if not wanted or name in wanted or entry.queue in wanted
    ]


def _executing(
    job_id: str, execution_id: str, queue: str, job: list[Any], execution: list[Any]
) -> Executing:
    from flowq.status import Executing  # noqa: PLC0415 - slow, and children list nothing

    description, worker, run_id, name, declared = (as_text(v) if v else "" for v in job)
    created_at = execution[1]
    return Executing(
        job_id=job_id,
        execution_id=execution_id,
        queue=declared or queue,
        worker=as_text(execution[0]) if execution[0] else worker,
        description=description,
        started_at=datetime.fromtimestamp(float(created_at), UTC) if created_at else None,
        run_id=run_id,
        name=name,
    )


# Workers and their queues -------------------------------------------------------------------


QUEUES = RQQueue.redis_queues_keys
"""RQ's set of all queues."""


def find_unattended(queues: Iterable[str], connection: Redis) -> list[str]:
    """Return the queues on which no worker listens, in the given order, each once.

    A killed worker of RQ counts until its last heartbeat expires, one of flowq until its connection
    is closed or its lease expires. On a run's own queue, the workers that serve the run count while
    they are connected.
    """
    names = list(dict.fromkeys(queues))
    served = find_served(connection) if any(map(_run_of, names)) else set()
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.smembers(WORKERS_BY_QUEUE_KEY % name)
        listening = [set(map(_name_of, workers)) for workers in pipeline.execute()]
    living = find_alive(set().union(*listening), connection)
    return [
        name
        for name, workers in zip(names, listening, strict=True)
        if (_run_of(name) not in served if _run_of(name) else living.isdisjoint(workers))
    ]


def list_queues(connection: Redis) -> list[str]:
    """Return the names of all queues, sorted, without runs' own queues."""
    prefix = keys.queue("")
    names = sorted(as_text(key).removeprefix(prefix) for key in connection.smembers(QUEUES))
    return [name for name in names if not _run_of(name)]


def count_left_alone(connection: Redis) -> dict[str, int]:
    """Return the number of queued jobs on each queue on which no worker listens, by name."""
    shared = list_queues(connection)
    with connection.pipeline(transaction=False) as pipeline:
        for name in shared:
            pipeline.llen(keys.queue(name))
        counts = dict(zip(shared, pipeline.execute(), strict=True))
    waiting = [name for name, count in counts.items() if count]
    return {name: counts[name] for name in find_unattended(waiting, connection)}


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


def _run_of(queue: str) -> str:
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
