"""The WIP registry: what is being executed right now.

`rq:wip:<queue>` is RQ's own registry of started jobs, and every worker writes it from the start of
an execution to its end. flowq reads it and adds who, since when and in which run; it keeps no
second truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rq.registry import StartedJobRegistry
from rq.utils import as_text

from flowq.runtime import keys
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.status import Executing

if TYPE_CHECKING:
    from redis import Redis


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
