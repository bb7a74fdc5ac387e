"""A run: what has failed and why, what waits for whom, what runs now, its picture and its jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowq import client
from flowq.pictures.folding import MAX_BOXES, focus
from flowq.pictures.layout import lay_out_quickly
from flowq.pictures.picture import Box, Picture
from flowq.pictures.report import (
    ToldRow,
    count_failures,
    draw_legend,
    find_begin,
    tell_row,
)
from flowq.pictures.svg import page_style, render_svg
from flowq.pictures.timeline import STYLE, Row, look_of, render_timeline
from flowq.render.lines import more_are
from flowq.render.tally import TALLIED_ENDS, walk
from flowq.status import RUN_ENDED
from flowq.ui.pages.parts import COMMANDS, find_target, when_counted
from flowq.ui.pages.waiting import (
    find_asking,
    find_decided,
    find_running,
    find_waiting,
    read_failures,
)
from flowq.ui.reading import Seen, find_usual_s
from flowq.ui.site import site_of
from flowq.ui.values import show_inputs, show_views

ROWS = 200
"""How many declarations are on one page of the table."""

TIMELINE_ROWS = 60
MAX_AFTER = 5


def show_run(request: Request) -> Response:
    """Show a run."""
    site = site_of(request)
    seen = site.reader.read_run(client.get_run(request.path_params["run"], site.connection))
    root = request.scope.get("root_path", "")
    status, is_ended = seen.status, seen.status.state in RUN_ENDED
    kept = seen.run.kept_outputs() if is_ended else None
    return site.render(
        request,
        "run.html",
        seen=seen,
        record=seen.record,
        status=status,
        is_ended=is_ended,
        counts=count_looks(seen),
        usual=None if is_ended else find_usual_s(seen.record, seen.run),
        left=[] if is_ended else find_left(seen),
        hold=None if is_ended else seen.run.find_hold(COMMANDS),
        asking=[] if is_ended else find_asking(seen),
        decided=find_decided(seen),
        waiting=None if is_ended else find_waiting(seen),
        running=[] if is_ended else find_running(seen),
        failures=read_failures(seen),
        failure_count=count_failures,
        can_start=site.start_workers is not None,
        graph=_draw_graph(seen, request, root),
        timeline=_draw_timeline(seen),
        table=_read_table(seen, request.query_params, root),
        outputs=show_views(kept.views) if kept else {},
        output_errors=kept.errors if kept else {},
        inputs=show_inputs(seen.record.inputs),
        changes=seen.run.code_changes(),
    )


def count_looks(seen: Seen) -> Counter[str]:
    """Return how many jobs are in which state, tolerated failures apart."""
    found = Counter[str]()
    for part in walk(seen.tally.parts):
        found += part.count_own()
    return found


def find_left(seen: Seen) -> list[tuple[str, int, float]]:
    """Return the groups that are executed now: name, how many items are left, and for how long.

    The latter is in seconds, if they go on at the rate of those that have ended.
    """
    found = []
    for part in seen.tally.parts.values():
        left = sum(number for state, number in part.states.items() if state not in TALLIED_ENDS)
        rate = part.rate(seen.now) if left else None
        if rate:
            found.append((part.name, left, left / rate))
    return found


@dataclass(frozen=True, slots=True)
class _Graph:
    """The picture: `svg` is empty if it is behind a button, or there is nothing to draw."""

    svg: Markup
    jobs: int
    focus: str = ""


def _draw_graph(seen: Seen, request: Request, root: str) -> _Graph:
    query, picture = request.query_params, seen.picture
    wanted = query.get("focus", "")
    if not picture.boxes or (_count(picture) > MAX_BOXES and not wanted and "graph" not in query):
        return _Graph(Markup(), len(picture))
    shown = focus(picture, wanted) if wanted else picture
    prefix = _find_prefix(shown)

    def find_link(name: str, box: Box) -> str:
        return "" if box.members else find_target(seen, root, prefix + name)

    svg = render_svg(shown, lay_out_quickly, find_link)
    return _Graph(Markup(svg), len(picture), wanted)  # noqa: S704 - `render_svg` escapes


def _count(picture: Picture) -> int:
    return len(picture) + sum(map(len, picture.nested()))


def _find_prefix(shown: Picture) -> str:
    """Return what stands before the names of a nested workflow's jobs."""
    return f"{shown.job}." if shown.job else ""


