"""In the child: execute one job, as RQ's own worker would, and report how it ended."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from binascii import b2a_base64
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from functools import lru_cache
from importlib import import_module
from traceback import clear_frames
from typing import Any

from rq.callbacks import (
    execute_failure_callback,
    execute_success_callback,
)
from rq.executions import Execution
from rq.job import JobStatus, Retry
from rq.job_lifecycle import format_exc_info
from rq.timeouts import BaseTimeoutException, JobTimeoutException
from rq.utils import import_attribute

from flowq.allowed import restriction
from flowq.errors import NotAllowed
from flowq.importing import importing
from flowq.reports import Progress, write_progress
from flowq.runtime.admission import check_job
from flowq.runtime.job import PERFORM, Job
from flowq.runtime.progress import set_reporter
from flowq.runtime.queue import Queue
from flowq.runtime.rq import RQS_PERFORM_JOB, ExcInfo, PerformingWorker
from flowq.runtime.tracing import API
from flowq.runtime.variables import variables_of
from flowq.runtime.waiting import write_retry
from flowq.workers.child.code_digest import CodeDigest
from flowq.workers.child.environment import JobVariables
from flowq.workers.child.restore import Restorer
from flowq.workers.child.spans import Spans
from flowq.workers.child.tags import tag
from flowq.workers.child.timeouts import DEATH_PENALTY_CLASS, disarm
from flowq.workers.messages import End, Settings, Task, failed
from flowq.workers.output import open_stream

log = logging.getLogger("rq.worker")


class Executor:
    """Executes jobs, one after the other, with one connection, which opens when it is first used.

    It has slots because each job reads and writes a dozen attributes.
    """

    __slots__ = (
        *("settings", "connection", "_restorer", "_performer", "_execution"),
        *("_queues", "_code", "_ask_for", "_variables", "_threads", "_folder", "_umask"),
        *("_streams", "_task", "_started_at", "_end", "_has_left_threads", "_load_s"),
        *("_note_progress", "_job", "_progress", "_spans"),
    )

    def __init__(self, settings: Settings, note_progress: Callable[[int, str], None]) -> None:
        self.settings = settings
        self.connection = settings.address.connect()
        self._restorer = Restorer(
            settings.job_class, self.connection, settings.serializer, settings.worker
        )
        self._performer: PerformingWorker | None = None
        self._execution: Execution | None = None
        self._queues: dict[str, Queue] = {}
        self._code = CodeDigest()
        self._ask_for: Callable[[float], None] = lambda seconds: None
        self._variables = JobVariables()
        self._threads = threading.active_count()
        self._folder = os.getcwd()  # noqa: PTH109 - as below
        self._umask = os.umask(0o077)
        os.umask(self._umask)  # the only way to read it is to change it
        self._streams: tuple[Any, Any] = sys.stdout, sys.stderr
        self._note_progress = note_progress
        self._spans = Spans(self.connection, settings.worker)
        set_reporter(self._report)
        # Of the current job:
        self._job: Job | None = None
        self._progress = ""
        self._task: Task
        self._started_at = self._load_s = 0.0
        self._end: End | None = None
        self._has_left_threads = False

    # Executing -----------------------------------------------------------------------------------

    def execute(self, task: Task, ask_for: Callable[[float], None]) -> End:
        """Run the job's function and callbacks, and return how it ended. Does not raise.

        `ask_for` is called with the seconds that a callback may take beyond the job's timeout.
        """
        self._ask_for = ask_for
        self._task, self._end, self._started_at = task, None, time.time()
        self._has_left_threads = False
        try:
            job = self._restorer.restore(task)
            self._variables.set(task.job_id, variables_of(job))
            job.knows_itself = True
        except BaseException:  # noqa: BLE001 - the job's data may be anything
            text = format_exc_info(sys.exc_info())
            end = failed(task.number, text, self._started_at, time.time())
        else:
            self._job = job
            self._perform(task, job)
            self._job = None
            assert self._end is not None
            end = self._end
            if self._spans.is_open:
                self._spans.end(end)
            if self._progress:
                end, self._progress = end._replace(progress=self._progress), ""
        self._tidy()
        return end._replace(is_spent=True) if self._has_left_threads else end

    def _perform(self, task: Task, job: Job) -> None:
        """Run the job; by RQ's `perform_job` if a tool has wrapped that.

        Otherwise do the same without the parts that have no effect here.
        """
        with importing():  # also what unpickles the arguments
            load_s = self._load(job)
        if API in sys.modules:  # after `_load`, because the module may set up OpenTelemetry
            self._spans.begin(job, task)
        try:
            if PerformingWorker.perform_job is not RQS_PERFORM_JOB:
                self._perform_by_rq(task, job, load_s)
                return
            self._threads = threading.active_count()
            with _limit(job.timeout or self.settings.queue_class.DEFAULT_TIMEOUT, load_s):
                value = job.perform()
            self._succeed(job, value)
        except BaseException:  # as RQ: whatever the job raises is its failure
            if self._end is None:
                self._fail(job, sys.exc_info())
            else:
                log.exception("job %s has ended, but what wraps perform_job failed", job.id)

    def _report(self, progress: Progress) -> None:
        job = self._job
        if job is not None:  # else a thread that a job has left behind
            self._progress = write_progress(progress, job.shown.hide)
            self._note_progress(self._task.number, self._progress)

    def _perform_by_rq(self, task: Task, job: Job, load_s: float) -> None:
        self._load_s = load_s
        if self._execution is None:  # shared by all jobs: making one takes longer than a short job
            self._execution = Execution(
                id="", job_id="", connection=self.connection, worker_name=self.settings.worker
            )
        execution = self._execution
        execution.id, execution.job_id = task.execution_id, task.job_id
        execution.created_at = job.started_at or execution.created_at
        queue = self._queues.get(task.queue)
        if queue is None:  # not `not queue`: an empty queue is false
            settings = self.settings
            queue = self._queues[task.queue] = settings.queue_class(
                task.queue, connection=self.connection, job_class=settings.job_class
            )
        self._get_performer().perform_job(job, queue, execution)

    def _load(self, job: Job) -> float:
        """Import the module that the job calls, if needed; return how long that took.

        This must happen before `perform_job` is looked up, because the module may wrap it
        (`sentry_sdk.init`). `Job.perform` raises the error of a failed import, as the job's error.
        A restricted worker checks everything that the job names.
        """
        if restriction() is not None:
            return self._load_admitted(job)
        try:
            module = _name_module(job)
            if module in sys.modules or not module:
                return 0.0
            is_plain = job.func_name != PERFORM
            if not is_plain and "if" in job.args[0]:
                return 0.0
        except Exception:  # noqa: BLE001 - unreadable data; `Job.perform` raises the error
            return 0.0
        return self._import(job, module, is_plain=is_plain)

    def _load_admitted(self, job: Job) -> float:
        began_at = time.monotonic()
        try:
            with _limit(job.timeout or self.settings.queue_class.DEFAULT_TIMEOUT):
                check_job(job)
        except (NotAllowed, BaseTimeoutException) as error:
            job.note_load_error(error)
        except BaseException:
            log.debug("job %s: not everything could be imported", job.id, exc_info=True)
        return time.monotonic() - began_at

    def _describe_code(self, job: Job) -> str:
        with suppress(Exception):  # unreadable data, or a strange object in sys.modules
            module = _name_module(job)
            while module and module not in sys.modules:  # for a method, the class follows
                module = module.rpartition(".")[0]
            return self._code.describe(module, job.run_id)
        return ""

    def _import(self, job: Job, module: str, *, is_plain: bool) -> float:
        began_at = time.monotonic()
        try:
            with _limit(job.timeout or self.settings.queue_class.DEFAULT_TIMEOUT):
                _ = job.func if is_plain else import_module(module)
        except BaseException as error:  # noqa: BLE001 - as above
            if is_plain or isinstance(error, BaseTimeoutException):
                job.note_load_error(error)
        return time.monotonic() - began_at

    def _get_performer(self) -> PerformingWorker:
        if self._performer is None:
            settings = self.settings
            self._performer = PerformingWorker(
                settings.worker,
                on_start=self._start,
                on_success=self._succeed,
                on_failure=self._fail,
                make_timeout=lambda timeout, *_, **__: _limit(timeout, self._load_s),
                connection=self.connection,
                job_class=settings.job_class,
                queue_class=settings.queue_class,
                serializer=settings.serializer,
                exception_handlers=[*map(find_handler, settings.exception_handlers)],
            )
        return self._performer

    def _start(self, job: Job) -> None:
        tag(job)
        # Here, because a tool that wraps perform_job may start threads, which must not count.
        self._threads = threading.active_count()

    def _fail(self, job: Job, exc_info: ExcInfo) -> None:
        is_spent = isinstance(exc_info[1], MemoryError)
        if is_spent:
            clear_frames(exc_info[2])  # frees memory, which the report needs
        try:
            end = self._failure(self._task, job, exc_info, self._started_at)
        except BaseException:  # noqa: BLE001 - formatting the traceback may fail too
            end = self._failure(self._task, job, sys.exc_info(), self._started_at)
        self._end = end._replace(is_spent=True) if is_spent else end

    def _succeed(self, job: Job, value: Any) -> None:
        task, started_at = self._task, self._started_at
        job.ended_at = datetime.now(UTC)
        ended_at = time.time()
        if isinstance(value, Retry):
            self._has_left_threads = threading.active_count() > self._threads
            kept = _to_text(write_retry(value))
            self._end = End(
                *(task.number, "finished", "conclude", started_at, ended_at, "", "retry", kept),
                code=self._describe_code(job) if job.run_id else "",
            )
            return
        if job.mark_finished():
            self._ask_for(job.success_callback_timeout)
            execute_success_callback(job, DEATH_PENALTY_CLASS, value)
            job.forget_written()  # RQ stores the value as the callback leaves it
        self._has_left_threads = threading.active_count() > self._threads
        ttl = job.get_result_ttl(self.settings.result_ttl)
        is_in_run = job.run_id
        # Positional arguments: keywords would take as long as everything else here together.
        self._end = End(
            task.number,
            "finished",
            "conclude" if _needs_conclusion(job, ttl) else "turn",
            started_at,
            ended_at,
            str(ttl),
            "" if value is None else "return_value",
            "" if value is None else b2a_base64(job.write_result(value), newline=False).decode(),
            job.generation,
            False,
            job.shown.at_end("finished") if is_in_run else "",
            self._describe_code(job) if is_in_run else "",
        )

    def _failure(self, task: Task, job: Job, exc_info: ExcInfo, started_at: float) -> End:
        ended_at, is_refused = time.time(), isinstance(exc_info[1], NotAllowed)
        job.note_failure(exc_info[1])
        job.mark(JobStatus.FAILED)
        job.ended_at = datetime.now(UTC)
        if job.has_failure_callback:
            self._ask_for(job.failure_callback_timeout)
        try:
            execute_failure_callback(job, DEATH_PENALTY_CLASS, *exc_info)
        except BaseException:  # noqa: BLE001 - as in RQ, the callback's error is recorded
            exc_info = exc_info if is_refused else sys.exc_info()
        self._has_left_threads = threading.active_count() > self._threads
        job.explain_last_attempt(exc_info[1])
        text = _explain(exc_info)
        try:
            if not is_refused:  # handlers would read the job's data, which is not admitted
                self._get_performer().handle_exception(job, *exc_info)
        except BaseException:  # noqa: BLE001 - a handler's error must not hide the job's
            text += f"\nThis exception handler failed too:\n{format_exc_info(sys.exc_info())}"
        text = job.shown.hide(text)
        is_for_rq = _fails_by_rq(job) or not self.settings.keeps_failures
        return failed(
            task.number,
            text,
            started_at,
            ended_at,
            how="conclude" if is_for_rq else "turn",
            ttl="" if job.failure_ttl is None else str(job.failure_ttl),
            generation=job.generation,
        )._replace(
            view=job.shown.at_end("failed") if job.run_id else "",
            code=self._describe_code(job) if job.run_id else "",
            failure=job.shown.failure,
        )

    def _tidy(self) -> None:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:  # noqa: BLE001 - the job closed or replaced them
            with suppress(OSError):  # the descriptors are closed too; then the child is replaced
                self._streams = (open_stream(1), open_stream(2))
        sys.stdout, sys.stderr = self._streams
        os.umask(self._umask)
        try:
            if os.getcwd() != self._folder:  # noqa: PTH109 - this runs for each job
                os.chdir(self._folder)
        except OSError:
            with suppress(OSError):
                os.chdir(self._folder)


def find_handler(handler: Callable[..., Any] | str) -> Callable[..., Any]:
    """Return an exception handler. Its name is the operator's, so no restriction applies to it."""
    if isinstance(handler, str):
        found: Callable[..., Any] = import_attribute(handler)
        return found
    return handler


