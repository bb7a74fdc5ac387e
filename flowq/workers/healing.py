"""What a worker would put right, where none is there to do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowq.runtime.keys import WORKERS
from flowq.runtime.maintenance import Finding, examine, find_suspects, tidy
from flowq.runtime.queue import Queue
from flowq.runtime.wip import find_living
from flowq.workers.worker import Worker

if TYPE_CHECKING:
    from redis import Redis


def heal(connection: Redis) -> list[Finding]:
    """Put right what ended unnoticed, and what lost workers had; return what it was.

    Unless a worker lives that does it, a worker that takes no job is here for some seconds: it
    takes over the jobs of lost ones, queues what is due, and does RQ's maintenance.
    Blocks: up to 13 s while it is not sure that a worker is lost.
    """
    found = tidy(connection)  # first, so that this connection waits for a server that refuses
    suspects = find_suspects(connection)
    if suspects or not find_living(connection):
        queues = sorted({"default", *(queue.name for queue in Queue.all(connection))})
        worker = Worker(queues, connection=connection, captures=False)
        worker.work(burst=True, max_jobs=0, logging_level="ERROR")
    unassigned = [
        Finding(job_id, "orphaned", name)
        for name, job_ids in suspects.items()
        if connection.zscore(WORKERS, name) is None
        for job_id in job_ids
    ]
    return [*found, *unassigned, *examine(connection)]
