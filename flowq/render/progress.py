"""The current state of a run as lines: a table of its jobs that fits the terminal, or its events.

A live display draws the table again and again; logs, pipes and plain terminals get a line for each
event, and of large groups lines with counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo

from flowq.cells import count_cells, cut, pad
from flowq.render.groups import collapse
from flowq.render.lines import (
    STYLE_BY_STATE,
    Line,
    Span,
    count,
    find_mark,
    format_duration,
    printable,
    shortened,
)
from flowq.status import (
    BAD,
    BEGUN_FOR_NOTHING,
    ENDED,
    LIST,
    REMOVED,
    START,
    TOLERATED,
    Event,
    JobStatus,
    RunStatus,
    group_state,
    is_helper,
    outermost_name,
    public_name,
)

_STATES = (
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
    headline = _headline(status, now, width)
    if height is None or len(jobs) + 1 <= height:
        return [headline, *rows(jobs, now, width, unicode=unicode)]
    lines = [headline, _counts(status, unicode)]
    lines += _rows_of_interest(list(status.jobs.values()), now, width, max(0, height - 2), unicode)
    return lines[: max(1, height)]


def _headline(status: RunStatus, now: datetime, width: int) -> Line:
    declared = list(status.declared())
    ended = sum(job.state in ENDED for job in declared)
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
    spans += [(f"  {ended}/{len(declared)}", ""), (f"  run {status.run_id}", "dim")]
    return tuple(spans)


def rows(
    jobs: Sequence[JobStatus], now: datetime, width: int = 80, *, unicode: bool = True
) -> Iterator[Line]:
    """Yield a line for each of these jobs, in their order."""
    longest = max((count_cells(job.name) for job in jobs), default=0)
    room = min(longest, max(6, width - _DURATION_WIDTH - 4))
    return (_row(job, now, room, unicode) for job in jobs)


def _row(job: JobStatus, now: datetime, room: int, unicode: bool) -> Line:
    style = STYLE_BY_STATE.get(job.state, "")
    name = pad(cut(job.name, room, "…" if unicode else "..."), room)
    return (
        (f"{find_mark(job.state, unicode)} ", style),
        (name, style if job.state in (*BAD, "started", "deferred") else ""),
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
    bad = [job for job in jobs if job.state in BAD]
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

# With three or four lines a job, ten a group, and the failures: fewer than 500 lines for any run.
JOBS_IN_FULL = 60
"""How many jobs the narrator tells one by one, without those of groups and nested workflows."""

ITEMS_IN_FULL = 40
"""How many jobs of groups and nested workflows it tells one by one; fewer than a group gets at
once, or the first of a large group would be told so."""

GROUPS = 6
"""How many large groups are told each for itself."""

STEPS = 10
"""How often a large group tells its counts from its start to its end."""

FAILURES = 100
"""How many failures in large groups get a line each."""


class _Part:
    """The jobs of one declaration, or of several, as numbers.

    `size` and `ended`, by state, leave out what helps: jobs that begin workflows or make lists.
    """

    __slots__ = (
        "began_at",
        "ended",
        "is_counted",
        "jobs",
        "lists",
        "live",
        "name",
        "next",
        "retries",
        "size",
        "told",
    )

    def __init__(self, name: str, *, is_counted: bool = False) -> None:
        self.name = name
        self.is_counted = is_counted
        self.jobs = self.live = self.size = self.retries = 0
        self.lists = 0  # how many jobs are still making lists of items
        self.told = 0  # how many of its jobs are told one by one
        self.next = 0  # how many jobs must have ended for the next line
        self.ended = Counter[str]()
        self.began_at: datetime | None = None

    def change(self, name: str, before: str | None, after: str | None) -> None:
        """Count that a job has left one state for another; None is for a job that is none."""
        for state, change in ((before, -1), (after, 1)):
            if state is None:
                continue
            self.jobs += change
            self.live += change * (state not in _TOLD_ENDS)
            self.lists += change * (state not in _TOLD_ENDS and name.endswith(LIST))
            if not is_helper(name):
                self.size += change
                if state in _TOLD_ENDS:
                    self.ended[state] += change

    def absorb(self, part: _Part) -> None:
        """Count the jobs of another one as well."""
        self.jobs, self.live = self.jobs + part.jobs, self.live + part.live
        self.size, self.ended = self.size + part.size, self.ended + part.ended
        self.lists += part.lists

    def expect_next(self) -> None:
        """Set when the next line is due: after a part of the jobs, or twice as many if these are
        not all known yet."""
        ended = self.ended.total()
        self.next = ended + max(-(-self.size // STEPS), ended if self.lists else 0)

    @property
    def so_far(self) -> str:
        """What to add to the number of its jobs while there will be more."""
        return " so far" if self.lists else ""

    def counts(self) -> str:
        """Return how many have ended how: `9,988 finished, 12 failed, 3 retries`."""
        order = dict.fromkeys(("finished", *_STATES, TOLERATED))
        counts = [f"{self.ended[state]:,} {state}" for state in order if self.ended[state]]
        if self.retries:
            counts.append(f"{self.retries:,} {'retry' if self.retries == 1 else 'retries'}")
        return ", ".join(counts)


_TOLD_ENDS = ENDED | {TOLERATED}


class Narrator:
    """Tells the transitions of one run, in the order in which they happened.

    A run of any size takes a bounded number of lines, unless it `is_verbose`: what is too large for
    a line each is told by counts, with a line for each of its first failures. It remembers the last
    state and start of each job. `zone` is the time zone that instants are shown in; None for the
    local one.
    """

    def __init__(self, zone: tzinfo | None = None, *, is_verbose: bool = False) -> None:
        self.zone = zone
        self._is_verbose = is_verbose
        self._started_at: dict[str, datetime] = {}
        self._begun_at: dict[str, datetime] = {}  # of nested workflows
        self._attempts: dict[str, int] = {}
        self._states: dict[str, str] = {}
        self._parts: dict[str, _Part] = {}
        self._others = _Part("other jobs", is_counted=True)
        self._in_full = Counter[bool]()  # how many jobs: of groups, and others
        self._groups = self._failures = 0

    def tell(self, events: Iterable[Event], jobs: Iterable[JobStatus] = ()) -> list[Line]:
        """Return lines like `12:03:04 slice started` for what people want to know of the events.

        `jobs` are those of the run after these events; only the first call looks at them.
        """
        events = list(events)
        if not self._is_verbose:
            self._expect(events, jobs)
        return [line for event in events for line in self._lines(event)]

    def _expect(self, events: Iterable[Event], jobs: Iterable[JobStatus]) -> None:
        """Count jobs that are new: how large a group is must be known before it is told."""
        happened = dict.fromkeys(
            each.name for each in events if each.name and each.state != REMOVED
        )
        state_by_name = dict.fromkeys(name for name in happened if name not in self._states)
        if not self._parts:
            known = {job.name: TOLERATED if job.is_tolerated else job.state for job in jobs}
            state_by_name = {**known, **state_by_name}
        parts = [self._change(name, state or "") for name, state in state_by_name.items()]
        for part in dict.fromkeys(parts):
            self._decide(part)

    def _decide(self, part: _Part) -> None:
        """Tell the jobs of a part one by one as long as there is room, else by counts."""
        if part.is_counted or part.jobs <= part.told:
            return
        self._in_full[part.told > 1] -= part.told
        is_group = part.jobs > 1
        if self._in_full[is_group] + part.jobs <= (ITEMS_IN_FULL if is_group else JOBS_IN_FULL):
            self._in_full[is_group] += part.jobs
            part.told = part.jobs
        elif is_group and self._groups < GROUPS:
            self._groups += 1
            part.is_counted = True
        else:
            self._others.absorb(part)
            self._parts[part.name] = self._others

    def _lines(self, event: Event) -> Iterator[Line]:
        if event.state == "returned":
            if self._started_at.pop(event.name, None) is not None:
                self._attempts[event.name] -= 1
            return
        if event.state == "handed":
            return
        if event.state == "started" and event.name in self._started_at:
            return
        detail = self._detail(event)
        if self._is_verbose or not event.name:
            yield self._line(event, detail)
            return
        is_tolerated = event.state == "failed" and event.reason.startswith(TOLERATED)
        state = None if event.state == REMOVED else TOLERATED if is_tolerated else event.state
        part = self._change(event.name, state)
        if part.is_counted:
            yield from self._counts(part, event, detail)
        else:
            yield self._line(event, detail)

    def _change(self, name: str, state: str | None) -> _Part:
        declared = outermost_name(name)
        part = self._parts.get(declared)
        if part is None:
            part = self._parts[declared] = _Part(declared)
        part.change(name, self._states.pop(name, None), state)
        if state is not None:
            self._states[name] = state
        return part

    def _counts(self, part: _Part, event: Event, detail: str) -> Iterator[Line]:
        """Yield the lines that are due after an event of a job that is told by counts."""
        is_executed = event.state in ("finished", *BAD)
        has_begun = event.state == "started" or event.began_at is not None
        if part.began_at is None and has_begun and not is_helper(event.name):
            part.began_at = event.began_at or event.at
            part.expect_next()
            before = part.ended.total() - (event.state in ENDED)
            ended = f", {before:,} of them have ended before" if before else ""
            says = f": {count(part.size, 'job')}{part.so_far}{ended}"
            yield self._part_line(part, event, "started", says)
        if event.state not in ENDED:
            part.retries += _FAILED_ATTEMPT.match(event.reason) is not None
            return
        if event.state in BAD:
            self._failures += 1
            if self._failures <= FAILURES:
                yield self._line(event, detail)
            elif self._failures == FAILURES + 1:
                says = f": more than {FAILURES} jobs, now only counted; --verbose prints each"
                yield self._part_line(part, event, "failed", says)
        if not part.live:
            took_s = (event.at - (part.began_at or event.at)).total_seconds()
            took = f" ({format_duration(took_s)})" if part.began_at else ""
            yield self._part_line(part, event, group_state(+part.ended), f"{took}: {part.counts()}")
        elif is_executed and 0 < part.next <= part.ended.total():
            part.expect_next()
            how_far = f" {part.ended.total():,}/{part.size:,}{part.so_far}: {part.counts()}"
            yield self._part_line(part, event, "running", how_far)

    def _part_line(self, part: _Part, event: Event, state: str, says: str) -> Line:
        return (self._instant(event), (f"{part.name} ", ""), _styled(state), (says, ""))

    def _line(self, event: Event, detail: str) -> Line:
        name = (f"{event.name or 'run'} ", "" if event.name else "bold")
        return (self._instant(event), name, _styled(event.state), (detail, ""))

    def _instant(self, event: Event) -> Span:
        return (f"{event.at.astimezone(self.zone).strftime('%H:%M:%S')} ", "dim")

    def _detail(self, event: Event) -> str:
        said = [event.reason] if event.reason else []
        if event.state in BAD and event.error and event.error not in event.reason:
            said.append(event.error)
        reason = f": {printable(': '.join(said))}" if said else ""
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


def _styled(state: str) -> Span:
    return (state, STYLE_BY_STATE.get(state, ""))