def _name_module(job: Job) -> str:
    """Return the name of the module whose function a job calls; empty if it calls none.

    For a plain job that calls a method, the name of the class follows. Raises RQ's errors for
    unreadable data.
    """
    name = job.func_name or ""
    if name != PERFORM:
        return name.rpartition(".")[0]
    work: Any = job.args[0] if job.args else {}
    return str(work.get("call", "")).partition(":")[0]


@lru_cache(maxsize=16)
def _limit(timeout: float, used_s: float = 0.0) -> AbstractContextManager[None]:
    """Return a context that limits a job's time, of which `used_s` have passed; 0 is no limit.

    Jobs with the same timeout share the object: they are executed one after the other.
    """
    if timeout <= 0:
        return _NoLimit()
    penalty: Any = DEATH_PENALTY_CLASS(timeout, JobTimeoutException, used_s=used_s)
    return penalty  # type: ignore[no-any-return]


class _NoLimit(nullcontext[None]):
    def __enter__(self) -> None:
        disarm()


def _explain(exc_info: ExcInfo) -> str:
    """Return the text to store for an exception: the traceback, or the message of a refusal."""
    error = exc_info[1]
    if isinstance(error, NotAllowed):
        return f"{NotAllowed.__module__}.{NotAllowed.__qualname__}: {error}"
    return format_exc_info(exc_info)


def _needs_conclusion(job: Job, ttl: int) -> bool:
    return bool(
        job.repeats_left
        or job.rate_limit_key
        or job.webhooks
        or (ttl == 0 and (job.group_id or job.is_tracked))
        or ttl < -1
    )


def _fails_by_rq(job: Job) -> bool:
    ttl = job.failure_ttl
    has_retries = (job.retries_left or 0) > 0  # `should_retry` asks Redis, when the job is ended
    return bool(has_retries or job.rate_limit_key or job.webhooks or (ttl is not None and ttl <= 0))


def _to_text(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()
