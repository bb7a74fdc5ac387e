"""RQ's synchronous queues (`is_async=False`): a release runs the jobs right here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rq.utils import as_text

from flowq.runtime import keys
from flowq.runtime.job import Job, get_job

if TYPE_CHECKING:
    from rq.queue import Queue


def run_released(queue: Queue, future: Job) -> None:
    """Run the blockers of a released future job in order, then the future job, in this process.

    A blocker that is a future job itself runs once its own blockers have; one that is not released,
    or that failed, leaves the future job waiting, as with workers.
    """
    blocker_ids = map(as_text, queue.connection.lrange(keys.blockers(future.id), 0, -1))
    jobs = [*(get_job(job_id, queue.connection) for job_id in blocker_ids), future]
    progress = True
    while progress:
        progress = any([run_if_queued(queue, job) for job in jobs])


def run_if_queued(queue: Queue, job: Job) -> bool:
    """Run the job here if it is on its queue; return whether it was."""
    if not queue.connection.lrem(f"{keys.PREFIX}:queue:{job.origin}", 1, job.id):
        return False
    queue.run_sync(job)
    return True
