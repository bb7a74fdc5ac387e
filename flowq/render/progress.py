"""The current state of a run as a table that fits the terminal: jobs, groups, nested workflows.

A live display draws it again and again (`flowq.render.narrator` tells the events instead). What it
counts comes from a tally (`flowq.render.tally`), so drawing costs little for a run of any size.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from flowq.cells import count_cells, cut, pad
from flowq.render.events import progress_text
from flowq.render.lines import (
    STYLE_BY_STATE,
    Line,
    Span,
    find_mark,
    format_duration,
    printable,
    shortened,
    spelled_inside,
)
from flowq.render.tally import TALLIED_DONE, TALLIED_ENDS, Part, Tally
from flowq.status import BAD, DONE, ENDED, TOLERATED, JobStatus, RunStatus

STATES = (
    *BAD,
    "started",
    "queued",
    "scheduled",
    "deferred",
    "finished",
    "skipped",
    "canceled",
    "deleted",
)
"""The order in which displays count states: what went wrong first, then what goes on."""

_DURATION_WIDTH = 7
_NEWEST = 3
"""How many failures of a group are shown below it: the newest."""


@dataclass(frozen=True, slots=True)
class _Page:
    """What a table is drawn on."""

    now: datetime
    width: int
    unicode: bool

    @property
    def is_narrow(self) -> bool:
        """Whether the notes of a group are short, so that its rate and time left fit."""
        return self.width < 100

    @property
    def ellipsis(self) -> str:
        return "…" if self.unicode else "..."


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the table. `lead` draws the tree; `bar` has how much was done well and badly.

    A job without a name stands for those that are left out, and the note says how to see them.
    """

    lead: str
    job: JobStatus
    note: str
    bar: tuple[int, int, int] | None = None


def progress(
    status: RunStatus,
    now: datetime,
    width: int = 80,
    height: int | None = None,
    *,
    unicode: bool = True,
    tally: Tally | None = None,
) -> list[Line]:
    """Return a headline and a line for each job or group, in the order of declaration.

    The jobs of a nested workflow that is running or has failed follow below it, and the newest
    failures of a group below the group, if there is room for all of them.

    Shape: at most `height` lines. With more jobs than lines they are counted by state, and those
    that failed or run are shown as far as there is room. Lines may be longer than `width` in their
    notes only; the caller cuts them.

    Args:
        tally: the tally of this status, if the caller keeps one.
    """
    tally = tally or Tally(status)
    page = _Page(now, width, unicode)
    parts = list(tally.parts.values())
    lines = [_headline(status, tally, page)]
    room = None if height is None else height - len(lines)
    rows = [row for part in parts for row in _tree(part, page, "", f"{status.run_id} ")]
    if room is not None and len(rows) > room:
        rows = [_row_of(part, page, "") for part in parts]
    if room is None or len(rows) <= room:
        return [*lines, *_draw(rows, page)]
    lines += [_counts(tally.count_by_state(), unicode), *_rows_of_interest(tally, page, room - 1)]
    return lines[: max(1, height or 1)]


def _headline(status: RunStatus, tally: Tally, page: _Page) -> Line:
    counts = tally.count_by_state()
    done = sum(counts[state] for state in DONE)
    spans: list[Span] = [
        (shortened(printable(status.workflow), max(6, page.width - 26)), "bold"),
        ("  ", ""),
        (status.state, STYLE_BY_STATE.get(status.state, "")),
    ]
    if status.started_at is not None:
        elapsed_s = ((status.ended_at or page.now) - status.started_at).total_seconds()
        spans.append((f" {format_duration(elapsed_s)}", ""))
    if status.is_ended and status.reason:
        spans.append((f", {status.reason}", STYLE_BY_STATE.get(status.state, "")))
    is_growing = not status.is_ended and any(part.is_growing for part in tally.parts.values())
    so_far = " so far" if is_growing else ""
    spans += [
        (f"  {done:,}/{counts.total():,}{so_far}", ""),
        (f"  run {status.run_id}", "dim"),
    ]
    return tuple(spans)


def _tree(part: Part, page: _Page, indent: str, place: str) -> Iterator[_Row]:
    """Yield the row of a part, and those of what is inside of it as far as it is of interest.

    `place` is what the name of the part follows in the words of `flowq show`: the run, and what the
    part is inside of; empty inside of a group, whose jobs are many workflows.
    """
    yield _row_of(part, page, indent)
    lead, shown = f"{indent}  ", f"{place}{part.name}" if place else ""
    if part.state not in ENDED or part.state in BAD:
        for inner in part.parts.values():
            yield from _tree(inner, page, lead, "" if part.is_group or not shown else f"{shown}.")
    if part.is_group or len(part.failed) > 1:
        told = [job for job in part.failed.values() if job.error or job.reason][-_NEWEST:]
        yield from (_Row(lead, job, _note(job, page.now)) for job in told)
        bad = {state: part.states[state] for state in BAD if part.states[state]}
        if told and (left := sum(bad.values()) - len(told)) > 0:
            says = f"{page.ellipsis} and {left:,} more"
            if shown and part.is_group:
                says += f": flowq show {shown} --state {next(iter(bad))}"
            yield _Row(lead, JobStatus("", "", ""), says)


