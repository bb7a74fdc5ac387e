"""Scheduled workflows: submit a run at each time of a workflow's `schedule`.

RQ's cron waits, and enqueues a job that submits a run. So the process that serves a schedule needs
no worker, and workers need not know the schedule. `cron.py` computes when the next run is due,
because RQ's own computation omits an hour that the clock repeats.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from rq import get_current_job
from rq.cron import CronJob, CronScheduler

from flowq.client import submit
from flowq.compiling import compile_plan
from flowq.cron import find_next
from flowq.errors import RunNotFound, UsageError
from flowq.plan import Plan
from flowq.runtime.connections import JOB_MAX_WAIT_S, retry_while_unavailable
from flowq.runtime.runs import get_record, remove
from flowq.runtime.wire import from_wire, to_wire
from flowq.spec import Workflow

if TYPE_CHECKING:
    from redis import Redis

RUN_ID_LENGTH = 12
SUBMIT_TIMEOUT_S = 600
CATCH_UP = timedelta(hours=1)
"""How far back missed due times are caught up after this process was suspended."""


class ScheduledRun(CronJob):
    """RQ's cron job, due by the local time of a time zone, once for each due time."""

    def __init__(self, zone: ZoneInfo, **options: Any) -> None:
        self.zone = zone
        super().__init__(**options)

    def get_next_enqueue_time(self) -> datetime:
        """Return the first due time after the last one. Errors: ValueError, KeyError."""
        assert self.cron is not None
        return find_next(self.cron, self.zone, self.latest_enqueue_time or datetime.now(UTC))

    def set_enqueue_time(self, time: datetime) -> None:
        """Record that the job of the due time has been enqueued."""
        due = self.next_enqueue_time or time
        super().set_enqueue_time(max(due, time - CATCH_UP))


def make_scheduler(
    workflow: Workflow, inputs: Mapping[str, Any], connection: Redis
) -> CronScheduler:
    """Return RQ's scheduler for one workflow; its `start()` blocks until a signal ends it.

    Errors: UsageError for a workflow without a schedule, and for an invalid cron expression.
    """
    if workflow.schedule is None:
        raise UsageError(
            f"the workflow {workflow.name} has no schedule; add one, as in "
            '`schedule: {cron: "0 6 * * *", timezone: Europe/Berlin}`'
        )
    scheduler = CronScheduler(connection, name=f"flowq-{workflow.name}-{os.getpid()}")
    try:
        scheduled = ScheduledRun(
            ZoneInfo(workflow.schedule.timezone),
            func=submit_scheduled,
            queue_name=workflow.defaults.queue,
            args=(to_wire(workflow), dict(inputs)),
            cron=workflow.schedule.cron,
            job_timeout=SUBMIT_TIMEOUT_S,
            name=f"flowq {workflow.name}",
        )
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"the schedule {workflow.schedule.cron!r} is not a cron expression: {error}"
        ) from None
    scheduler.get_jobs().append(scheduled)
    return scheduler


def find_due(scheduler: CronScheduler) -> datetime:
    """Return when the next run is due, in the time zone of the schedule."""
    (scheduled,) = scheduler.get_jobs()
    assert isinstance(scheduled, ScheduledRun)
    assert scheduled.next_enqueue_time is not None
    return scheduled.next_enqueue_time.astimezone(scheduled.zone)


def submit_scheduled(workflow: Mapping[str, Any] | Workflow, inputs: Mapping[str, Any]) -> str:
    """Submit a run, and return its id. Runs in a job; idempotent if the job is executed again.

    Shape: the workflow as `to_wire` writes it; older versions passed the `Workflow`.
    Errors: NewerFormat; those of `compile_plan` and `submit`.
    """
    job = get_current_job()
    if job is None:
        raise UsageError("submit_scheduled() runs only inside a job")
    run_id = hashlib.sha256(str(job.id).encode()).hexdigest()[:RUN_ID_LENGTH]
    plan = compile_plan(from_wire(Workflow, workflow), inputs, run_id=run_id, imports=False)
    retry_while_unavailable(
        lambda: _submit(plan, job.connection), JOB_MAX_WAIT_S, connection=job.connection
    )
    return run_id


def _submit(plan: Plan, connection: Redis) -> None:
    try:
        is_submitted = get_record(plan.run_id, connection).state != "staged"
    except RunNotFound:
        is_submitted = False
    if not is_submitted:
        remove(plan.run_id, connection)  # the rest of an attempt that failed half-way
        submit(plan, connection)
