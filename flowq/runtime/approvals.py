"""What waits for somebody's word: jobs that ask for an approval, and runs that are held."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flowq.errors import NotFound, RunNotFound, WrongState
from flowq.nearest import did_you_mean
from flowq.runtime import keys, scripts
from flowq.runtime.runs import get_record, get_status, go
from flowq.runtime.steps import work_off
from flowq.status import RUN_ENDED, RunStatus

if TYPE_CHECKING:
    from redis import Redis


def approve(run_id: str, name: str, connection: Redis) -> bool:
    """Approve a job of a run, or all items of a group; it starts as soon as all else is ready.

    Returns True for the call that did it, False when it was approved before.
    Errors: RunNotFound; NotFound; WrongState for one that asks for no approval, or is over.
    """
    ids = _find_jobs(name, get_status(run_id, connection))
    answers = {scripts.APPROVE.call(connection, keys.job(job_id), job_id) for job_id in ids}
    work_off(connection)
    if 1 in answers:
        return True
    if 0 in answers:
        return False
    if _OVER in answers:
        raise WrongState(f"job {name} of run {run_id} is over; nothing is left to approve")
    raise WrongState(f"job {name} of run {run_id} asks for no approval")


def _find_jobs(name: str, status: RunStatus) -> list[str]:
    """Return the ids of the jobs that a name stands for: one, or a group's list and its items.

    It is the start of a workflow that asks for its approval. Errors: NotFound.
    """
    jobs = status.jobs
    outer, _, last = name.rpartition(".")
    base = f"{jobs[outer].job_id}--{last}" if outer in jobs else f"{status.run_id}-{name}"
    if name in jobs:
        base = jobs[name].job_id
    is_one = re.compile(rf"{re.escape(base)}(--\d+)?(--0)?").fullmatch
    inner = f"{name}."
    ids = [
        job.job_id for job in jobs.values() if is_one(job.job_id) and not job.name.startswith(inner)
    ]
    if not ids:
        hint = did_you_mean(name, jobs)
        where = f"in run {status.run_id}"
        raise NotFound(f"there is no job {name} {where}" + (f"; {hint}" if hint else ""))
    return ids


_OVER = -2
_WAITS = -2


def release_run(run_id: str, connection: Redis) -> bool:
    """Let a run go that was submitted with everything held.

    Returns True for the call that did it, False for a run that was not held.
    Errors: RunNotFound; WrongState for one that has ended, or waits for its turn in its group.
    """
    record = get_record(run_id, connection)
    if record.state in RUN_ENDED:
        retry = "" if record.state == "succeeded" else "; flowq retry runs it again"
        raise WrongState(f"run {run_id} has ended: {record.state}{retry}")
    answer = scripts.COMMIT.call(connection, keys.run(run_id), run_id, "go")
    if answer == _WAITS:
        hint = "it starts by itself; cancel what goes first, if it shall start now"
        raise WrongState(f"run {run_id} waits for its turn in its `concurrency` group; {hint}")
    if answer < 0:
        raise RunNotFound(run_id)
    go(run_id, connection)
    return bool(answer)
