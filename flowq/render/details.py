"""Everything known about one run or one job, and the table of runs."""

from __future__ import annotations

import pprint
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flowq.cells import count_cells, pad
from flowq.durations import local_time
from flowq.errors import describe_exit
from flowq.history import Attempt, CodeChange, find_run_duration
from flowq.render.events import progress_text
from flowq.render.groups import Declared, count_ends, count_states
from flowq.render.lines import (
    STYLE_BY_STATE,
    Line,
    Span,
    find_mark,
    format_age,
    format_duration,
    printable,
    shortened,
    write_value,
)
from flowq.render.tally import Part
from flowq.runtime.views import to_printable
from flowq.status import ENDED, JobRecord, JobStatus, RunRecord

if TYPE_CHECKING:
    from flowq.runtime.schedules import ScheduleRecord

MAX_ERROR = 75
"""Characters of the error of an attempt that are shown in a line."""

MAX_ARGUMENT = 1000
"""Characters of an argument that are shown."""


MAX_SCHEDULES = 50
"""Characters of the schedules of a workflow that are shown in a line of a table."""

MAX_LABELS = 60
"""Characters of the labels of a run that are shown in a line of a table."""


@dataclass(frozen=True, slots=True)
class JobDetails:
    """A job of a run.

    Shape: `result` and `arguments` (by name) are views (`flowq.runtime.views`); `traceback` by
    line; `output` has all that is left of what it printed, by line; `host_by_worker` the host and
    the process id of the workers of its attempts.
    """

    status: JobStatus
    record: JobRecord | None = None
    result: Any = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    traceback: Sequence[str] = ()
    output: Sequence[str] = ()
    attempts: Sequence[Attempt] = ()
    host_by_worker: Mapping[str, tuple[str, int]] = field(default_factory=dict)


def run_details(
    record: RunRecord, now: datetime, changes: Iterable[CodeChange] = ()
) -> Iterator[Line]:
    """Yield what is kept about a run beside its jobs, and what changed of their code."""
    yield ((f"{printable(record.workflow)}  ", "bold"), (f"run {record.run_id}", ""))
    state = f"{record.state}: {record.reason}" if record.reason else record.state
    yield from _field("state", state, STYLE_BY_STATE.get(record.state, ""))
    yield from _field("file", record.file)
    yield from _field("continues", f"run {record.continues}" if record.continues else "")
    yield from _field("due", record.due_at.isoformat() if record.due_at else "")
    by = f", by {record.submitted_by}" if record.submitted_by else ""
    yield from _field("submitted", _time_and_age(record.created_at, now) + by)
    yield from _field("ended", _time_and_age(record.ended_at, now) if record.ended_at else "")
    for name, value in record.inputs.items():
        yield from _field("input", f"{name} = {value!r}")
    yield from _field("labels", say_labels(record.labels))
    for change in changes:
        yield from _field("code", _tell_change(change))


def say_labels(labels: Mapping[str, str]) -> str:
    """Return labels as options have them: `customer=acme team=data`."""
    return " ".join(f"{name}={value}" for name, value in labels.items())


def _time_and_age(at: datetime, now: datetime) -> str:
    return f"{local_time(at)}, {format_age(at, now)}"


def _tell_change(change: CodeChange) -> str:
    later = f"{change.job} ({local_time(change.at)})"
    return f"{change.file} changed during the run, between {change.before} and {later}"


