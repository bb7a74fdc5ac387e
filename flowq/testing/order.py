"""`assert_order` and `wait_until`: what tests say about the order and the end of things."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, TypeVar

from flowq.nearest import did_you_mean
from flowq.status import outer_names, outermost_name

if TYPE_CHECKING:
    from flowq.status import JobStatus, RunStatus

Value = TypeVar("Value")

POLL_S = 0.005

ROUNDING_S = 0.001
"""The precision of the instants of a run."""


class HasStatus(Protocol):
    """A run: `flowq.client.Run`, or the result of `run_inline`."""

    def status(self) -> RunStatus:
        """Return the status of the run and its jobs."""


def wait_until(predicate: Callable[[], Value], timeout: float = 10.0) -> Value:
    """Call `predicate` until it returns something true, and return that.

    Errors: AssertionError if that does not happen within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > deadline:
            name = getattr(predicate, "__qualname__", repr(predicate))
            raise AssertionError(f"{name} did not become true within {timeout:g} s")
        time.sleep(POLL_S)
    return value


def assert_order(run: HasStatus, *names: str) -> None:
    """Assert that these jobs ran in this order: each began after the one before had ended.

    The name of a group or of a nested workflow stands for all jobs in it. Of a job that was
    executed several times, the last attempt counts.
    Errors: AssertionError, also for a job that did not run.
    """
    status = run.status()
    spans = [(name, *_span(status, name)) for name in names]
    for (before, _, ended_at), (after, began_at, _) in pairwise(spans):
        if ended_at > began_at + ROUNDING_S:
            order = _describe(status)
            raise AssertionError(f"{after} began before {before} ended; the order was {order}")


def _span(status: RunStatus, name: str) -> tuple[float, float]:
    """Return when the first of the jobs that a name stands for began, and the last one ended."""
    jobs = [job for job in status.jobs.values() if name in _names_for(job.name)]
    if not jobs:
        known = {each for job in status.jobs for each in _names_for(job)}
        hint = did_you_mean(name, known) or f"its jobs are {', '.join(status.jobs)}"
        raise AssertionError(f"the run has no job {name}; {hint}")
    ran = [job for job in jobs if job.started_at and not job.helps]
    if not ran:
        raise AssertionError(f"{name} did not run: it is {jobs[0].state}")
    ends = [job.ended_at.timestamp() for job in ran if job.ended_at]
    if len(ends) < len(ran):
        raise AssertionError(f"{name} has not ended")
    return min(map(_began_at, ran)), max(ends)


def _began_at(job: JobStatus) -> float:
    return job.started_at.timestamp() if job.started_at else 0.0


def _names_for(name: str) -> Iterator[str]:
    """Yield the names that stand for a job: its own, its group's, and those around it."""
    yield name
    for each in (name, *outer_names(name)):
        yield each
        if each.endswith("]"):
            yield each[: each.rindex("[")]
    yield outermost_name(name)


def _describe(status: RunStatus) -> str:
    ran = [job for job in status.jobs.values() if job.started_at and not job.helps]
    return ", ".join(job.name for job in sorted(ran, key=_began_at))
