"""A run over time as SVG: when its jobs waited, and when they were executed.

Each declaration has a row, nested workflows below the job that runs them. A row of a few jobs has a
bar for each attempt; one of many jobs shows how many of them waited and ran at each moment, so that
a group of 10,000 items takes no more room than one of a hundred.

Time in which nothing was queued or ran, such as the night before an approval, is shortened to a
break that names its length, so that what ran on both sides of it can be seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise

from flowq.cells import cut
from flowq.history import Attempt, AttemptState
from flowq.pictures.folding import without_items
from flowq.pictures.picture import Picture
from flowq.pictures.svg import escaped
from flowq.render.groups import with_span
from flowq.render.lines import find_mark, format_duration
from flowq.status import BAD, TOLERATED, JobStatus, RunStatus

MAX_ROWS = 200
MAX_BARS = 60
"""Of one row: more attempts than this are drawn as a density."""

_MAX_BUCKETS, _BUCKETS_OF_ROW = 400, 40
"""Parts of the time in which the jobs of one row are counted, and how many are left for each row if
all have so many jobs."""

_NAME_CELLS = 34
_LEFT, _WIDTH, _ROW, _BAR, _TOP = 250, 800, 26, 16, 24
"""Units: pixels. Where the time begins, its width, the heights of a row and of its bars."""

_BREAK, _MAX_BREAKS, _LEAST_BREAK = 72, 4, 0.2
"""The width of a break, how many there are at most, and the least part of the time that is shown
before an idle time is shortened."""

_LABEL = 52
"""The least distance between two labels of the time."""

_TICKS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400),
)
_MAX_TICKS = 8

STYLE = """\
.timeline text{font:12px system-ui,sans-serif;fill:#1f2328;text-anchor:start}
.timeline .tick{stroke:#d0d7de;stroke-width:1}
.timeline .when{fill:#57606a;font-size:11px;text-anchor:middle}
.timeline .break{fill:#eaeef2}
.timeline .tear{fill:none;stroke:#8c959f}
.timeline .held{fill:none;stroke:#8c959f;stroke-dasharray:3 3}
.timeline .waits{fill:#e6c56a}
.timeline .runs{fill:#54aeff}
.timeline .finished{fill:#4ac26b}
.timeline .bad{fill:#cf222e}
.timeline .other{fill:#8c959f}
@media (prefers-color-scheme:dark){
.timeline text{fill:#e6edf3}
.timeline .when{fill:#9da7b3}
.timeline .tick{stroke:#30363d}
.timeline .break{fill:#21262d}
.timeline .waits{fill:#9e7b1e}
.timeline .runs{fill:#1f6feb}
.timeline .finished{fill:#2ea043}
.timeline .bad{fill:#f85149}
}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One declaration.

    Shape: `name` is that of its jobs without those of items, `deploy.build`; `attempts` has those
    of each of the `jobs`. What runs a workflow has one, which begins with the first job inside.
    """

    name: str
    jobs: tuple[JobStatus, ...]
    attempts: tuple[tuple[Attempt, ...], ...]

    @property
    def is_bad(self) -> bool:
        """Whether one of its jobs has failed."""
        return any(job.state in BAD for job in self.jobs)

    @property
    def all_attempts(self) -> list[Attempt]:
        """The attempts of all of its jobs."""
        return [each for attempts in self.attempts for each in attempts]


def find_rows(
    picture: Picture, status: RunStatus, attempts: Mapping[str, Sequence[Attempt]]
) -> list[Row]:
    """Return a row for each job of a picture, and of the workflows inside, in their order.

    A job that only makes the list of a group, or begins a workflow, has no row if there are others.
    The jobs of a nested workflow have rows before it begins, too.
    """
    jobs_by_name: dict[str, list[JobStatus]] = {}
    for job in status.jobs.values():
        jobs_by_name.setdefault(without_items(job.name), []).append(job)

    spans = with_span(status)

    def find_attempts(job: JobStatus) -> tuple[Attempt, ...]:
        span = spans.get(job.name)
        if span is None:
            return tuple(attempts.get(job.name, ()))
        state = _STATE_OF_WORKFLOW.get(job.state, "failed" if span.ended_at else "started")
        return (Attempt(1, state, started_at=span.started_at, ended_at=span.ended_at),)

    def walk(shown: Picture, outer: str, unbegun: str) -> Iterator[Row]:
        for box in shown.boxes:
            name = outer + box.name
            jobs = jobs_by_name.get(name, [])
            jobs = [job for job in jobs if not job.helps] or jobs
            if not jobs and unbegun:
                yield Row(name, (JobStatus(name, "", unbegun),), ((),))
            if jobs:
                yield Row(name, tuple(jobs), tuple(map(find_attempts, jobs)))
            if box.inside:
                state = box.state or unbegun
                yield from walk(box.inside, f"{name}.", _UNBEGUN.get(state, "deferred"))

    return list(walk(picture, "", ""))


_UNBEGUN = {"finished": "", "failed": "skipped", "skipped": "skipped", "canceled": "canceled"}
"""The state of a job that does not exist yet, by that of the workflow around it."""


def pick_rows(rows: Sequence[Row], at_most: int) -> list[Row]:
    """Return so many rows, in their order; what is left out has not failed, if possible."""
    worst_first = sorted(range(len(rows)), key=lambda at: (not rows[at].is_bad, at))
    return [rows[at] for at in sorted(worst_first[:at_most])]


_STATE_OF_WORKFLOW: Mapping[str, AttemptState] = {
    "finished": "finished",
    "skipped": "canceled",
    "canceled": "canceled",
}


def render_timeline(
    rows: Sequence[Row], begin: datetime, end: datetime, at_most: int = MAX_ROWS
) -> str:
    """Return `at_most` rows as an SVG element; what has not ended is drawn up to `end`."""
    shown = pick_rows(rows, at_most)
    scale = _make_scale(begin, end, _find_idle(rows, begin, end))
    dense = sum(len(row.all_attempts) > MAX_BARS for row in shown)
    buckets = max(20, min(_MAX_BUCKETS, _BUCKETS_OF_ROW * at_most // max(dense, 1)))
    height = _TOP + _ROW * len(shown) + 8
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="timeline" role="img"'
        f' aria-label="timeline: the table says the same" width="{_LEFT + _WIDTH + 40}"'
        f' height="{height}" viewBox="0 0 {_LEFT + _WIDTH + 40} {height}">',
        *scale.ticks(height),
    ]
    for at, row in enumerate(shown):
        out += _draw_row(row, _TOP + _ROW * at, scale, end, buckets)
    return "\n".join([*out, "</svg>"])


def _find_idle(rows: Sequence[Row], begin: datetime, end: datetime) -> list[tuple[float, float]]:
    """Return when nothing was queued or ran, in seconds since the begin, and is to be shortened."""
    outer = {row.name.rpartition(".")[0] for row in rows}  # they span the idle time inside
    busy = sorted(
        ((each.queued_at or each.started_at) - begin, (each.ended_at or end) - begin)
        for row in rows
        if row.name not in outer
        for each in row.all_attempts
        if each.started_at is not None
    )
    gaps, until = [], 0.0
    for since, to in busy:
        gaps.append((until, since.total_seconds()))
        until = max(until, to.total_seconds())
    left = max((end - begin).total_seconds(), 0.001)
    gaps.append((until, left if busy else until))
    found = []
    for gap in sorted(gaps, key=lambda gap: gap[0] - gap[1])[:_MAX_BREAKS]:
        seconds = gap[1] - gap[0]
        if seconds < _LEAST_BREAK * left:
            break
        found.append(gap)
        left -= seconds
    return sorted(found)


def _make_scale(begin: datetime, end: datetime, idle: Sequence[tuple[float, float]]) -> _Scale:
    whole_s = max((end - begin).total_seconds(), 0.001)
    shown_s = max(whole_s - sum(to - since for since, to in idle), 0.001)
    per_second = (_WIDTH - _BREAK * len(idle)) / shown_s
    points = [(0.0, float(_LEFT))]
    for since, to in idle:
        before_s, x = points[-1]
        x += (since - before_s) * per_second
        points += [(since, x), (to, x + _BREAK)]
    return _Scale(begin, shown_s, (*points, (whole_s, float(_LEFT + _WIDTH))))


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where an instant is drawn.

    Shape: `points` are instants, in seconds since `begin`, and where they are drawn, in order. From
    an even one to the next, time is drawn to scale, `seconds` altogether; from an odd one to the
    next is a break.
    """

    begin: datetime
    seconds: float
    points: tuple[tuple[float, float], ...]

    def x(self, at: datetime) -> float:
        """Return where an instant is drawn; clocks of workers may be a little off."""
        return self._x((at - self.begin).total_seconds())

    def _x(self, second: float) -> float:
        for (since, left), (to, right) in pairwise(self.points):
            if second <= to and to > since:
                return left + (right - left) * max(second - since, 0.0) / (to - since)
        return float(_LEFT + _WIDTH)

    def bar(self, from_: datetime, to: datetime) -> tuple[float, float]:
        """Return where a bar begins, and its width; something of it can be seen."""
        start = self.x(from_)
        return round(start, 1), round(max(self.x(to) - start, 1.0), 1)

    def ticks(self, height: int) -> Iterator[str]:
        step = next((s for s in _TICKS_S if self.seconds / s <= _MAX_TICKS), self.seconds / 4)
        labels: list[float] = []
        said: set[str] = set()
        for (since, left), (to, _) in list(pairwise(self.points))[1::2]:
            idle = format_duration(to - since)
            labels.append(left + _BREAK / 2)
            yield from _draw_break(left, height, idle)
            yield f'<text class="when" x="{labels[-1]:.1f}" y="13">{idle} idle</text>'
        for (since, _), (to, _) in list(pairwise(self.points))[::2]:
            for number in range(math.ceil(since / step), int(to / step) + 1):
                x = round(self._x(number * step), 1)
                yield f'<path class="tick" d="M{x} {_TOP - 4}V{height}"/>'
                when = format_duration(number * step)
                if when not in said and all(abs(x - label) >= _LABEL for label in labels):
                    labels.append(x)
                    said.add(when)  # behind a long break, seconds are not told apart
                    yield f'<text class="when" x="{x}" y="13">{when}</text>'


def _draw_break(left: float, height: int, idle: str) -> Iterator[str]:
    top = _TOP - 4
    said = f"{idle} without a job that was queued or ran, shortened"
    yield _rectangle("break", round(left, 1), top, _BREAK, height - top, said)
    for x in (left, left + _BREAK):
        teeth = "".join(f"l{4 if at % 2 else -4} 6" for at in range((height - top) // 6))
        yield f'<path class="tear" d="M{x:.1f} {top}{teeth}"/>'


def _draw_row(row: Row, y: int, scale: _Scale, end: datetime, buckets: int) -> Iterator[str]:
    depth = row.name.count(".")
    name = row.name.rpartition(".")[2]
    mark = f"{find_mark(look_of(row.jobs[0]))} " if len(row.jobs) == 1 else f"{len(row.jobs):,} × "
    label = escaped(cut(mark + name, _NAME_CELLS - 2 * depth))
    title = f"<title>{escaped(row.name)}</title>"
    yield f'<text x="{8 + 14 * depth}" y="{y + 14}">{label}{title}</text>'
    top = y + (_ROW - _BAR) // 2 - 2
    yield from _draw_held(row, top, scale, end)
    if len(row.all_attempts) > MAX_BARS:
        yield from _draw_density(row.all_attempts, top, scale, end, buckets)
        return
    height = _BAR / len(row.jobs)
    for at, attempts in enumerate(row.attempts):
        for each in attempts:
            yield from _draw_attempt(each, top + at * height, height, scale, end)


def _draw_held(row: Row, top: int, scale: _Scale, end: datetime) -> Iterator[str]:
    """Yield when a single job was held, by an approval or a limit, before it was queued."""
    if len(row.jobs) > 1:
        return
    job, attempts = row.jobs[0], row.attempts[0]
    holds = [(each.held_at, each.queued_at) for each in attempts]
    if job.state == "deferred" or not attempts:
        holds.append((job.deferred_at, job.ended_at or end))
    for since, until in holds:
        if since is not None and until is not None and since < until:
            x, width = scale.bar(since, until)
            said = f"held for {format_duration((until - since).total_seconds())}"
            yield _rectangle("held", x, top, width, _BAR, said)


def _draw_attempt(
    attempt: Attempt, top: float, height: float, scale: _Scale, end: datetime
) -> Iterator[str]:
    begun = attempt.started_at
    if begun is None:
        return
    if attempt.queued_at is not None and attempt.queued_at < begun:
        x, width = scale.bar(attempt.queued_at, begun)
        waited = format_duration((begun - attempt.queued_at).total_seconds())
        yield _rectangle("waits", x, top + height / 4, width, height / 2, f"waited {waited}")
    x, width = scale.bar(begun, attempt.ended_at or end)
    took = format_duration(((attempt.ended_at or end) - begun).total_seconds())
    words = f"attempt {attempt.number}, {attempt.state.replace('_', ' ')}, {took}"
    if attempt.error:
        words += f": {attempt.error}"
    yield _rectangle(_look(attempt), x, top, width, height, words)


def look_of(job: JobStatus) -> str:
    """Return the state of a job, or that its failure is tolerated."""
    return TOLERATED if job.is_tolerated else job.state


_LOOKS = {"started": "runs", "finished": "finished", "canceled": "other", "deleted": "other"}


def _look(attempt: Attempt) -> str:
    return _LOOKS.get(attempt.state, "bad")


def _rectangle(class_: str, x: float, y: float, width: float, height: float, said: str) -> str:
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect class="{class_}" {place}><title>{escaped(said)}</title></rect>'


def _draw_density(
    attempts: Sequence[Attempt], top: int, scale: _Scale, end: datetime, buckets: int
) -> Iterator[str]:
    """Yield how many jobs waited and, in front of that, how many ran, and when some failed."""
    width = _WIDTH / buckets

    def bucket(at: datetime) -> int:
        return min(int((scale.x(at) - _LEFT) / width), buckets - 1)

    waits, runs, bad = [0] * (buckets + 1), [0] * (buckets + 1), set()
    for each in attempts:
        if each.started_at is None:
            continue
        first, last = bucket(each.started_at), bucket(each.ended_at or end)
        runs[first] += 1
        runs[last + 1] -= 1
        if each.queued_at is not None:
            waits[bucket(each.queued_at)] += 1
            waits[first] -= 1
        if _look(each) == "bad":
            bad.add(last)
    for class_, changes in (("waits", waits), ("runs", runs)):
        counts = list(accumulate(changes[:-1]))
        most = max(counts)
        if most:
            title = f"at most {most:,} {'waited' if class_ == 'waits' else 'ran'} at once"
            path = _area(counts, most, top + _BAR, width)
            yield f'<path class="{class_}" d="{path}"><title>{title}</title></path>'
    marks = "".join(
        f"M{_LEFT + at * width:.1f} {top + _BAR - 4}h{max(width, 2):.1f}v4h-{max(width, 2):.1f}z"
        for at in sorted(bad)
    )
    if marks:
        yield f'<path class="bad" d="{marks}"><title>failures</title></path>'


def _area(counts: Sequence[int], most: int, bottom: float, width: float) -> str:
    """Return a path below which there are so many: a step wherever the number changes."""
    path, before = f"M{_LEFT} {bottom}", 0.0
    for at, count in enumerate([*counts, 0]):
        height = round(_BAR * count / most, 1)
        if height != before:
            path += f"H{_LEFT + at * width:.1f}V{bottom - height:g}"
            before = height
    return f"{path}z"
