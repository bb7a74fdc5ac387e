"""The current state of a run as lines: a table of its jobs that fits the terminal, or its events.

A live display draws the table again and again; logs, pipes and plain terminals get a line for each
event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo

from flowq.render.groups import collapse
from flowq.render.lines import (
    STYLE_BY_STATE,
    Line,
    Span,
    find_mark,
    format_duration,
    printable,
    shortened,
)
from flowq.status import BEGUN_FOR_NOTHING, ENDED, START, Event, JobStatus, RunStatus, public_name

_BAD = ("failed", "stopped", "expired")
_STATES = (
    *_BAD,
    "started",
    "queued",
    "scheduled",
    "deferred",
    "finished",
    "skipped",
    "canceled",
    "deleted",
)
_DURATION_WIDTH = 7


def progress(
    status: RunStatus,
    now: datetime,
    width: int = 80,
    height: int | None = None,
    *,
    unicode: bool = True,
) -> list[Line]:
    """Return a headline and a line for each job or group, in the order of declaration.

    Shape: at most `height` lines. With more jobs than lines they are counted by state, and those
    that failed or run are shown as far as there is room. Lines may be longer than `width` in their
    notes only; the caller cuts them.
    """
    jobs = list(collapse(status).values())
    declared = list(status.declared())
    ended = sum(job.state in ENDED for job in declared)
    headline = headline_of(status, ended, len(declared), now, width)
    if height is None or len(jobs) + 1 <= height:
        return [headline, *rows(jobs, now, width, unicode=unicode)]
    lines = [headline, _counts(status, unicode)]
    lines += _rows_of_interest(list(status.jobs.values()), now, width, max(0, height - 2), unicode)
    return lines[: max(1, height)]


def headline_of(status: RunStatus, ended: int, total: int, now: datetime, width: int) -> Line:
    """Return the line about the run itself: of so many jobs so many have ended."""
    spans: list[Span] = [
        (shortened(printable(status.workflow), max(6, width - 26)), "bold"),
        ("  ", ""),
        (status.state, STYLE_BY_STATE.get(status.state, "")),
    ]
    if status.started_at is not None:
        elapsed_s = ((status.ended_at or now) - status.started_at).total_seconds()
        spans.append((f" {format_duration(elapsed_s)}", ""))
    if status.is_ended and status.reason:
        spans.append((f", {status.reason}", STYLE_BY_STATE.get(status.state, "")))
    spans += [(f"  {ended}/{total}", ""), (f"  run {status.run_id}", "dim")]
    return tuple(spans)


def rows(
    jobs: Sequence[JobStatus], now: datetime, width: int = 80, *, unicode: bool = True
) -> Iterator[Line]:
    """Yield a line for each of these jobs, in their order."""
    longest = max((len(job.name) for job in jobs), default=0)
    room = min(longest, max(6, width - _DURATION_WIDTH - 4))
    return (_row(job, now, room, unicode) for job in jobs)


def _row(job: JobStatus, now: datetime, room: int, unicode: bool) -> Line:
    style = STYLE_BY_STATE.get(job.state, "")
    name = shortened(job.name, room, unicode).ljust(room)
    return (
        (f"{find_mark(job.state, unicode)} ", style),
        (name, style if job.state in (*_BAD, "started", "deferred") else ""),
        (f"  {_elapsed(job, now):>{_DURATION_WIDTH}}", "dim"),
        (f"  {_note(job)}".rstrip(), style),
    )


def _elapsed(job: JobStatus, now: datetime) -> str:
    if job.started_at is None:
        return ""
    return format_duration(((job.ended_at or now) - job.started_at).total_seconds())


def _note(job: JobStatus) -> str:
    """Return what the mark alone does not say: the state, which attempt it is, and why."""
    is_counted = re.search(rf"(^|, )\d+ {job.state}(,|$)", job.reason)  # of a group: "2 failed"
    said = [] if job.state == "finished" or is_counted else [job.state]
    if job.attempts > 1:
        said.append(f"attempt {job.attempts}")
    if job.reason:
        said.append(printable(job.reason))
    return ", ".join(said)


def _counts(status: RunStatus, unicode: bool) -> Line:
    spans: list[Span] = []
    for number, state in count_states(status):
        mark = find_mark(state, unicode)
        spans += [(f"{mark} {number:,} {state}", STYLE_BY_STATE.get(state, "")), ("  ", "")]
    return tuple(spans)


def count_states(status: RunStatus) -> list[tuple[int, str]]:
    """Return how many jobs are in which state: what went wrong first, then what goes on."""
    counts = status.count_by_state()
    order = (*_STATES, *(state for state in counts if state not in _STATES))
    return [(counts[state], state) for state in order if state in counts]


def _rows_of_interest(
    jobs: Iterable[JobStatus], now: datetime, width: int, room: int, unicode: bool
) -> list[Line]:
    """Return the failed jobs, the latest first, and the running ones, the oldest first."""
    bad = [job for job in jobs if job.state in _BAD]
    bad.sort(key=lambda job: job.ended_at or now, reverse=True)
    running = [job for job in jobs if job.state == "started"]
    running.sort(key=lambda job: job.started_at or now)
    if len(bad) + len(running) <= room:
        return list(rows([*bad, *running], now, width, unicode=unicode))
    room = max(0, room - 1)
    shown_bad = bad[: max(room // 2, room - len(running))]
    shown = [*shown_bad, *running[: room - len(shown_bad)]]
    more = len(bad) + len(running) - len(shown)
    ellipsis = "…" if unicode else "..."
    return [*rows(shown, now, width, unicode=unicode), ((f"{ellipsis} and {more:,} more", "dim"),)]


_FAILED_ATTEMPT = re.compile(r"attempt ([0-9]+) failed")


class Narrator:
    """Tells the transitions of one run, in the order in which they happened.

    It remembers the last start of each job, so that an end can be told with its duration. `zone`
    is the time zone that instants are shown in; None for the local one.
    """

    def __init__(self, zone: tzinfo | None = None) -> None:
        self.zone = zone
        self._started_at: dict[str, datetime] = {}
        self._begun_at: dict[str, datetime] = {}  # of nested workflows
        self._attempts: dict[str, int] = {}

    def tell(self, events: Iterable[Event]) -> list[Line]:
        """Return a line like `12:03:04 slice started` for each event that is one for people."""
        lines = []
        for event in events:
            is_repeated = event.state == "started" and event.name in self._started_at
            if event.state == "returned":
                self._forget_start(event.name)
            elif event.state != "handed" and not is_repeated:
                lines.append(self._line(event))
        return lines

    def _forget_start(self, name: str) -> None:
        if self._started_at.pop(name, None) is not None:
            self._attempts[name] -= 1

    def _line(self, event: Event) -> Line:
        at = event.at.astimezone(self.zone).strftime("%H:%M:%S")
        return (
            (f"{at} ", "dim"),
            (f"{event.name or 'run'} ", "" if event.name else "bold"),
            (event.state, STYLE_BY_STATE.get(event.state, "")),
            (self._detail(event), ""),
        )

    def _detail(self, event: Event) -> str:
        reason = f": {printable(event.reason)}" if event.reason else ""
        if event.state == "started":
            self._started_at[event.name] = event.at
            attempt = self._attempts[event.name] = self._attempts.get(event.name, 0) + 1
            return f" (attempt {attempt})" if attempt > 1 else ""
        started_at = self._started_at.pop(event.name, None)
        if started_at is not None and event.state in BEGUN_FOR_NOTHING:
            self._attempts[event.name] -= 1
        elif counted := _FAILED_ATTEMPT.match(event.reason or ""):
            self._attempts[event.name] = int(counted[1])  # who began to watch later saw fewer
        if event.state not in ENDED:
            return reason
        if event.name.endswith(START):
            self._begun_at.setdefault(public_name(event.name), event.began_at or event.at)
        begun_at = self._begun_at.pop(event.name, None)
        if begun_at is not None:
            return f" ({format_duration((event.at - begun_at).total_seconds())}){reason}"
        if event.took_ms is not None:
            return f" ({format_duration(event.took_ms / 1000)}){reason}"
        if started_at is None:
            return reason
        return f" ({format_duration((event.at - started_at).total_seconds())}){reason}"