def job_details(details: JobDetails, *, unicode: bool = True) -> Iterator[Line]:
    """Yield a job's state, its times, its traceback, output and result."""
    job, record = details.status, details.record
    style = STYLE_BY_STATE.get(job.state, "")
    yield ((f"{find_mark(job.state, unicode)} {job.name}  ", style), (job.job_id, "dim"))
    yield from _field("state", f"{job.state}{f': {job.reason}' if job.reason else ''}", style)
    yield from _field("executes", record.description if record else "")
    yield from _field("queue", record.queue if record else "")
    if job.progress is not None and job.state != "finished":
        yield from _field("progress", progress_text(job.progress))
    yield from _field("attempts", str(job.attempts) if job.attempts else "")
    yield from _polls(record)
    yield from _field("worker", _place(job.worker, details.host_by_worker))
    yield from _field("code", record.code if record else "")
    yield from _approval(record)
    yield from _field("started", local_time(job.started_at) if job.started_at else "")
    yield from _field("took", "" if job.duration_s is None else format_duration(job.duration_s))
    if len(details.attempts) > 1:
        yield from _attempts(details, unicode)
    if details.arguments:
        lines = [f"{name} = {_brief(view)}" for name, view in details.arguments.items()]
        yield from _section("arguments", lines)
    has_frames = any(line.startswith('  File "') for line in details.traceback)
    yield from _section("traceback" if has_frames else "error", details.traceback)
    yield from _section("output", details.output)
    if job.state == "finished":
        yield from _section("result", _pretty(details.result))


def _polls(record: JobRecord | None) -> Iterator[Line]:
    """Yield how often a job has polled, and what it found last."""
    if record is None or record.polls is None:
        return
    polls = record.polls
    yield from _field("polls", f"{polls.count:,} in vain since {local_time(polls.since)}")
    for at, view in polls.last:
        yield (("    ", ""), (f"{local_time(at)}  ", "dim"), (_brief(view), ""))


def _place(worker: str, host_by_worker: Mapping[str, tuple[str, int]]) -> str:
    host, pid = host_by_worker.get(worker, ("", 0))
    return f"{worker} on {host}, process {pid}" if host else worker


def _attempts(details: JobDetails, unicode: bool) -> Iterator[Line]:
    rows = [_attempt_row(each, details.host_by_worker) for each in details.attempts]
    heads, *lines = aligned(("", "STATE", "STARTED", "WAITED", "TOOK", "ON"), rows)
    yield ()
    yield (("attempts:", "bold"),)
    yield (("  ", ""), *heads)
    for attempt, line in zip(details.attempts, lines, strict=True):
        yield (("  ", ""), *line)
        if why := _why(attempt):  # below the attempt, because it may be long
            yield ((f"     {shortened(printable(why), MAX_ERROR, unicode)}", ""),)


def _why(attempt: Attempt) -> str:
    why = attempt.error or (attempt.reason if attempt.state != "finished" else "")
    code = attempt.exit_code
    if code is None or f"exit code {code}" in why or f"signal {code - 128} " in why:
        return why
    return f"{describe_exit(code)}: {why}" if why else describe_exit(code)


def _attempt_row(attempt: Attempt, host_by_worker: Mapping[str, tuple[str, int]]) -> list[Span]:
    host, pid = host_by_worker.get(attempt.worker, (attempt.worker, 0))
    waited, took = attempt.waited_s, attempt.duration_s
    state = attempt.state.replace("_", " ")
    return [
        (str(attempt.number), ""),
        (state, STYLE_BY_STATE.get(attempt.state, "red" if attempt.ended_at else "")),
        (local_time(attempt.started_at) if attempt.started_at else "", "dim"),
        ("" if waited is None else format_duration(waited), "dim"),
        ("" if took is None else format_duration(took), ""),
        (f"{host} {pid}" if pid else host, "dim"),
    ]


def _approval(record: JobRecord | None) -> Iterator[Line]:
    """Yield what a job asked for, and what was said to that."""
    if record is None or not record.needs_approval:
        return
    yield from _field("asks", record.message or ", ".join(each.name for each in record.asks))
    decision = record.decision
    if decision is None:
        return
    at = f" at {local_time(decision.at)}" if decision.at else ""
    by = f"by {decision.by}" if decision.by else "by somebody"
    yield from _field("approved" if decision.is_approved else "rejected", f"{by}{at}")
    yield from _field("note" if decision.is_approved else "reason", decision.note)
    for name, value in decision.inputs.items():
        yield from _field("given", f"{name} = {shortened(write_value(value), MAX_ARGUMENT)}")


