"""The WIP registry: what is being executed right now.

`rq:wip:<queue>` is RQ's own registry of started jobs, and every worker writes it from the start of
an execution to its end. flowq reads it and adds who, since when and in which run; it keeps no
second truth.

Also here: who listens on which queue, because a job on a queue without a worker waits, and somebody
should say so.
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
    """RQ's registry of started jobs of one queue, with what is worth knowing about each.

    A job is in it from its start to its end. Reading does not clean up: entries of workers that
    died are judged by maintenance, not by whoever looks.
    """

    job_class = Job

    def __init__(self, name: str = "default", connection: Redis | None = None, **options: Any):
        options.setdefault("job_class", Job)
        super().__init__(name, connection, **options)

    def executing(self) -> list[Executing]:
        """Return what is being executed, in the order in which the entries run out.

        Two round trips, whatever the number.
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
    """Return what is being executed on these queues, or on all.

    A job of a run that has a queue of its own counts on the queue that was declared for it.
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


# Who listens where --------------------------------------------------------------------------


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


def list_queues(connection: Redis) -> list[str]:
    """Return the names of the queues that are there, sorted, but for those of single runs."""
    prefix = keys.queue("")
    names = sorted(as_text(key).removeprefix(prefix) for key in connection.smembers(QUEUES))
    return [name for name in names if not _run_of(name)]


def count_left_alone(connection: Redis) -> dict[str, int]:
    """Return how many jobs are queued on each of those that no worker listens on, by its name."""
    shared = list_queues(connection)
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


def find_hosts(workers: Iterable[str], connection: Redis) -> dict[str, tuple[str, int]]:
    """Return the host and the process id of workers, by name, as far as they are known.

    One of RQ's own workers is known until a minute after its end, one of ours some days longer.
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
