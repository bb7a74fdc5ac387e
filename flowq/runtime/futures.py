"""Adding to a future job while it waits: from a running blocker, or from any process."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from rq import get_current_job

from flowq.errors import JobNotFound, NotAFutureJob, UsageError
from flowq.runtime.job import Job, get_job

if TYPE_CHECKING:
    from redis import Redis

    from flowq.runtime.holds import Hold

LONGEST_ID = 200


def get_future(job_id: str, connection: Redis) -> Job:
    """Return a future job by its id. Errors: JobNotFound; NotAFutureJob."""
    job = get_job(job_id, connection)
    if not job.is_future:
        raise NotAFutureJob(job_id)
    return job


def current_future(name: str | None = None) -> Job:
    """Return the future job that the running job blocks, to add more blockers to it.

    While the running job has not ended its future job cannot start, so the door is open. `name`
    chooses among several: a job id, or in a workflow's run the name of a job.
    Errors: UsageError outside of a job, for a job that blocks nothing, and where a name is needed.
    """
    job = current_job()
    if job is None:
        raise UsageError("current_future() works inside a running job only")
    ids = job.future_ids
    if not ids:
        raise UsageError(f"the running job {job.id} blocks no future job")
    if name is None and len(ids) > 1:
        raise UsageError(f"{job.id} blocks {', '.join(ids)}; say which: current_future(name)")
    wanted = ids[0] if name is None else _choose(job, name)
    return get_future(wanted, job.connection)


def _choose(job: Job, name: str) -> str:
    for wanted in (name, f"{job.run_id}-{name}"):
        if wanted in job.future_ids:
            return wanted
    raise UsageError(f"{job.id} does not block {name}, but {', '.join(job.future_ids)}")


def current_job() -> Job | None:
    """Return the job that runs here, as one of ours, or None. RQ's plain workers make RQ's jobs."""
    job = get_current_job()
    if job is None or isinstance(job, Job):
        return job
    try:
        return get_job(job.id, job.connection)
    except JobNotFound:
        return None


def derive_id(hold: Hold) -> str | None:
    """Return the id for a blocker that a running blocker adds to the same future job, or None.

    It is made of the adder, its generation and a count, so that an adder that is executed again
    (a retry, a crash) meets its own additions instead of doubling them.
    """
    running = get_current_job()
    if running is None or not hold.edges:
        return None
    adder = running if isinstance(running, Job) else current_job()
    if adder is None or adder.future_ids == ():
        return None
    if not {edge.future_id for edge in hold.edges} <= set(adder.future_ids):
        return None
    count = getattr(running, "flowq_additions", 0)
    running.flowq_additions = count + 1  # type: ignore[attr-defined]
    return _shortened(f"{adder.id}--{adder.generation}-{count}")


def _shortened(job_id: str) -> str:
    """Keep the ids of deep descendants short: the end stays readable, the rest becomes a hash."""
    if len(job_id) <= LONGEST_ID:
        return job_id
    start, _, end = job_id.rpartition("--")
    digest = hashlib.sha256(start.encode()).hexdigest()[:24]
    return f"{start[:100]}--{digest}--{end}"
