"""How a run ended, in the few lines that its reader needs next."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowq.render.failures import own_lines
from flowq.render.lines import (
    STYLE_BY_STATE,
    Line,
    count,
    format_duration,
    printable,
    shortened,
)
from flowq.render.marks import find_mark
from flowq.render.progress import count_states
from flowq.runtime.views import to_printable
from flowq.status import RunStatus

MAX_RESULTS = 6
MAX_FAILURES = 5
MAX_TRACEBACK_LINES = 12
MAX_OUTPUT_LINES = 20


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job that failed.

    Shape: `output` has the last lines of what it printed, oldest first; `reason` is what the run
    was told beside the end: why it was not tried again.
    """

    name: str
    traceback: str = ""
    output: Sequence[str] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What is said at the end of a run.

    Shape: `results` by name, of the jobs that nothing comes after; `outputs` by name, of a workflow
    that declares some, and then they are what is shown; both are views (`flowq.runtime.views`).
    `unknown` has the outputs that have no value, and why. `show_command` returns what a
    reader types to see all about a job, by its name.
    """

    status: RunStatus
    results: Mapping[str, Any] = field(default_factory=dict)
    failed: Sequence[FailedJob] = ()
    show_command: Callable[[str], str] | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)


def summary(report: Report, width: int = 80, *, unicode: bool = True) -> list[Line]:
    """Return the end of a run: its state, counts, last results, and why jobs failed."""
    return [
        _verdict(report.status, unicode),
        *results(report, width, unicode=unicode),
        *_failures(report, unicode),
        *_ended_otherwise(report, unicode),
    ]


def _verdict(status: RunStatus, unicode: bool) -> Line:
    state = status.state
    mark = {"succeeded": "finished", "failed": "failed", "canceled": "canceled"}.get(state, "")
    took = f" in {format_duration(status.duration_s)}" if status.duration_s is not None else ""
    took += f", {status.reason}" if status.reason else ""
    counts = ", ".join(f"{number:,} {word}" for number, word in _counts(status))
    style = STYLE_BY_STATE.get(state, "")
    return (
        (f"{find_mark(mark, unicode)} {printable(status.workflow)} {state}", style),
        (f"{took}: {counts or 'no jobs'}", ""),
        (f"  run {status.run_id}", "dim"),
    )


def _counts(status: RunStatus) -> Iterator[tuple[int, str]]:
    tolerated = sum(job.state == "failed" and status.is_tolerated(job) for job in status.declared())
    for number, state in count_states(status):
        left = number - tolerated if state == "failed" else number
        if left:
            yield left, state
    if tolerated:
        yield tolerated, "failed and tolerated"


def results(report: Report, width: int = 80, *, unicode: bool = True) -> Iterator[Line]:
    """Yield what a run came to: its outputs where there are some, else its last results."""
    told = {name: value for name, value in report.results.items() if value is not None}
    if report.outputs or report.unknown:
        yield from _values(report.outputs, len(report.outputs), width, unicode)
        yield from (_unknown(name, why) for name, why in report.unknown.items())
        return
    yield from _values(told, MAX_RESULTS, width, unicode)
    if len(told) > MAX_RESULTS:
        yield ((f"  and {count(len(told) - MAX_RESULTS, 'more result')}", "dim"),)


def _values(values: Mapping[str, Any], limit: int, width: int, unicode: bool) -> Iterator[Line]:
    for name in list(values)[:limit]:
        room = max(10, width - len(name) - 5)
        shown = shortened(_brief(values[name]), room, unicode)
        yield ((f"  {name} = ", "dim"), (shown, ""))


def _unknown(name: str, why: str) -> Line:
    return ((f"  {name} has no value: ", "bold red"), (printable(why), ""))


def _brief(value: Any) -> str:
    try:
        return printable(_repr.repr(to_printable(value)))
    except Exception as error:  # noqa: BLE001 - a user's __repr__ may raise anything
        return f"<unprintable: {type(error).__name__}>"


_repr = reprlib.Repr()  # its settings are arguments from Python 3.12 on only
_repr.maxstring = _repr.maxother = 200
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = 20
_repr.maxlevel = 4


def _failures(report: Report, unicode: bool) -> Iterator[Line]:
    for job in report.failed[:MAX_FAILURES]:
        attempts = report.status.jobs[job.name].attempts if job.name in report.status.jobs else 1
        yield ()
        yield from failure(job, attempts, unicode=unicode)
    hidden = report.failed[MAX_FAILURES:]
    if hidden:
        yield ()
        names = ", ".join(job.name for job in hidden[:10])
        more = f" and {len(hidden) - 10:,} more" if len(hidden) > 10 else ""
        yield ((f"{find_mark('failed', unicode)} also failed: {names}{more}", "bold red"),)
    if report.failed and report.show_command:
        yield ()
        for number, job in enumerate(report.failed[:MAX_FAILURES]):
            lead = "" if number else "the rest:"
            yield ((f"{lead:9} {report.show_command(job.name)}", "dim"),)


def _ended_otherwise(report: Report, unicode: bool) -> Iterator[Line]:
    """Yield why a run failed in which no job did: one was not approved in time, or deleted."""
    if report.status.state != "failed" or report.failed:
        return
    jobs = report.status.jobs.values()
    bad = [job for job in jobs if job.state in _BAD and not report.status.is_tolerated(job)]
    for job in bad[:MAX_FAILURES]:
        why = f": {printable(job.reason)}" if job.reason else ""
        line = f"{find_mark(job.state, unicode)} {job.name} {job.state}{why}"
        yield ((line, STYLE_BY_STATE[job.state]),)


_BAD = ("canceled", "expired", "deleted")


def failure(job: FailedJob, attempts: int = 1, *, unicode: bool = True) -> Iterator[Line]:
    """Yield why one job failed: the end of its traceback, and the end of what it printed."""
    after = f" after {count(attempts, 'attempt')}" if attempts > 1 else ""
    yield ((f"{find_mark('failed', unicode)} {job.name} failed{after}", "bold red"),)
    told = own_lines(job.traceback)
    if len(told) > MAX_TRACEBACK_LINES:
        told = ["  …" if unicode else "  ...", *told[-MAX_TRACEBACK_LINES:]]
    yield from (((f"  {printable(line)}", ""),) for line in told)
    if job.reason and [job.reason] != told:
        yield ((f"  {printable(job.reason)}", "dim"),)
    if not told:
        yield (("  nothing was recorded about why", "dim"),)
    output = list(job.output)[-MAX_OUTPUT_LINES:]
    if output and told[-1:] != output[-1:]:  # a worker tells it itself after a crash
        yield (("  its last output:", "dim"),)
        yield from (((f"  | {printable(line)}", "dim"),) for line in output)