def _row_of(part: Part, page: _Page, indent: str) -> _Row:
    if part.is_one_job and part.job is not None:
        name = part.job.name if not indent else part.name
        return _Row(indent, replace(part.job, name=name), _note(part.job, page.now))
    state, counted = part.state, part.counted
    done, total = sum(counted[each] for each in TALLIED_DONE), counted.total()
    is_over = state in ENDED
    so_far = " so far" if part.is_growing and not is_over and total else ""
    is_known = total or (part.is_group and not part.is_growing)  # else its list is not made yet
    how_far = f" {done:,}/{total:,}{so_far}" if is_known else ""
    row = JobStatus(
        part.name + how_far,
        "",
        state,
        started_at=part.started_at,
        ended_at=part.ended_at if is_over else None,
    )
    bad = sum(counted[each] for each in BAD)
    bar = (done - bad, bad, total) if total > 1 and not is_over and not so_far else None
    return _Row(indent, row, ", ".join(filter(None, _says(part, row, page))), bar)


def _says(part: Part, row: JobStatus, page: _Page) -> Iterator[str]:
    """Yield notes about a group or a nested workflow, except its progress."""
    counts = part.counted
    ended_otherwise = _count_ends(counts)
    if not part.is_group and part.job is not None and part.job.state in ("failed", "canceled"):
        ended_otherwise = printable(part.job.reason)
    elif part.is_group and part.list_job is not None and not ended_otherwise:
        ended_otherwise = printable(part.list_job.reason)
    rate = part.rate(page.now) if row.state in ("started", "queued") else None
    is_said = row.state == "finished" or _is_counted(row.state, ended_otherwise)
    is_said = is_said or (page.is_narrow and rate is not None)  # by the mark, the bar and the rate
    if not is_said:
        yield _retries(part, page) if row.state == "scheduled" and part.due else row.state
    yield ended_otherwise
    if row.state in ENDED:
        return
    if rate is not None:
        yield f"{rate:,.0f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
        left = counts.total() - sum(counts[each] for each in TALLIED_ENDS)
        if left and not part.is_growing:
            about = "~" if page.is_narrow else "about "
            yield f"{about}{format_duration(max(1.0, left / rate))} left"
    if row.state != "scheduled":
        yield _retries(part, page)


def _retries(part: Part, page: _Page) -> str:
    if not part.due:
        return ""
    left = format_left(min(part.due.values()), page.now)
    is_one, pauses = len(part.due) == 1, bool(part.pausing)
    if is_one:
        return f"1 {'goes on' if pauses else 'retries'} in {left}"
    if page.is_narrow:
        return f"{len(part.due):,} {'go on' if pauses else 'retry'} in {left}"
    what = "sleep or poll" if pauses else "wait for a retry"
    return f"{len(part.due):,} {what}, the next in {left}"


def format_left(at: datetime, now: datetime) -> str:
    """Return how long it is until an instant, in whole seconds: `12 s`, `3m 05s`."""
    seconds = max(1.0, round((at - now).total_seconds()))
    return f"{seconds:.0f} s" if seconds < 60 else format_duration(seconds)


def _count_ends(counts: Counter[str]) -> str:
    order = (*BAD, TOLERATED, *STATES)
    ends = dict.fromkeys(each for each in order if each in TALLIED_ENDS and each != "finished")
    return ", ".join(f"{counts[each]:,} {each}" for each in ends if counts[each])


def _is_counted(state: str, text: str) -> bool:
    return re.search(rf"(^|, )[0-9,]+ {state}(,|$)", text) is not None  # of a group: "2 failed"


def rows(
    jobs: Sequence[JobStatus], now: datetime, width: int = 80, *, unicode: bool = True
) -> Iterator[Line]:
    """Yield a line for each of these jobs, in their order."""
    page = _Page(now, width, unicode)
    yield from _draw([_Row("", job, _note(job, now)) for job in jobs], page)


def _draw(table: Sequence[_Row], page: _Page) -> Iterator[Line]:
    table = [replace(row, job=_with_name_inside_line(row.job)) for row in table]
    longest = max((count_cells(row.lead + row.job.name) for row in table), default=0)
    room = min(longest, max(6, page.width - _DURATION_WIDTH - 4))
    return (_draw_row(row, page, room) for row in table)


