"""Trace context of OpenTelemetry: from the submitter of a run to every job, one trace a run.

A program that traces has imported OpenTelemetry and set a provider, or `opentelemetry-instrument`
has. In any other program this module imports nothing of it, stores nothing and sends nothing.
Errors of OpenTelemetry and its plugins (processors, samplers, propagators), or unreadable contexts,
never stop a run: then its jobs are traced without it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from rq.timeouts import BaseTimeoutException

from flowq._version import __version__

if TYPE_CHECKING:
    from rq.job import Job

    from flowq.plan import Plan

P = ParamSpec("P")

log = logging.getLogger("rq.worker")

API = "opentelemetry.trace"
"""The module that every program that traces has imported."""

META = "flowq_trace"
"""The key of the context in the `meta` of a job that is enqueued outside of runs."""

MAX_CHARACTERS = 10_000
"""The limit of a stored context; W3C allows 8,192 bytes of baggage and recommends 512 of state."""

SYSTEM = "rq"
"""What `messaging.system` says of flowq's spans."""


@contextmanager
def _tolerant(what: str, *names: str) -> Iterator[None]:
    """Log errors of OpenTelemetry at DEBUG, and go on after the block.

    The timeout of a job that submits passes: it comes once, and may come in this code too.
    """
    try:
        yield
    except BaseTimeoutException:
        raise
    except Exception:
        log.debug(what, *names, exc_info=True)


def find_provider() -> Any:
    """Return the provider of this process, or None if nothing here traces.

    The API alone does not trace: libraries import it, and its own providers do nothing.
    """
    api: Any = sys.modules.get(API)
    if api is None:
        return None
    with _tolerant("nothing is traced"):  # it is being imported, or a provider cannot be loaded
        provider = api.get_tracer_provider()
        idle = api.ProxyTracerProvider, api.NoOpTracerProvider
        return None if isinstance(provider, idle) else provider
    return None


def make_tracer(provider: Any) -> Any:
    """Return the tracer of flowq's spans; None if OTEL_SDK_DISABLED is set."""
    api: Any = sys.modules[API]
    tracer = provider.get_tracer("flowq", __version__)
    return None if isinstance(tracer, api.NoOpTracer) else tracer


def as_span(submit: Callable[Concatenate[Plan, P], None]) -> Callable[Concatenate[Plan, P], None]:
    """Make each call of `submit` a span, whose parent is the current one."""

    @wraps(submit)
    def call(plan: Plan, /, *args: P.args, **kwargs: P.kwargs) -> None:
        with _submission(plan) if API in sys.modules else nullcontext():
            submit(plan, *args, **kwargs)

    return call


@contextmanager
def _submission(plan: Plan) -> Iterator[None]:
    """Make the block a span. Raises only what the block raises.

    An error after the commit would make callers submit the run again.
    """
    span: AbstractContextManager[object] = nullcontext()
    with _tolerant("run %s: its submission is not traced", plan.run_id):
        made = _make_span(plan)
        made.__enter__()
        span = made
    failed = "run %s: the span of its submission was not ended"
    try:
        yield
    except BaseException as error:
        with _tolerant(failed, plan.run_id):
            span.__exit__(type(error), error, error.__traceback__)
        raise
    with _tolerant(failed, plan.run_id):
        span.__exit__(None, None, None)


def _make_span(plan: Plan) -> AbstractContextManager[object]:
    provider = find_provider()
    tracer = None if provider is None else make_tracer(provider)
    if tracer is None:
        return nullcontext()
    api: Any = sys.modules[API]
    attributes = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": "submit",
        "messaging.operation.type": "send",
        "messaging.batch.message_count": len(plan.enqueues),
        "flowq.run": plan.run_id,
        "flowq.workflow": plan.workflow,
    }
    span: AbstractContextManager[object] = tracer.start_as_current_span(
        f"submit {plan.workflow}", kind=api.SpanKind.PRODUCER, attributes=attributes
    )
    return span


def note_context(job: Job) -> None:
    """Put the current context into the `meta` of a job that is about to be enqueued.

    Does nothing if no span is current, or the job has a context already.
    """
    if API in sys.modules and META not in job.meta and (context := write_context()):
        job.meta[META] = context


def write_context() -> str:
    """Return the current context as JSON, in the headers of the configured propagators.

    Empty if no span is current. A context that is too long is stored without its baggage.
    """
    api: Any = sys.modules.get(API)
    with _tolerant("the trace context is not stored"):
        if not api or not api.get_current_span().get_span_context().is_valid:
            return ""
        from opentelemetry import propagate  # noqa: PLC0415 - only where its API is loaded

        headers: dict[str, str] = {}
        propagate.inject(headers)
        for kept in (headers, {name: headers[name] for name in headers if name != "baggage"}):
            written = json.dumps(kept)
            if kept and len(written) <= MAX_CHARACTERS:
                return written
    return ""


def read_context(written: Any) -> Any:
    """Return the context in a stored text; an empty one for anything else. Does not raise."""
    from opentelemetry import context  # noqa: PLC0415 - as above

    empty = context.Context()
    with _tolerant("a trace context cannot be read"):
        from opentelemetry import propagate  # noqa: PLC0415 - fails if one is not installed

        if not written or len(written) > MAX_CHARACTERS:
            return empty
        headers = json.loads(written)
        if not isinstance(headers, Mapping):
            return empty
        texts = {name: value for name, value in headers.items() if isinstance(value, str)}
        return propagate.extract(texts, context=empty)
    return empty


# Ids ---------------------------------------------------------------------------------------------
# Derived, not stored: a join links to the spans of its blockers, which other processes have made.


def trace_id_of(name: str) -> int:
    """Return the trace of a run, or of a job outside of runs, that was submitted without one."""
    return _hash(name, size_bytes=16)


def span_id_of(job_id: str, generation: int, attempt: int) -> int:
    """Return the id of the span of one attempt of a job of a run."""
    return _hash(f"{job_id} {generation} {attempt}", size_bytes=8)


def _hash(text: str, *, size_bytes: int) -> int:
    digest = blake2b(text.encode(errors="replace"), digest_size=size_bytes).digest()
    return int.from_bytes(digest) or 1  # zero is not an id
