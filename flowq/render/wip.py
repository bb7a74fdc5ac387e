"""What is being executed, and the workers that execute it, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from flowq.cells import count_cells, cut, pad
from flowq.render.events import progress_text
from flowq.render.json import make_document, write_instant
from flowq.render.lines import Line, Span, count, format_duration, printable
from flowq.runtime.wip import Executing, InProgress, WorkerRecord

_NAME_BY_STATE: Mapping[str, str] = {"handed": "handed over"}
_STYLE_BY_STATE: Mapping[str, str] = {
    "started": "bold cyan",
    "handed": "dim",
    "lost": "bold red",
    "busy": "bold cyan",
    "idle": "green",
    "suspended": "yellow",
    "stopping": "yellow",
}

_WIP_HEADS = (
    *("JOB", "WORKFLOW", "RUN", "QUEUE", "STATE", "PROGRESS", "FOR", "LEFT", "SEEN", "HOST"),
    *("PID", "WORKER", "CALL"),
)
_WORKERS_HEADS = ("WORKER", "STATE", "JOBS", "HOST", "PID", "MODE", "SEEN", "RUN", "QUEUES")

_LEAST_BY_HEAD: Mapping[str, int] = {
    "JOB": 12,
    "WORKFLOW": 8,
    "RUN": 12,
    "QUEUE": 7,
    "HOST": 5,
    "WORKER": 6,
    "CALL": 16,
    "PROGRESS": 8,
    "QUEUES": 12,
}
"""To how many cells a column may be cut."""

_LEAST_OF_ID = 4
"""The same for the id of a run, if nothing else helps: its beginning names it, as long as no other
one begins so."""

_FIRST_TO_GO = ("CALL", "QUEUE", "MODE", "WORKER", "WORKFLOW", "HOST", "PID")
"""The columns that are left out where there is no room, in this order, but for the first column."""


def wip_table(wip: InProgress, width: int | None = None) -> list[Line]:
    """Return one line for each execution, under a line with the heads, and how many are left out.

    The lines are at most `width` cells wide, unless that is None.
    """
    if not wip.executions:
        return [(("no job is being executed", "dim"),)]
    rows = [_wip_row(each, wip.at) for each in wip.executions]
    lines = _fitted(_WIP_HEADS, rows, width)
    left = sum(wip.counts.values()) - len(rows)
    if left:
        parts = ", ".join(
            f"{number:,} {_NAME_BY_STATE.get(state, state)}" for state, number in wip.counts.items()
        )
        lines.append(((f"and {left:,} more; of all: {parts}", "dim"),))
    return lines


def _wip_row(execution: Executing, now: datetime) -> list[Span]:
    for_s = _seconds(execution.started_at, now)
    left_s = None
    if for_s is not None and execution.timeout_s is not None:
        left_s = max(0.0, execution.timeout_s - for_s)
    return [
        (execution.name or execution.job_id, "bold"),
        (execution.workflow, ""),
        (execution.run_id, ""),
        (execution.queue, ""),
        (_NAME_BY_STATE.get(execution.state, execution.state), _STYLE_BY_STATE[execution.state]),
        (progress_text(execution.progress) if execution.progress else "", ""),
        (_brief(for_s), ""),
        (_brief(left_s), ""),
        (_brief(_seconds(execution.seen_at, now)), ""),
        (execution.host, "dim"),
        ("" if execution.pid is None else str(execution.pid), "dim"),
        (execution.worker, "dim"),
        (execution.description, "dim"),
    ]


def workers_table(
    workers: Sequence[WorkerRecord], now: datetime, width: int | None = None
) -> list[Line]:
    """Return one line for each worker, under a line with the heads; as wide as `wip_table`."""
    if not workers:
        return [(("no workers", "dim"),)]
    return _fitted(_WORKERS_HEADS, [_worker_row(worker, now) for worker in workers], width)


def _worker_row(worker: WorkerRecord, now: datetime) -> list[Span]:
    jobs = str(worker.jobs) if worker.name else ""
    if worker.concurrency is not None:
        jobs += f" of {worker.concurrency}"
    return [
        (worker.name, "bold"),
        (worker.state, _STYLE_BY_STATE.get(worker.state, "")),
        (jobs, ""),
        (worker.host, ""),
        ("" if worker.pid is None else str(worker.pid), ""),
        (worker.mode, "dim"),
        (_brief(_seconds(worker.seen_at, now)), ""),
        (worker.run_id, ""),
        (", ".join(worker.queues), "dim"),
    ]


def _seconds(at: datetime | None, now: datetime) -> float | None:
    return None if at is None else max(0.0, (now - at).total_seconds())


def _brief(seconds: float | None) -> str:
    """Return a duration without more than what a reader of a changing table needs: `0s`, `42s`."""
    if seconds is None:
        return ""
    return f"{int(seconds)}s" if seconds < 60 else format_duration(seconds)


def _fitted(heads: Sequence[str], rows: Sequence[Sequence[Span]], width: int | None) -> list[Line]:
    """Return rows in columns that fit; empty columns are omitted."""
    table = [
        [(head, "dim") for head in heads],
        *([(printable(text), style) for text, style in row] for row in rows),
    ]
    kept = [column for column in range(len(heads)) if any(row[column][0] for row in table[1:])]
    going = [heads.index(head) for head in _FIRST_TO_GO if head in heads[1:]]
    cells = {column: max(count_cells(row[column][0]) for row in table) for column in kept}
    while width is not None and _least(cells, heads) > width:
        gone = next((column for column in going if column in cells), None)
        if gone is None:
            break
        del cells[gone]
    while width is not None and _total(cells) > width:
        shrinkable = [column for column in cells if cells[column] > _least_of(column, cells, heads)]
        if not shrinkable:  # an id is whole as long as that can be: it is there to be pasted
            shrinkable = [at for at in cells if heads[at] == "RUN" and cells[at] > _LEAST_OF_ID]
        if not shrinkable:
            break
        cells[max(shrinkable, key=lambda column: cells[column])] -= 1
    last = max(cells)
    return [
        tuple(
            (_padded(cut(text, cells[at], _ellipsis(heads[at])), cells[at], at == last), style)
            for at, (text, style) in enumerate(row)
            if at in cells
        )
        for row in table
    ]


def _ellipsis(head: str) -> str:
    return "" if head == "RUN" else "…"  # so that it can be pasted


def _least_of(column: int, cells: Mapping[int, int], heads: Sequence[str]) -> int:
    return min(cells[column], _LEAST_BY_HEAD.get(heads[column], cells[column]))


def _least(cells: Mapping[int, int], heads: Sequence[str]) -> int:
    return _total({column: _least_of(column, cells, heads) for column in cells})


def _total(cells: Mapping[int, int]) -> int:
    return sum(cells.values()) + max(0, len(cells) - 1)


def _padded(text: str, cells: int, is_last: bool) -> str:
    return text if is_last else pad(text, cells + 1)


# JSON ----------------------------------------------------------------------------------------


def wip_document(wip: InProgress) -> dict[str, Any]:
    """Return what `flowq wip --json` prints.

    `counts` counts all executions, by status; `jobs` may be cut.
    """
    return make_document(
        "wip",
        at=write_instant(wip.at),
        counts={state: wip.counts.get(state, 0) for state in ("started", "handed", "lost")},
        jobs=[_execution(each, wip.at) for each in wip.executions],
    )


def _execution(execution: Executing, now: datetime) -> dict[str, Any]:
    for_s = _seconds(execution.started_at, now)
    left_s = None
    if for_s is not None and execution.timeout_s is not None:
        left_s = round(execution.timeout_s - for_s, 3)
    return {
        "run": execution.run_id or None,
        "workflow": execution.workflow or None,
        "name": execution.name or None,
        "job_id": execution.job_id,
        "execution_id": execution.execution_id,
        "status": execution.state,
        "queue": execution.queue,
        "description": execution.description,
        "worker": execution.worker or None,
        "host": execution.host or None,
        "pid": execution.pid,
        "started_at": write_instant(execution.started_at),
        "timeout_s": execution.timeout_s,
        "left_s": left_s,
        "seen_at": write_instant(execution.seen_at),
        **({"progress": asdict(execution.progress)} if execution.progress else {}),
    }


def workers_document(workers: Iterable[WorkerRecord]) -> dict[str, Any]:
    """Return what `flowq workers --json` prints.

    What only waits until there is something to do in a run has no name.
    """
    told = [
        {
            "worker": worker.name or None,
            "status": worker.state,
            "run": worker.run_id or None,
            "host": worker.host or None,
            "worker_pid": worker.pid,
            "mode": worker.mode or None,
            "queues": list(worker.queues),
            "concurrency": worker.concurrency,
            "executing": worker.jobs,
            "finished": worker.finished,
            "failed": worker.failed,
            "started_at": write_instant(worker.born_at),
            "seen_at": write_instant(worker.seen_at),
        }
        for worker in workers
    ]
    return make_document("workers", workers=told)


def wip_headline(wip: InProgress) -> str:
    """Return what is there in one sentence, for a display that changes."""
    parts = [
        f"{number:,} {_NAME_BY_STATE.get(state, state)}"
        for state, number in wip.counts.items()
        if number
    ]
    at = wip.at.astimezone().strftime("%H:%M:%S")
    return f"{at}  {', '.join(parts) or count(0, 'job')}"
