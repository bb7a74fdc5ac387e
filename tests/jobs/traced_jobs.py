"""Jobs whose module brings Datadog's tracer; what it would send goes to the file TEST_TRACES."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ddtrace import patch
from ddtrace.trace import TraceFilter, tracer

patch(rq=True)


class _Record(TraceFilter):
    """Writes the spans of a trace instead of sending them."""

    def process_trace(self, trace: list[Any]) -> None:
        with Path(os.environ["TEST_TRACES"]).open("a") as file:
            for span in trace:
                tags = [span.get_tag(name) for name in ("job.status", "flowq.job")]
                file.write(json.dumps([span.name, span.resource, span.error, *tags]))
                file.write("\n")


tracer.configure(trace_processors=[_Record()])


def fail() -> None:
    """Raise."""
    raise ValueError("no")


def add(a: int, b: int) -> int:
    """Return the sum."""
    return a + b
