"""Jobs whose module sets up OpenTelemetry, unless the worker has inherited a provider."""

from __future__ import annotations

import os
import signal
from typing import Any

from opentelemetry import baggage, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import flowq


def make_provider() -> TracerProvider:
    """Return a provider that sends to the address in OTEL_EXPORTER_OTLP_ENDPOINT."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
    trace.set_tracer_provider(make_provider())


def work(*_: Any, **__: Any) -> list[int]:
    """Make a span of its own, and return a list."""
    with trace.get_tracer("users").start_as_current_span("inner"):
        return [1, 2]


def tell_baggage() -> dict[str, Any]:
    """Return the baggage of the submitter."""
    return dict(baggage.get_all())


def fail_once(attempt: int, token: str) -> int:
    """Fail in the first attempt, with a secret in the message."""
    if attempt == 1:
        raise LookupError(f"no {token}")
    return attempt


def die_once(attempt: int) -> int:
    """Kill the own process in the first attempt."""
    if attempt == 1:
        work()
        trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt


def add_one() -> None:
    """Add a job to the run."""
    join = flowq.current_future()
    flowq.Queue(connection=join.connection).enqueue(work, blocked_by=join)


def enqueue_plain() -> str:
    """Enqueue a job outside of the run, and return its id."""
    job = flowq.get_current_job()
    assert job is not None
    return flowq.Queue(connection=job.connection).enqueue(work).id