def group_details(
    group: Declared, results: Sequence[Any] | None = None, *, unicode: bool = True
) -> Iterator[Line]:
    """Yield a group's state, how its items and its list are, and its results once it has ended."""
    ends, made = count_ends(group.items), group.list_job
    yield from _group(group.name, group.state, f"{len(group.items)}", ends, made, unicode)
    if group.state in ENDED and group.items and results is not None:
        yield from _section("result", _pretty(list(results)))


def counted_details(part: Part, *, unicode: bool = True) -> Iterator[Line]:
    """Yield what `group_details` does, of a group whose items are counted."""
    size, ends = str(part.states.total()), count_states(part.states)
    yield from _group(part.name, part.state, size, ends, part.list_job, unicode)


def _group(
    name: str, state: str, size: str, ends: str, made: JobStatus | None, unicode: bool
) -> Iterator[Line]:
    style = STYLE_BY_STATE.get(state, "")
    yield ((f"{find_mark(state, unicode)} {name}  ", style), ("a group", "dim"))
    yield from _field("state", state, style)
    yield from _field("items", f"{size}{_in_brackets(ends)}")
    if made is not None and (made.state != "finished" or made.reason):
        why = f": {made.reason}" if made.reason else f"; see {made.name}"
        yield from _field("list", f"{made.state}{why}", STYLE_BY_STATE.get(made.state, ""))


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


def runs_table(records: Iterable[RunRecord], now: datetime) -> list[Line]:
    """Return one line for each run, in the order given, under a line with the heads."""
    rows = [_run_row(record, now) for record in records]
    if not rows:
        return [(("no runs", "dim"),)]
    return aligned(("RUN", "WORKFLOW", "STATE", "SUBMITTED", "AGE", "TOOK", "LABELS"), rows)


def _run_row(record: RunRecord, now: datetime) -> list[Span]:
    took = find_run_duration(record, now)
    return [
        (record.run_id, ""),
        (printable(record.workflow), ""),
        (record.state, STYLE_BY_STATE.get(record.state, "")),
        (local_time(record.created_at), "dim"),
        (format_age(record.created_at, now), "dim"),
        ("" if took is None else format_duration(took), "dim"),
        (shortened(printable(say_labels(record.labels)), MAX_LABELS), "dim"),
    ]


def schedules_table(records: Iterable[ScheduleRecord], now: datetime) -> list[Line]:
    """Return one line for each workflow, in the order given, under a line with the heads."""
    rows = [_schedule_row(record, now) for record in records]
    if not rows:
        return [(("no schedules", "dim"),)]
    return aligned(("WORKFLOW", "SCHEDULE", "NEXT DUE", "BY", "LAST RUN", "STATE", "AGE"), rows)


def _schedule_row(record: ScheduleRecord, now: datetime) -> list[Span]:
    schedules = [f"{each.cron} ({each.timezone})" for each in record.schedules]
    due = local_time(record.next_due_at) if record.next_due_at else ""
    by = f"{record.host} {record.pid}" if record.host else "nobody"
    last = record.runs[0] if record.runs else None
    return [
        (printable(record.workflow), ""),
        (shortened(printable(", ".join(schedules)), MAX_SCHEDULES), ""),
        ("paused", "yellow") if record.is_paused else (due, ""),
        (printable(by), "dim" if record.host else "red"),
        (last.run_id if last else "", ""),
        (last.state, STYLE_BY_STATE.get(last.state, "")) if last else ("", ""),
        (format_age(last.created_at, now) if last else "", "dim"),
    ]


def aligned(heads: Sequence[str], rows: Sequence[Sequence[Span]]) -> list[Line]:
    """Return the rows in columns; empty columns are omitted."""
    kept = [column for column in range(len(heads)) if any(row[column][0] for row in rows)]
    table = [[(head, "dim") for head in heads], *rows]
    width = {column: max(count_cells(row[column][0]) for row in table) for column in kept}
    return [
        tuple((pad(row[column][0], width[column]) + "  ", row[column][1]) for column in kept)
        for row in table
    ]
