"""RQ's synchronous queues (`is_async=False`): a release runs the jobs right here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rq.utils import as_text

from flowq.errors import JobNotFound
from flowq.runtime import keys
from flowq.runtime.job import Job, get_job

if TYPE_CHECKING:
    from rq.queue import Queue


def run_released(queue: Queue, future: Job) -> None:
    """Run the blockers of a released future job in order, then the future job, in this process.

    And then what had waited for these. A blocker that is not released itself, or that failed,
    leaves the future job waiting, as with workers.
    """
    blocker_ids = map(as_text, queue.connection.lrange(keys.blockers(future.id), 0, -1))
    waiting = [*(find_job(queue, job_id) for job_id in blocker_ids), future]
    while ran := next((job for job in waiting if job and run_if_queued(queue, job)), None):
        waiting.remove(ran)
        waiting += [find_job(queue, future_id) for future_id in ran.future_ids]


def find_job(queue: Queue, job_id: str) -> Job | None:
    """Return the job, or None when it has been deleted."""
    try:
        return get_job(job_id, queue.connection, queue.serializer)
    except JobNotFound:
        return None


def run_if_queued(queue: Queue, job: Job) -> bool:
    """Run the job here if it is on its queue; return whether it was."""
    if not queue.connection.lrem(keys.queue(job.origin), 1, job.id):
        return False
    queue.run_sync(job)
    return True
