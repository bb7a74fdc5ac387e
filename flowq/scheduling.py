"""Workflows that run by themselves, at the times that their `schedule` says.

RQ's own cron does the waiting: it enqueues a job that submits a run. So whoever serves the schedule
needs no worker, and workers need not know of the schedule.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rq import get_current_job
from rq.cron import CronScheduler

from flowq.client import submit
from flowq.compiling import compile_plan
from flowq.errors import FlowqError, RunNotFound, UsageError
from flowq.runtime.runs import get_record
from flowq.runtime.wire import from_wire, to_wire
from flowq.spec import Workflow

if TYPE_CHECKING:
    from redis import Redis

RUN_ID_LENGTH = 12
SUBMIT_TIMEOUT_S = 600


def make_scheduler(
    workflow: Workflow, inputs: Mapping[str, Any], connection: Redis
) -> CronScheduler:
    """Return RQ's scheduler for one workflow; its `start()` blocks until it is told to end.

    Times are those of the workflow's time zone, which becomes that of this process.
    Errors: UsageError for a workflow without a schedule, and for a time that cannot be read.
    """
    if workflow.schedule is None:
        raise UsageError(
            f"the workflow {workflow.name} has no schedule; add one, as in "
            '`schedule: {cron: "0 6 * * *", timezone: Europe/Berlin}`'
        )
    use_timezone(workflow.schedule.timezone)
    scheduler = CronScheduler(connection, name=f"flowq-{workflow.name}-{os.getpid()}")
    try:
        scheduler.register(
            submit_scheduled,
            workflow.defaults.queue,
            args=(to_wire(workflow), dict(inputs)),
            cron=workflow.schedule.cron,
            job_timeout=SUBMIT_TIMEOUT_S,
            name=f"flowq {workflow.name}",
        )
    except (ValueError, KeyError) as error:
        raise UsageError(f"the schedule {workflow.schedule.cron!r} is no cron: {error}") from None
    return scheduler


def use_timezone(name: str) -> None:
    """Make a time zone that of this process, which is where RQ's cron takes it from.

    Errors: FlowqError where a process has no time zone of its own (Windows).
    """
    if not hasattr(time, "tzset"):
        raise FlowqError("this system cannot serve a schedule: a process has no time zone here")
    os.environ["TZ"] = name
    time.tzset()


def submit_scheduled(workflow: Mapping[str, Any] | Workflow, inputs: Mapping[str, Any]) -> str:
    """Submit a run, and return its id. Runs in a job, and once, however often that is executed.

    Shape: the workflow as `to_wire` writes it; older versions passed it as it is.
    Errors: NewerFormat; those of `compile_plan` and `submit`.
    """
    job = get_current_job()
    if job is None:
        raise UsageError("submit_scheduled() runs inside a job only")
    run_id = hashlib.sha256(str(job.id).encode()).hexdigest()[:RUN_ID_LENGTH]
    if _is_submitted(run_id, job.connection):
        return run_id
    plan = compile_plan(from_wire(Workflow, workflow), inputs, run_id=run_id, imports=False)
    return submit(plan, job.connection).run_id


def _is_submitted(run_id: str, connection: Redis) -> bool:
    try:
        return get_record(run_id, connection).state != "staged"
    except RunNotFound:
        return False
