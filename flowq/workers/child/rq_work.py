"""In the child: work that RQ's own code does.

RQ's code ends the executions that flowq's script does not handle: jobs with dependents, repeats,
rate limits, retries or webhooks. Between jobs it cleans RQ's registries. It may run user callbacks.
"""

from __future__ import annotations

import logging
import time
from base64 import b64decode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from redis import Redis
from rq.callbacks import execute_stopped_callback
from rq.executions import Execution
from rq.job import JobStatus
from rq.utils import as_text

from flowq.runtime import keys
from flowq.runtime.attempts import Failure
from flowq.runtime.connections import clock_warning, read_clock
from flowq.runtime.job import Job
from flowq.runtime.maintenance import find_lost, remove_unused_functions
from flowq.runtime.queue import Queue
from flowq.runtime.rq import WorkerBase
from flowq.runtime.waiting import read_retry
from flowq.workers.child.restore import Restorer
from flowq.workers.child.spans import Spans
from flowq.workers.child.timeouts import DEATH_PENALTY_CLASS
from flowq.workers.messages import End, Settings, Task


class RQWork:
    """The work that one child does by RQ's code. Its `connection` repeats lost commands."""

    def __init__(self, settings: Settings, connection: Redis) -> None:
        self.settings = settings
        self.connection = connection
        self._unrepeating: Redis | None = None

    def conclude(self, task: Task, end: End) -> End:
        """End an execution by RQ's own code: dependents, repeats, rate limits, retries, webhooks.

        Checks the WIP entry first, so that an execution that another process has ended stays ended.
        Repeats no command: RQ's transaction may have been applied although its reply was lost, and
        a second one would queue a retried job twice. The supervisor checks what happened.
        """
        if self._unrepeating is None:
            self._unrepeating = self.settings.address.connect_unrepeating()
        connection = self._unrepeating
        if not self._is_ours(task, connection):
            return end._replace(how="lost")
        settings = self.settings
        restorer = Restorer(settings.job_class, connection, settings.serializer, settings.worker)
        job = restorer.restore(task)
        job.shown.adopt_end(end.view, end.code)
        job.note_end_of_attempt(Failure.read(end.failure), end.error)
        job.started_at = datetime.fromtimestamp(end.started_at, UTC)
        job.ended_at = datetime.fromtimestamp(end.ended_at, UTC)
        worker = self._rq_worker(connection)
        queue = settings.queue_class(
            task.queue, connection=connection, job_class=settings.job_class
        )
        before_s = time.time()
        queue.shift_clock(read_clock(connection) - before_s)  # if anything, late
        execution = Execution(
            id=task.execution_id,
            job_id=task.job_id,
            connection=connection,
            worker_name=settings.worker,
        )
        execution.created_at = job.started_at
        _conclude(worker, job, queue, execution, end)
        return end._replace(how="done")

    # Chores: what RQ's workers do between jobs. They may run user callbacks ----------------------

    def clean_registries(self, queues: list[str]) -> None:
        """Do RQ's maintenance, under its own locks.

        RQ fails executions whose heartbeat is old by the clock of this host. So this does nothing
        after an outage, in which no heartbeat could arrive, or if the clock is wrong.
        """
        before_s = time.time()
        found = find_lost(self.connection, self.settings.lease)
        if not found.is_sure or clock_warning(found.clock_s, before_s, time.time()):
            return
        worker = self._rq_worker(self.connection, queues)
        worker.clean_registries()  # type: ignore[no-untyped-call]
        worker.clean_group_registries()  # type: ignore[no-untyped-call]
        remove_unused_functions(self.connection)

    def queue_limited(self, queue: str, job_id: str) -> None:
        """Queue a scheduled job that has a rate limit, if the limit allows it."""
        settings = self.settings
        job = settings.job_class.fetch(job_id, self.connection, settings.serializer)
        target = settings.queue_class(
            queue, connection=self.connection, job_class=settings.job_class
        )
        with self.connection.pipeline() as pipeline:
            pipeline.zrem(keys.scheduled(queue), job_id)
            target.enqueue_limited(job, pipeline, at_front=job.should_enqueue_at_front())
            pipeline.execute()

    def trace_death(self, task: Sequence[Any], end: Sequence[Any]) -> None:
        """Write the span of an attempt whose process died with its own.

        Here and not in the supervisor, whose children would inherit its connections.
        """
        settings, written = self.settings, Task._make(task)
        restorer = Restorer(
            settings.job_class, self.connection, settings.serializer, settings.worker
        )
        spans = Spans(self.connection, settings.worker)
        spans.record(restorer.restore(written), written, End._make(end))

    def _is_ours(self, task: Task, connection: Redis) -> bool:
        member = f"{task.job_id}:{task.execution_id}"
        if connection.zscore(f"{keys.PREFIX}:wip:{task.queue}", member) is not None:
            return True
        # RQ's cancel() of a running job removes its WIP entry, and lets it run to its end.
        status = connection.hget(keys.job(task.job_id), "status")
        is_held = connection.sismember(keys.held(self.settings.worker), member)
        return status == b"canceled" and bool(is_held)

    def _rq_worker(self, connection: Redis, queues: Sequence[str] = ()) -> WorkerBase:
        worker = WorkerBase(
            list(queues),
            self.settings.worker,
            connection=connection,
            default_result_ttl=self.settings.result_ttl,
            job_class=self.settings.job_class,
            queue_class=self.settings.queue_class,
            serializer=self.settings.serializer,
            disable_default_exception_handler=not self.settings.keeps_failures,
            prepare_for_work=False,
        )
        worker.log_job_description = False
        worker.log = _WITHOUT_ENDS
        return worker


class _WithoutEnds(logging.Logger):
    """The log of RQ's worker without its messages about successes, which the supervisor writes."""

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message, unless it says that a job succeeded."""
        if not str(msg).startswith("Successfully completed"):
            super().info(msg, *args, **kwargs)


_WITHOUT_ENDS = _WithoutEnds("rq.worker")
_WITHOUT_ENDS.parent = logging.getLogger("rq.worker")


def _conclude(worker: WorkerBase, job: Job, queue: Queue, execution: Execution, end: End) -> None:
    if end.status == "finished":
        _conclude_success(worker, job, queue, execution, end)
        return
    if end.status == "stopped":
        worker.note_stopped(job.id)
        try:
            execute_stopped_callback(job, DEATH_PENALTY_CLASS)
        except BaseException:  # as in RQ: the job is stopped all the same
            worker.log.exception("stopped callback of job %s raised", job.id)
    worker.handle_job_failure(
        job=job,
        queue=queue,
        started_job_registry=queue.started_job_registry,
        exc_string=end.error,
        execution=execution,
    )


def _conclude_success(
    worker: WorkerBase, job: Job, queue: Queue, execution: Execution, end: End
) -> None:
    if end.field == "retry":
        retry = read_retry(_unpack(end.value))
        job.keep_result(retry)
        worker.handle_job_retry(
            job=job,
            queue=queue,
            retry=retry,
            started_job_registry=queue.started_job_registry,
            execution=execution,
        )
        return
    job.take_written(_unpack(end.value))
    job.mark(JobStatus.FINISHED)
    worker.handle_job_success(
        job=job,
        queue=queue,
        started_job_registry=queue.started_job_registry,
        execution=execution,
    )
    job.send_webhooks(JobStatus.FINISHED)


def _unpack(value: str) -> bytes:
    return b64decode(as_text(value))
