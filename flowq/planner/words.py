"""A job as a reader wants to see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowq.binding import describe_call, describe_command
from flowq.spec import JobSpec

MAX_COMMAND = 60


def describe(job: JobSpec, filled: Mapping[str, Any]) -> str:
    """Return what a job does, in one line."""
    if job.run is not None:
        first, _, rest = describe_command(job.run.command).strip().partition("\n")
        return first if len(first) <= MAX_COMMAND and not rest else f"{first[:MAX_COMMAND]}…"
    return describe_call(job.call or job.workflow, filled)
