"""In the child: a span of OpenTelemetry for each attempt of a job.

Called only where a program has set up OpenTelemetry (`flowq.runtime.tracing`). All jobs of a run
belong to the trace of its submission. The context of a run is read once, and kept: jobs do not
carry it. Nothing here may fail a job or end a child, whatever plugins of OpenTelemetry raise: the
code of the job runs between these calls, not in them.
"""

from __future__ import annotations

import logging
import mmap
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rq.utils import as_text

from flowq.runtime import keys
from flowq.runtime.attempts import Failure
from flowq.runtime.connections import read_each
from flowq.runtime.tracing import (
    API,
    META,
    SYSTEM,
    find_provider,
    make_tracer,
    read_context,
    span_id_of,
    trace_id_of,
)

if TYPE_CHECKING:
    from redis import Redis

    from flowq.runtime.job import Job
    from flowq.workers.messages import End, Task

log = logging.getLogger("rq.worker")

MAX_LINKS = 128
"""The links of a join; SDKs keep no more by default."""

MAX_RUNS = 64
"""How many runs' contexts a child keeps."""

MAX_TRACEBACK = 20_000
"""How much of the end of a traceback is recorded, in characters."""

FLUSH_S = 1.5
"""How long a process may take for its last spans; the supervisor gives it 2 s to end (`END_S`)."""

BRIEF_S = 0.1
"""The same after a collector did not answer in time, for BRIEF_FOR_S: else, where each job has a
process, each job would take FLUSH_S."""

BRIEF_FOR_S = 60.0

_brief_until = memoryview(mmap.mmap(-1, 8)).cast("d")
"""Until when flushes are brief, on the monotonic clock: one number that this process shares with
all that are forked from it."""


