"""One run, or one job of it, with everything that is known about it."""

from __future__ import annotations

import pprint
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowq.render.groups import Declared, count_ends
from flowq.render.lines import STYLE_BY_STATE, Line, format_duration, printable, shortened
from flowq.render.marks import find_mark
from flowq.render.tables import local_time
from flowq.runtime.views import to_printable
from flowq.status import ENDED, CodeChange, JobFacts, JobStatus, RunRecord

MAX_ARGUMENT = 1000
"""Characters of an argument that are shown."""


@dataclass(frozen=True, slots=True)
class JobDetails:
    """A job of a run.

    Shape: `result` and `arguments` (by name) are views (`flowq.runtime.views`); `traceback` by
    line; `output` has all that is left of what it printed, by line.
    """

    status: JobStatus
    facts: JobFacts | None = None
    result: Any = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    traceback: Sequence[str] = ()
    output: Sequence[str] = ()


def run_details(record: RunRecord, changes: Iterable[CodeChange] = ()) -> Iterator[Line]:
    """Yield what is kept about a run beside its jobs, and what changed of their code."""
    yield ((f"{printable(record.workflow)}  ", "bold"), (f"run {record.run_id}", ""))
    state = f"{record.state}: {record.reason}" if record.reason else record.state
    yield from _field("state", state, STYLE_BY_STATE.get(record.state, ""))
    yield from _field("submitted", local_time(record.created_at))
    yield from _field("ended", local_time(record.ended_at) if record.ended_at else "")
    for name, value in record.inputs.items():
        yield from _field("input", f"{name} = {value!r}")
    for change in changes:
        yield from _field("code", _tell_change(change))


def _tell_change(change: CodeChange) -> str:
    later = f"{change.job} ({local_time(change.at)})"
    return f"{change.file} changed during the run, between {change.before} and {later}"


def job_details(details: JobDetails, *, unicode: bool = True) -> Iterator[Line]:
    """Yield a job's state, its times, its traceback, output and result."""
    job, facts = details.status, details.facts
    style = STYLE_BY_STATE.get(job.state, "")
    yield ((f"{find_mark(job.state, unicode)} {job.name}  ", style), (job.job_id, "dim"))
    yield from _field("state", f"{job.state}{f': {job.reason}' if job.reason else ''}", style)
    yield from _field("call", facts.description if facts else "")
    yield from _field("queue", facts.queue if facts else "")
    yield from _field("attempts", str(job.attempts) if job.attempts else "")
    yield from _field("worker", job.worker)
    yield from _field("code", facts.code if facts else "")
    yield from _approval(facts)
    yield from _field("started", local_time(job.started_at) if job.started_at else "")
    yield from _field("took", "" if job.duration_s is None else format_duration(job.duration_s))
    if details.arguments:
        lines = [f"{name} = {_brief(view)}" for name, view in details.arguments.items()]
        yield from _section("arguments", lines)
    has_frames = any(line.startswith('  File "') for line in details.traceback)
    yield from _section("traceback" if has_frames else "error", details.traceback)
    yield from _section("output", details.output)
    if job.state == "finished":
        yield from _section("result", _pretty(details.result))


def _approval(facts: JobFacts | None) -> Iterator[Line]:
    """Yield what a job asked for, and what was said to that."""
    if facts is None or not facts.needs_approval:
        return
    yield from _field("asks", facts.message or ", ".join(each.name for each in facts.asks))
    word = facts.word
    if word is None:
        return
    at = f" at {local_time(word.at)}" if word.at else ""
    by = f"by {word.by}" if word.by else "by somebody"
    yield from _field("approved" if word.is_approved else "rejected", f"{by}{at}")
    yield from _field("note" if word.is_approved else "reason", word.note)
    for name, value in word.inputs.items():
        yield from _field("given", f"{name} = {shortened(repr(value), MAX_ARGUMENT)}")


def group_details(
    group: Declared, results: Sequence[Any], *, unicode: bool = True
) -> Iterator[Line]:
    """Yield a group's state, how its items and its list are, and its results once it has ended."""
    style, made = STYLE_BY_STATE.get(group.state, ""), group.list_job
    yield ((f"{find_mark(group.state, unicode)} {group.name}  ", style), ("a group", "dim"))
    yield from _field("state", group.state, style)
    yield from _field("items", f"{len(group.items)}{_in_brackets(count_ends(group.items))}")
    if made is not None and (made.state != "finished" or made.reason):
        why = f": {made.reason}" if made.reason else f"; see {made.name}"
        yield from _field("list", f"{made.state}{why}", STYLE_BY_STATE.get(made.state, ""))
    if group.state in ENDED and group.items:
        yield from _section("result", _pretty(list(results)))


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _field(name: str, text: str, style: str = "") -> Iterator[Line]:
    if text:
        yield ((f"  {name:<9} ", "dim"), (printable(text), style))


def _section(name: str, lines: Sequence[str]) -> Iterator[Line]:
    if lines:
        yield ()
        yield ((f"{name}:", "bold"),)
        yield from (((f"  {printable(line)}", ""),) for line in lines)


def _pretty(view: Any) -> list[str]:
    return pprint.pformat(to_printable(view), width=100, sort_dicts=False).splitlines()


def _brief(view: Any) -> str:
    return shortened(repr(to_printable(view)), MAX_ARGUMENT)