def _with_name_inside_line(job: JobStatus) -> JobStatus:
    name = spelled_inside(job.name)  # before cells are counted: an item may have any name
    return job if name == job.name else replace(job, name=name)


def _draw_row(row: _Row, page: _Page, room: int) -> Line:
    job = row.job
    if not job.name:
        return ((f"{row.lead}{row.note}", "dim"),)
    look = TOLERATED if job.is_tolerated else job.state
    style = STYLE_BY_STATE.get(look, "")
    room -= count_cells(row.lead)
    name = pad(cut(job.name, max(1, room), page.ellipsis), room)
    bar = _bar(row.bar, page) if row.bar else ()
    return (
        (f"{row.lead}{find_mark(look, page.unicode)} ", style),
        (name, style if job.state in (*BAD, "started", "deferred") else ""),
        (f"  {_elapsed(job, page.now):>{_DURATION_WIDTH}}", "dim"),
        *bar,
        (f"  {row.note}".rstrip(), style),
    )


def _bar(bar: tuple[int, int, int], page: _Page) -> Iterator[Span]:
    """Yield a bar, whose part for a single failure can be seen, and which is full at the end."""
    cells = min(20, (page.width - 60) // 2)
    if cells < 5:
        return
    well, bad, total = bar
    full, failed, rest = ("█", "█", "░") if page.unicode else ("#", "x", "-")
    bad_cells = -(-cells * bad // total)
    well_cells = min(cells * well // total, cells - bad_cells)
    yield ("  ", "")
    yield (full * well_cells, "green")
    yield (failed * bad_cells, "red")
    yield (rest * (cells - well_cells - bad_cells), "dim")
    yield (f" {100 * (well + bad) // total:3}%", "dim")


def _elapsed(job: JobStatus, now: datetime) -> str:
    if job.started_at is None:
        return ""
    return format_duration(((job.ended_at or now) - job.started_at).total_seconds())


def _note(job: JobStatus, now: datetime) -> str:
    """Return what the mark alone does not say: the state, which attempt it is, and why."""
    if job.state == "scheduled" and job.due_at is not None and job.is_pausing:
        left, polled = format_left(job.due_at, now), job.reason.rpartition("; again in ")[0]
        return f"{printable(polled)}, again in {left}" if polled else f"sleeps, {left} left"
    if job.state == "scheduled" and job.due_at is not None:
        failed = job.reason.rpartition("; again in ")[0]
        error = job.error.removeprefix(failed.rpartition(": ")[2])  # it has the type's name already
        return f"retries in {format_left(job.due_at, now)}, {printable(failed + error)}"
    said = [] if job.state == "finished" else [job.state]
    if job.attempts > 1:
        said.append(f"attempt {job.attempts}")
    if job.progress is not None and job.state != "finished":
        said.append(progress_text(job.progress))
    if job.reason:
        said.append(printable(job.reason))
    if job.state in BAD and job.error and job.error not in job.reason:
        said.append(printable(job.error.replace(*_DIED)))
    return ", ".join(said)


_DIED = ("The process of the job ended unexpectedly: ", "its process ended: ")
"""What matters follows, and must be seen where the line is cut."""


def _counts(counts: Counter[str], unicode: bool) -> Line:
    spans: list[Span] = []
    for number, state in in_order(counts):
        mark = find_mark(state, unicode)
        spans += [(f"{mark} {number:,} {state}", STYLE_BY_STATE.get(state, "")), ("  ", "")]
    return tuple(spans)


def in_order(counts: Counter[str]) -> list[tuple[int, str]]:
    """Return how many jobs are in which state: what went wrong first, then what goes on."""
    order = (*STATES, *(state for state in counts if state not in STATES))
    return [(counts[state], state) for state in order if state in counts]


def _rows_of_interest(tally: Tally, page: _Page, room: int) -> Iterator[Line]:
    """Return the failed jobs, the latest first, and the running ones, the oldest first."""
    bad = [*reversed(tally.failed.values())]
    running = sorted(tally.running.values(), key=lambda job: job.started_at or page.now)
    counts = tally.count_by_state()
    hidden = max(0, sum(counts[state] for state in BAD) - len(bad))
    if len(bad) + len(running) + hidden <= room:
        yield from rows([*bad, *running], page.now, page.width, unicode=page.unicode)
        return
    room = max(0, room - 1)
    shown_bad = bad[: max(room // 2, room - len(running))]
    shown = [*shown_bad, *running[: room - len(shown_bad)]]
    more = hidden + len(bad) + len(running) - len(shown)
    yield from rows(shown, page.now, page.width, unicode=page.unicode)
    yield ((f"{page.ellipsis} and {more:,} more", "dim"),)