def _draw_timeline(seen: Seen) -> Markup:
    rows, report = seen.rows, seen.report()
    ends = [each.ended_at for row in rows for each in row.all_attempts if each.ended_at]
    if not any(row.all_attempts for row in rows):
        return Markup()
    end = max([seen.status.ended_at or seen.now, *ends])
    drawing = render_timeline(rows, find_begin(report), end, TIMELINE_ROWS)
    left = len(rows) - TIMELINE_ROWS
    more = f"<p>{more_are(left, 'job')} not in the timeline.</p>" if left > 0 else ""
    return Markup(  # noqa: S704 - `render_timeline` escapes
        f"{draw_legend(drawing)}"
        '<div class="drawing timeline-box" role="region" aria-label="timeline" tabindex="0">'
        f"{drawing}</div>{more}"
    )


# The table -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _TableRow:
    """A declaration.

    Shape: `counts` by state, for what has several jobs; `after` are its first blockers, each with
    what the edge says, and `more` how many others it has.
    """

    told: ToldRow
    state: str
    counts: Mapping[str, int]
    target: str
    after: tuple[tuple[str, str], ...]
    more: int


@dataclass(frozen=True, slots=True)
class _Table:
    rows: list[_TableRow]
    total: int
    found: int
    first: int
    state: str
    text: str
    before: str
    next: str


def _read_table(seen: Seen, query: Mapping[str, str], root: str) -> _Table:
    state, text = query.get("state", ""), query.get("find", "")
    rows = seen.rows
    found = [
        row
        for row in rows
        if text.lower() in row.name.lower() and (not state or state in _find_states(seen, row))
    ]
    first = _read_number(query.get("from", ""))
    shown = found[first : first + ROWS]
    attempts = (each for row in shown for each in row.all_attempts)
    hosts = seen.run.find_hosts({each.worker for each in attempts if each.worker})
    blockers, begin = _find_blockers(seen.picture), find_begin(seen.report())
    told = []
    for row in shown:
        before = blockers.get(row.name, [])
        part = seen.find_part(row.name)
        is_many = part is not None and (part.is_group or part.states.total() > 1)
        told.append(
            _TableRow(
                tell_row(row, begin, hosts),
                part.state if part is not None and is_many else look_of(row.jobs[0]),
                +part.counted if part is not None and (is_many or part.parts) else {},
                find_target(seen, root, row.name),
                tuple(before[:MAX_AFTER]),
                max(0, len(before) - MAX_AFTER),
            )
        )

    def link(at: int) -> str:
        asked = {"state": state, "find": text, "from": at}
        return "?" + urlencode({name: said for name, said in asked.items() if said}) + "#jobs"

    return _Table(
        told,
        len(rows),
        len(found),
        first,
        state,
        text,
        link(max(0, first - ROWS)) if first else "",
        link(first + ROWS) if len(found) > first + ROWS else "",
    )


def _read_number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 8 else 0


def _find_states(seen: Seen, row: Row) -> set[str]:
    part = seen.find_part(row.name) if seen.counted else None
    if part is not None and part.is_group:
        return set(+part.states)
    return {look_of(job) for job in row.jobs}


def _find_blockers(picture: Picture, outer: str = "") -> dict[str, list[tuple[str, str]]]:
    """Return the blockers of each declaration, also inside of nested workflows, by its name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for arrow in picture.arrows:
        found.setdefault(outer + arrow.future, []).append((outer + arrow.blocker, arrow.word))
    for box in picture.boxes:
        if box.inside:
            found |= _find_blockers(box.inside, f"{outer}{box.name}.")
    return found


def show_style(_request: Request) -> Response:
    """Reply with the style of the drawings; the files of `flowq graph` have the same."""
    return Response(page_style() + STYLE + _HISTOGRAM, media_type="text/css")


_HISTOGRAM = """\
.histogram rect{fill:#54aeff}
.histogram text{font:11px system-ui,sans-serif;fill:#57606a}
@media (prefers-color-scheme:dark){
.histogram rect{fill:#1f6feb}
.histogram text{fill:#9da7b3}
}
"""


ROUTES: list[BaseRoute] = [
    Route("/runs/{run}", when_counted(show_run)),
    Route("/pictures.css", show_style),
]