class Spans:
    """The spans of one child. `begin` and `end` do not raise."""

    __slots__ = ("_close", "_connection", "_contexts", "_ids", "_provider", "_tracer", "_worker")

    def __init__(self, connection: Redis, worker: str) -> None:
        self._connection = connection
        self._worker = worker
        self._provider: Any = None
        self._tracer: Any = None
        self._ids: _Ids | None = None
        self._contexts: dict[str, tuple[Any, str]] = {}
        self._close: Callable[[End], None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the current job has a span."""
        return self._close is not None

    def begin(self, job: Job, task: Task, started_at: float | None = None) -> None:
        """Start the span of a job, and make it current; nothing if this process does not trace.

        Units: `started_at` in epoch seconds, by default now.
        """
        try:
            if self._find_tracer():
                self._begin(job, task, started_at)
        except BaseException:  # as the module says
            log.debug("job %s is not traced", job.id, exc_info=True)

    def record(self, job: Job, task: Task, end: End) -> None:
        """Write the span of an attempt that has ended."""
        self.begin(job, task, end.started_at)
        self.end(end)

    def end(self, end: End) -> None:
        """End the span of the current job, which `begin` has started."""
        close, self._close = self._close, None
        try:
            if close:
                close(end)
        except BaseException:  # as the module says
            log.debug("the span of a job was not ended", exc_info=True)

    def _find_tracer(self) -> bool:
        provider = find_provider()
        if provider is not self._provider:
            self._provider = provider
            self._tracer = None if provider is None else make_tracer(provider)
            original = getattr(self._tracer, "id_generator", None)
            self._ids = None
            if original is not None:  # a tracer belongs to one caller, so this changes no other's
                self._ids = self._tracer.id_generator = _Ids(original)
        return self._tracer is not None

    def _begin(self, job: Job, task: Task, started_at: float | None) -> None:
        from opentelemetry import context as contexts  # noqa: PLC0415 - where it is loaded

        api: Any = sys.modules[API]
        parent, workflow = self._find_parent(job)
        inherited = api.get_current_span(parent).get_span_context()
        trace_id = inherited.trace_id if inherited.is_valid else trace_id_of(job.run_id or job.id)
        links = []
        if self._ids is not None:
            self._ids.trace_id, self._ids.span_id = trace_id, 0  # not those of a span that failed
            if job.run_id:
                self._ids.span_id = span_id_of(job.id, job.generation, job.attempt)
                links = [
                    api.Link(api.SpanContext(trace_id, each, True, inherited.trace_flags))
                    for each in self._find_blockers(job)
                ]
        span = self._tracer.start_span(
            job.declared_name or job.func_name or "job",
            context=parent,
            kind=api.SpanKind.CONSUMER,
            attributes=self._describe(job, task, workflow),
            links=links,
            start_time=None if started_at is None else int(started_at * 1e9),
        )
        token = contexts.attach(api.set_span_in_context(span, parent))

        def close(end: End) -> None:
            contexts.detach(token)
            try:
                if end.status != "finished":
                    _note_failure(span, end, api)
            finally:
                span.end(int(end.ended_at * 1e9))

        self._close = close

    def _describe(self, job: Job, task: Task, workflow: str) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "messaging.system": SYSTEM,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": task.queue,
            "messaging.message.id": job.id,
            "messaging.client.id": self._worker,
        }
        if job.run_id:
            attributes["flowq.run"] = job.run_id
            attributes["flowq.workflow"] = workflow
            attributes["flowq.job"] = job.name
            attributes["flowq.attempt"] = job.attempt
        return attributes

    def _find_parent(self, job: Job) -> tuple[Any, str]:
        """Return the context of the job's run, and the name of its workflow.

        Of a job outside of runs, the context with which it was enqueued.
        """
        if not job.run_id:
            return read_context(job.meta.get(META)), ""
        found = self._contexts.get(job.run_id)
        if found is None:
            key = keys.run(job.run_id)
            fields: Any = self._connection.hmget(key, keys.TRACE_FIELD, "workflow")
            context, workflow = ((field or b"").decode(errors="replace") for field in fields)
            if len(self._contexts) >= MAX_RUNS:
                self._contexts.clear()
            found = self._contexts[job.run_id] = read_context(context), workflow
        return found

    def _find_blockers(self, job: Job) -> list[int]:
        """Return the ids of the spans of a join's blockers: of the last attempt of each."""
        if not job.is_future:
            return []
        listed: Any = self._connection.lrange(keys.blockers(job.id), 0, MAX_LINKS - 1)
        ids = [as_text(each) for each in listed]
        fields = ("flowq_gen", "flowq_attempts", "flowq_run")
        answers = read_each(
            ids, self._connection, lambda pipe, job_id: pipe.hmget(keys.job(job_id), *fields)
        )
        return [
            span_id_of(job_id, int(generation or 0), int(attempts))
            for job_id, ((generation, attempts, run_id),) in answers
            if int(attempts or 0) and as_text(run_id or b"") == job.run_id
        ]


class _Ids:
    """Gives the next span the ids that were derived for it, and all others those of the SDK."""

    def __init__(self, original: Any) -> None:
        self._original = original
        self.span_id = self.trace_id = 0

    def generate_span_id(self) -> int:
        """Return the id of the next span."""
        given, self.span_id = self.span_id, 0
        return given or int(self._original.generate_span_id())

    def generate_trace_id(self) -> int:
        """Return the trace of the next span, which is called for spans without a parent only."""
        given, self.trace_id = self.trace_id, 0
        return given or int(self._original.generate_trace_id())

    def is_trace_id_random(self) -> bool:
        """Whether samplers may rely on the bits of a trace's id: hashes are as good as random."""
        return bool(self._original.is_trace_id_random())


def _note_failure(span: Any, end: End, api: Any) -> None:
    """Record the error as it is stored, so without secrets."""
    failure = Failure.read(end.failure) or Failure()
    kind = failure.names[0].replace(":", ".") if failure.names else end.status
    text = end.error
    brief = failure.error or text.strip().rpartition("\n")[2]
    span.set_attribute("error.type", kind)
    span.set_status(api.Status(api.StatusCode.ERROR, brief))
    attributes = {"exception.type": kind, "exception.message": brief}
    span.add_event("exception", {**attributes, "exception.stacktrace": text[-MAX_TRACEBACK:]})


_PROVIDERS = (
    (API, "get_tracer_provider"),
    ("opentelemetry.metrics", "get_meter_provider"),
    ("opentelemetry._logs", "get_logger_provider"),
)


def flush() -> None:
    """Send what OpenTelemetry has collected, because this process ends without exit handlers.

    Takes up to FLUSH_S, or BRIEF_S. Processors send every few seconds, but this may be the process
    of one job. Does not raise.
    """
    try:
        if flushes := _find_flushes():
            now = time.monotonic()
            is_brief = now < _brief_until[0]
            thread = threading.Thread(target=_call_each, args=(flushes,), daemon=True)
            thread.start()
            thread.join(BRIEF_S if is_brief else FLUSH_S)
            if thread.is_alive() and not is_brief:
                _brief_until[0] = now + BRIEF_FOR_S
    except BaseException:  # as the module says
        log.debug("the last spans were not sent", exc_info=True)


def _find_flushes() -> list[Callable[[], object]]:
    flushes = []
    for module, getter in _PROVIDERS:
        if module in sys.modules:
            provider = getattr(sys.modules[module], getter)()
            if hasattr(provider, "force_flush"):
                flushes.append(provider.force_flush)
    return flushes


def _call_each(flushes: list[Callable[[], object]]) -> None:
    for each in flushes:
        try:
            each()
        except BaseException:  # the others have something to send too
            log.debug("%r failed", each, exc_info=True)
