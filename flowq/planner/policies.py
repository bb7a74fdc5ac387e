"""What a declared job means where it leaves something unsaid: its rate, failures, a tolerance."""

from __future__ import annotations

from dataclasses import replace

from flowq.expressions import as_template, needs_success
from flowq.spec import BlockerPolicy, JobSpec, Rate, Tolerance

_ALL = 100  # percent


def find_rate(job: JobSpec, workflow: str) -> Rate | None:
    """Return the rate of a job, which is one of the job alone if it names no group."""
    if job.rate is None or job.rate.group or "rate.group" in job.settings:
        return job.rate
    return replace(job.rate, group=f"{workflow}.{job.name}")


def find_policy(job: JobSpec) -> BlockerPolicy:
    """Return what a job does when a job before it did not succeed."""
    if job.on_blocker_failure is not None or job.start_when is not None:
        return job.on_blocker_failure or "run"  # `start_when` decides about failures itself
    return "skip" if job.if_ is None or needs_success(as_template(job.if_)) else "run"


def tolerates_one(tolerance: Tolerance | None) -> bool:
    """Whether the failure of a single job counts as a success."""
    return tolerance is not None and (bool(tolerance.count) or tolerance.percent == _ALL)
