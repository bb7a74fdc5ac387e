"""A short summary of how a run ended, with tracebacks reduced to the user's own code."""

from __future__ import annotations

import re
import reprlib
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowq.render.lines import (
    STYLE_BY_STATE,
    Line,
    count,
    find_mark,
    format_duration,
    printable,
    shortened,
)
from flowq.render.progress import in_order
from flowq.runtime.views import to_printable
from flowq.status import RunStatus

MAX_RESULTS = 6
MAX_FAILURES = 5
MAX_TRACEBACK_LINES = 12
MAX_OUTPUT_LINES = 20
MAX_ITEMS = 20
"""How many items of a list are shown of a result; of a group's results, one more needs to be read,
which tells that there are more."""


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
    `retry_command` goes on with a canceled run; empty for others.
    `unknown` has the outputs that have no value, and why. `show_command` returns what a
    reader types to see all about a job, by its name.
    """

    status: RunStatus
    results: Mapping[str, Any] = field(default_factory=dict)
    failed: Sequence[FailedJob] = ()
    show_command: Callable[[str], str] | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    retry_command: str = ""


def summary(report: Report, width: int = 80, *, unicode: bool = True) -> list[Line]:
    """Return the end of a run: its state, counts, last results, and why jobs failed."""
    return [
        *_verdict(report.status, width, unicode),
        *results(report, width, unicode=unicode),
        *_ended_otherwise(report, unicode),
        *_failures(report, unicode),
        *([((f"go on with it: {report.retry_command}", "dim"),)] if report.retry_command else []),
    ]


def _verdict(status: RunStatus, width: int, unicode: bool) -> Iterator[Line]:
    state = status.state
    mark = {"succeeded": "finished", "failed": "failed", "canceled": "canceled"}.get(state, "")
    took = f" in {format_duration(status.duration_s)}" if status.duration_s is not None else ""
    took += f", {status.reason}" if status.reason else ""
    counts = ", ".join(f"{number:,} {word}" for number, word in count_states(status))
    style = STYLE_BY_STATE.get(state, "")
    line: Line = (
        (f"{find_mark(mark, unicode)} {printable(status.workflow)} {state}", style),
        (f"{took}: {counts or 'no jobs'}", ""),
    )
    run = (f"  run {status.run_id}", "dim")
    if sum(len(text) for text, _ in (*line, run)) <= width:
        yield (*line, run)
    else:  # an id that a terminal breaks cannot be copied
        yield from (line, (run,))


def count_states(status: RunStatus) -> list[tuple[int, str]]:
    """Return how many of what was declared are in which state; tolerated failures apart."""
    counts = Counter[str]()
    for job in status.declared():
        is_tolerated = job.state == "failed" and status.is_tolerated(job)
        counts["failed and tolerated" if is_tolerated else job.state] += 1
    return in_order(counts)


def results(report: Report, width: int = 80, *, unicode: bool = True) -> Iterator[Line]:
    """Yield what a run came to: its outputs where there are some, else its last results."""
    told = {name: value for name, value in report.results.items() if not _is_nothing(value)}
    if report.outputs or report.unknown:
        yield from _values(report.outputs, len(report.outputs), width, unicode)
        yield from (_unknown(name, why) for name, why in report.unknown.items())
        return
    yield from _values(told, MAX_RESULTS, width, unicode)
    if len(told) > MAX_RESULTS:
        yield ((f"  and {count(len(told) - MAX_RESULTS, 'more result')}", "dim"),)


def _is_nothing(value: Any) -> bool:
    """Whether it is the result of a function without `return`, or of a command that is silent."""
    return value is None or (isinstance(value, str) and not value)


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
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = MAX_ITEMS
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
    """Yield the jobs that made a run fail and did not fail themselves: rejected, deleted, ...

    Beside failures without canceled jobs, most of which were canceled because of those.
    """
    if report.status.state != "failed":
        return
    jobs = report.status.jobs.values()
    bad = [job for job in jobs if job.state in _BAD and not report.status.is_tolerated(job)]
    if report.failed:
        bad = [job for job in bad if job.state != "canceled" or job.is_rejected]
    for job in bad[:MAX_FAILURES]:
        why = f": {printable(job.reason)}" if job.reason else ""
        line = f"{find_mark(job.state, unicode)} {job.name} {job.state}{why}"
        yield ((line, STYLE_BY_STATE[job.state]),)
    if left := bad[MAX_FAILURES:]:
        states = Counter(job.state for job in left)
        more = ", ".join(f"{number:,} more {state}" for state, number in states.items())
        yield ((f"{'…' if unicode else '...'} and {more}", "dim"),)


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
        yield (("  the reason was not recorded", "dim"),)
    output = list(job.output)[-MAX_OUTPUT_LINES:]
    if output and told[-1:] != output[-1:]:  # a worker tells it itself after a crash
        yield (("  its last output:", "dim"),)
        yield from (((f"  | {printable(line)}", "dim"),) for line in output)


_FRAME = re.compile(r'^  File "(?P<file>.*)", line \d+, in ')
_HEADER = "Traceback (most recent call last):"
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]|^<frozen |^<string>$")
_OF_RQ = re.compile(r"[/\\](site|dist)-packages[/\\](rq|flowq)[/\\]")
_OWN_FOLDERS = (str(Path(__file__).resolve().parents[1]), sysconfig.get_paths()["stdlib"])


def own_lines(traceback: str) -> list[str]:
    """Return a traceback without the frames of flowq, of RQ, and of whatever was installed.

    Shape: the message of each exception stays whole, and so do the sentences that chain them. A
    text that is no traceback comes back as it is, line by line.
    """
    lines: list[str] = []
    for belongs_to, line in _attributed(traceback):
        if belongs_to is None or not is_foreign(belongs_to):
            lines.append(line)
    return [line for line in lines if line != _HEADER]


def without_runtime(traceback: str, advice: str = "; -v shows all") -> list[str]:
    """Return a traceback without the frames of flowq and RQ, which stand before the user's own.

    Shape: by line; where some are left out the last line says so, with `advice`.
    """
    lines: list[str] = []
    left_out = 0
    for belongs_to, line in _attributed(traceback):
        if belongs_to is not None and _is_runtime(belongs_to):
            left_out += bool(_FRAME.match(line))
        else:
            lines.append(line)
    if not left_out:
        return lines
    if not any(_FRAME.match(line) for line in lines):
        lines = [line for line in lines if line != _HEADER]
    frames = "1 frame" if left_out == 1 else f"{left_out} frames"
    return [*lines, f"({frames} of flowq and RQ left out{advice})"]


def _is_runtime(file: str) -> bool:
    return file.startswith(_OWN_FOLDERS[0]) or bool(_OF_RQ.search(file))


def is_foreign(file: str) -> bool:
    """Whether a file is part of flowq, of an installed package or of Python itself."""
    return bool(_INSTALLED.search(file)) or file.startswith(_OWN_FOLDERS)


def _attributed(traceback: str) -> Iterator[tuple[str | None, str]]:
    """Yield each line with the file of the frame that it belongs to, or None for a message."""
    file, is_in_frames = None, False
    for line in traceback.rstrip().splitlines():
        if line == _HEADER:
            file, is_in_frames = None, True
        elif is_in_frames and (frame := _FRAME.match(line)):
            file = frame["file"]
        elif line.startswith('  File "') or not line.startswith("  "):
            # A file without a function is where a SyntaxError is: part of its message.
            file, is_in_frames = None, False
        yield file, line
