"""Adds blockers to a waiting future job, from a running blocker or from any process.

`flowq.current_future` and `flowq.get_future` are the public doors. A blocker that a running job
adds gets an id that follows from the call (`derive_id`), so that a second attempt of the job adds
nothing twice.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from rq import get_current_job
from rq.utils import as_text

from flowq.errors import JobNotFound, NotAFutureJob, NotOpen, UsageError
from flowq.runtime import keys
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

    The future job cannot start before the running job has ended. In a workflow's run, only jobs
    that are declared `deferred` count. `name` selects one of several: a job id, or in a workflow's
    run the name of a job.
    Errors: UsageError outside of a job, for a job that blocks nothing, and if a name is needed;
    NotOpen if no job that it blocks is declared `deferred`.
    """
    job = current_job()
    if job is None:
        raise UsageError("current_future() works only inside a running job")
    ids = job.future_ids
    if not ids:
        raise UsageError(f"the running job {job.id} blocks no future job")
    wanted = [job_id for job_id in ids if name is None or _is_called(job, job_id, name)]
    if not wanted:
        raise UsageError(f"{job.id} does not block {name}, but {', '.join(ids)}")
    refusals = [_refusal(job_id, job.connection) for job_id in wanted]
    found = [job_id for job_id, refusal in zip(wanted, refusals, strict=True) if refusal is None]
    if not found:
        raise next(filter(None, refusals))
    if len(found) > 1:
        raise UsageError(f"{job.id} blocks {', '.join(found)}; choose one: current_future(name)")
    return get_future(found[0], job.connection)


def _is_called(job: Job, future_id: str, name: str) -> bool:
    """Whether a name is that of a future job: its id, or its name in its workflow."""
    own = future_id.removeprefix(f"{job.run_id}-").rpartition("--")[2] if job.run_id else ""
    return name in (future_id, own)


def _refusal(future_id: str, connection: Redis) -> NotOpen | None:
    """Return the error for a future job to which its workflow admits no blockers, or None.

    lua/add.lua checks the same.
    """
    fields: Any = connection.hmget(keys.job(future_id), "flowq_run", "flowq_open", "flowq_name")
    run_id, is_open, name = (as_text(field) if field else "" for field in fields)
    if not run_id or is_open or not connection.hexists(keys.run(run_id), keys.DECLARES_OPEN_FIELD):
        return None
    from flowq.status import declared_name  # noqa: PLC0415 - slow, and for refusals only

    return NotOpen(future_id, declared_name(name))


def current_job() -> Job | None:
    """Return the running job as a `flowq.Job`, or None. (RQ's own workers make RQ's jobs.)"""
    job = get_current_job()
    if job is None or isinstance(job, Job):
        return job
    try:
        return get_job(job.id, job.connection)
    except JobNotFound:
        return None


def derive_id(hold: Hold) -> str | None:
    """Return an id for a job that a running blocker adds to the same future job, or None.

    The id consists of the adder's id, its generation and a count, so that a repeated adder (after a
    retry or a crash) finds its own additions instead of doubling them.
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
    """Shorten the id of a deep descendant: the start and the end stay, the middle is hashed."""
    if len(job_id) <= LONGEST_ID:
        return job_id
    start, _, end = job_id.rpartition("--")
    digest = hashlib.sha256(start.encode()).hexdigest()[:24]
    return f"{start[:100]}--{digest}--{end}"
