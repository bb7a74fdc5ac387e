"""Lists of runs and of executions, as lines in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from flowq.render.lines import STYLE_BY_STATE, Line, Span, format_duration, printable
from flowq.status import Executing, RunRecord


def runs_table(records: Iterable[RunRecord], now: datetime) -> list[Line]:
    """Return one line for each run, in the order given, under a line with the heads."""
    rows = [_run_row(record, now) for record in records]
    if not rows:
        return [(("no runs", "dim"),)]
    return aligned(("RUN", "WORKFLOW", "STATE", "SUBMITTED", "TOOK"), rows)


def _run_row(record: RunRecord, now: datetime) -> list[Span]:
    ended_at = record.ended_at or (None if record.state == "staged" else now)
    took = (ended_at - (record.committed_at or record.created_at)) if ended_at else None
    return [
        (record.run_id, ""),
        (printable(record.workflow), ""),
        (record.state, STYLE_BY_STATE.get(record.state, "")),
        (local_time(record.created_at), "dim"),
        (format_duration(took.total_seconds()) if took else "", "dim"),
    ]


def wip_table(entries: Iterable[Executing], now: datetime) -> list[Line]:
    """Return one line for each execution, in the order given, under a line with the heads."""
    rows = [_wip_row(entry, now) for entry in entries]
    if not rows:
        return [(("no job is being executed", "dim"),)]
    return aligned(("JOB", "RUN", "QUEUE", "FOR", "WORKER", "CALL"), rows)


def _wip_row(entry: Executing, now: datetime) -> list[Span]:
    for_s = (now - entry.started_at).total_seconds() if entry.started_at else None
    return [
        (entry.name or entry.job_id, "bold cyan"),
        (entry.run_id, ""),
        (entry.queue, ""),
        ("" if for_s is None else format_duration(for_s), ""),
        (printable(entry.worker), "dim"),
        (printable(entry.description), "dim"),
    ]


def local_time(at: datetime) -> str:
    """Return an instant as a reader has it on the clock, with the zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def aligned(heads: Sequence[str], rows: Sequence[Sequence[Span]]) -> list[Line]:
    """Return the rows in columns; a column in which nothing stands is left out."""
    kept = [column for column in range(len(heads)) if any(row[column][0] for row in rows)]
    table = [[(head, "dim") for head in heads], *rows]
    width = {column: max(len(row[column][0]) for row in table) for column in kept}
    return [
        tuple((f"{row[column][0]:<{width[column]}}  ", row[column][1]) for column in kept)
        for row in table
    ]
