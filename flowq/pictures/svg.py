"""A picture as SVG: for browsers, README files and everything that shows images.

It has no script, needs no font in particular, follows the reader's light or dark scheme, and says
with words and shapes all that it says with colours. Everything that comes from a workflow goes
through `escaped`.
"""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from flowq.cells import count_cells, cut
from flowq.pictures.folding import MAX_BOXES, WANTED_BOXES, fits, fold
from flowq.pictures.layout import lay_out
from flowq.pictures.outline import Layout, Outline, Point, Rectangle
from flowq.pictures.picture import Arrow, Box, Picture
from flowq.render.lines import spelled
from flowq.status import ASKING, REJECTED, TOLERATED

FONT = "DejaVu Sans Mono"
_CELL = 0.602
"""The width of a cell, in parts of the size of the font: monospaced fonts have 0.55 to 0.602."""

_NAME_PX, _WORDS_PX = 13, 11
_MAX_CELLS = 34
_MAX_TOOLTIP = 1_000
_MAX_DEPTH = 3
_MAX_POLICIES = 3
_BETWEEN_LINES = 9
_MARGIN = 20
_ROOM = 15
"""Units: pixels. Between the text and the sides of a box."""

_COLORS_BY_STATE = {
    "finished": ("#dafbe1", "#1a7f37", "#12261e", "#3fb950"),
    "failed": ("#ffebe9", "#cf222e", "#2d1215", "#f85149"),
    "started": ("#ddf4ff", "#0969da", "#0c2d4a", "#58a6ff"),
    "queued": ("#fff8c5", "#9a6700", "#2e2a10", "#d29922"),
    "skipped": ("#eaeef2", "#6e7781", "#21262d", "#8b949e"),
}
"""Fill and border, in the light and in the dark scheme."""

_LOOKS_LIKE = {
    "scheduled": "queued",
    "stopped": "failed",
    "expired": "failed",
    TOLERATED: "queued",
    "canceled": "skipped",
    "deleted": "skipped",
}

_STYLE = f"""\
text{{font-family:"{FONT}",ui-monospace,Menlo,Consolas,monospace;font-size:{_NAME_PX}px;fill:#1f2328;text-anchor:middle;unicode-bidi:isolate}}
.words{{font-size:{_WORDS_PX}px;fill:#57606a}}
.paper{{fill:#fff}}
.box{{fill:#f6f8fa;stroke:#57606a;stroke-width:1.4}}
.mark{{fill:none;stroke:#57606a;stroke-width:1.4}}
.diamond{{fill:#fff;stroke:#57606a;stroke-width:1.4}}
.open{{stroke-dasharray:7 4;stroke-width:1.8}}
.around{{fill:none}}
.line{{fill:none;stroke:#57606a;stroke-width:1.4}}
.head{{fill:#57606a}}
.ignore{{stroke-dasharray:6 4}}
.finally{{stroke-dasharray:1.5 4}}
.policy{{font-size:{_WORDS_PX}px;fill:#57606a;stroke:#fff;stroke-width:4;paint-order:stroke}}
"""
_DARK = """\
text{fill:#e6edf3}
.words{fill:#9da7b3}
.paper{fill:#0d1117}
.box{fill:#161b22;stroke:#9da7b3}
.mark,.line{stroke:#9da7b3}
.diamond{fill:#0d1117;stroke:#9da7b3}
.around{fill:none}
.head{fill:#9da7b3}
.policy{fill:#9da7b3;stroke:#0d1117}
"""

_NOT_IN_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escaped(text: str) -> str:
    """Return a text of a workflow as one line of XML: no markup, no control characters."""
    return to_xml(html.escape(spelled(" ".join(text.split()))))


def to_xml(text: str) -> str:
    """Return a text with the characters spelled out that XML cannot contain."""
    return _NOT_IN_XML.sub(lambda found: ascii(found.group())[1:-1], text)


FindLink = Callable[[str, Box], str]
"""Returns where a box leads, by its name with those of the jobs around it; "" for nowhere."""


def render_svg(
    picture: Picture,
    place: Callable[[Outline], Layout] = lay_out,
    find_link: FindLink | None = None,
) -> str:
    """Return a picture as an SVG document that ends with a newline.

    Args:
        place: says where boxes and lines go.
        find_link: makes it a part of a page. Boxes are links, and have the names of their jobs as
            `data-job`; their sizes do not depend on states, so nothing moves while a run goes on.
            The page has `page_style()`: its policy may forbid styles inside of the drawing.
    """
    shown = fold(picture, WANTED_BOXES, MAX_BOXES)
    scene = _Scene(shown.is_by_level, find_link)
    scene.add(shown, None)
    layout = place(scene.outline())
    width, height = (math.ceil(size + 2 * _MARGIN) for size in (layout.width, layout.height))
    about = escaped(f"{picture.heading}: {picture.about}")
    head = [f"<title>{about}</title>", f"<style>\n{_style(scene.boxes)}</style>"]
    role = 'role="img"'
    if find_link is not None:  # its title would be shown wherever a box has none
        head, role = [], 'class="graph" role="group"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {role} aria-label="{about}"'
        f' width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        *head,
        f'<rect class="paper" width="{width}" height="{height}"/>',
        f'<g transform="translate({_MARGIN} {_MARGIN})">',
        *scene.draw(layout),
        "</g>",
        "</svg>",
    ]
    return "\n".join(out) + "\n"


def _style(boxes: Sequence[Box]) -> str:
    light, dark = _make_rules({_LOOKS_LIKE.get(box.look, box.look) for box in boxes})
    return f"{light}@media (prefers-color-scheme:dark){{\n{dark}}}\n"


def page_style() -> str:
    """Return the style of drawings that are parts of a page, with all states that they may get."""
    light, dark = (
        re.sub(r"^([^{]+)", _inside_graph, rules, flags=re.MULTILINE)
        for rules in _make_rules({*_COLORS_BY_STATE, *_LOOKS_LIKE})
    )
    return f"{light}{_LINKS}@media (prefers-color-scheme:dark){{\n{dark}}}\n"


_LINKS = """\
.graph a{cursor:pointer}
.graph a:hover .box,.graph a:focus-visible .box{stroke-width:3}
"""


def _inside_graph(found: re.Match[str]) -> str:
    return ",".join(f".graph {selector}" for selector in found[0].split(","))


def _make_rules(states: Collection[str]) -> tuple[str, str]:
    """Return the rules for the light scheme, and those that differ in the dark one."""
    light, dark = [_STYLE], [_DARK]
    for state in sorted(states):
        look = _LOOKS_LIKE.get(state, state)
        if look in _COLORS_BY_STATE:
            fill, border, dark_fill, dark_border = _COLORS_BY_STATE[look]
            light.append(f".{state} .box{{fill:{fill};stroke:{border}}}\n")
            dark.append(f".{state} .box{{fill:{dark_fill};stroke:{dark_border}}}\n")
    return "".join(light), "".join(dark)


@dataclass(slots=True)
class _Scene:
    """What is drawn: the boxes of a picture and, where there is room, those inside of them."""

    are_levels: bool
    find_link: FindLink | None = None
    boxes: list[Box] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    parents: list[int | None] = field(default_factory=list)
    arrows: list[tuple[Arrow, int, int]] = field(default_factory=list)

    def add(self, picture: Picture, parent: int | None, depth: int = 0) -> None:
        """Add the boxes of a picture, and expand those nested workflows that leave room."""
        index: dict[str, int] = {}
        for box in picture.boxes:
            index[box.name] = len(self.boxes)
            self.boxes.append(box)
            self.names.append(box.name if parent is None else f"{self.names[parent]}.{box.name}")
            self.parents.append(parent)
        for arrow in picture.arrows:
            self.arrows.append((arrow, index[arrow.blocker], index[arrow.future]))
        for at in index.values():
            inside = self.boxes[at].inside
            if depth < _MAX_DEPTH and inside and fits(inside, WANTED_BOXES - len(self.boxes)):
                self.add(inside, at, depth + 1)

    def outline(self) -> Outline:
        """Return what has to be placed; levels stand below each other."""
        edges = [(source, target) for _, source, target in self.arrows]
        at_side = Counter((source, "right") for source, _ in edges)
        at_side.update((target, "left") for _, target in edges)
        sizes = []
        for at, box in enumerate(self.boxes):
            width, height = _size(box) if self.find_link is None else _steady_size(box)
            lines = max(at_side[at, "left"], at_side[at, "right"])
            sizes.append((width, max(height, _BETWEEN_LINES * (lines + 1))))
        return Outline(sizes, self.parents, edges, is_column=self.are_levels)

    def draw(self, layout: Layout) -> Iterator[str]:
        """Yield the elements: boxes with others inside, lines, all other boxes."""
        around = {parent for parent in self.parents if parent is not None}
        for at in sorted(around):
            yield self._draw_box(at, layout.boxes[at], is_around=True)
        for (arrow, _, _), line in zip(self.arrows, layout.lines, strict=True):
            yield from _draw_line(arrow, line)
        for at in range(len(self.boxes)):
            if at not in around:
                yield self._draw_box(at, layout.boxes[at], is_around=False)
        said: Counter[int] = Counter()
        for (arrow, _, target), line in zip(self.arrows, layout.lines, strict=True):
            if arrow.on_failure and not arrow.is_last:
                said[target] += 1
                if said[target] <= _MAX_POLICIES:  # the others are dashed like these
                    yield _draw_policy(arrow, line)

    def _draw_box(self, at: int, place: Rectangle, *, is_around: bool) -> str:
        box, name = self.boxes[at], self.names[at]
        if self.find_link is None:
            return _draw_box(box, place, is_around=is_around)
        hook = "" if box.members else f' data-job="{html.escape(to_xml(name))}"'
        drawn = _draw_box(box, place, is_around=is_around, hook=hook)
        link = self.find_link(name, box)
        return f'<a href="{html.escape(link)}">{drawn}</a>' if link else drawn


def _name(box: Box) -> str:
    return f"{box.mark()} {box.name}" if box.state or box.is_open else box.name


def _size(box: Box) -> tuple[float, float]:
    name = min(count_cells(spelled(_name(box))), _MAX_CELLS) * _CELL * _NAME_PX
    words = min(count_cells(_said(box)), _MAX_CELLS + 8) * _CELL * _WORDS_PX
    return math.ceil(max(name, words, 50) + 2 * _ROOM), 48 if _said(box) else 36


def _steady_size(box: Box) -> tuple[float, float]:
    """Return a size that is enough in any state, as far as that is usual; the rest is cut."""
    name = min(count_cells(spelled(box.name)) + 2, _MAX_CELLS) * _CELL * _NAME_PX
    is_many = box.group or box.inside or box.members
    cells = max(_MAX_CELLS if is_many else _STATE_CELLS, *map(count_cells, _usual_words(box)))
    words = min(cells, _MAX_WORDS) * _CELL * _WORDS_PX
    return math.ceil(max(name, words) + 2 * _ROOM), 48


def _usual_words(box: Box) -> Iterator[str]:
    """Yield the longest words that a box usually has while a run goes on, whatever it has now."""
    states = [("scheduled", ""), ("finished", "attempt 2"), ("failed", TOLERATED)]
    if box.approval:
        states += [("deferred", ASKING), ("canceled", REJECTED)]
    plain = replace(box, counts=(), how_far="")
    how_far = "100/100" if box.group or box.inside else ""
    yield from (_said(replace(plain, state=state, note=note)) for state, note in states)
    yield _said(replace(plain, state="finished", note="", how_far=how_far))


_STATE_CELLS, _MAX_WORDS = 20, 60


def _said(box: Box) -> str:
    return spelled(" · ".join(box.words))


def _draw_box(box: Box, at: Rectangle, *, is_around: bool, hook: str = "") -> str:
    """Return a box with its texts; the whole texts are in its tooltip."""
    state = _LOOKS_LIKE.get(box.look, box.look)
    class_ = f' class="{state}"' if state in _COLORS_BY_STATE else ""
    shape = "box open" if box.may_grow else "box"
    out = [f"<g{class_}{hook}><title>{escaped(_tooltip(box))}</title>"]
    if box.is_stack:  # the sheets of a stack look out above the first one
        for up in (8, 4):
            out.append(_rectangle(at.x + up, at.y - up, at.width - 2 * up, at.height, "box"))
    draw_shape = _octagon if box.approval else _rectangle
    out.append(draw_shape(at.x, at.y, at.width, at.height, shape))
    if box.kind == "workflow":
        for x in (at.x + 6, at.x + at.width - 6):
            out.append(f'<path class="mark" d="M{_xy(x, at.y)}v{_number(at.height)}"/>')
    if box.is_final:
        y = at.y + at.height - 4
        out.append(f'<path class="mark" d="M{_xy(at.x, y)}h{_number(at.width)}"/>')
    if box.condition:
        out.append(f'<path class="diamond" d="M{_xy(at.x + 16, at.y - 7)}l7 7-7 7-7-7z"/>')
    out += _texts(box, at, is_around=is_around)
    return "".join([*out, "</g>"])


def _texts(box: Box, at: Rectangle, *, is_around: bool) -> Iterator[str]:
    middle = at.x + at.width / 2
    height = 40 if is_around else at.height
    words = _said(box)
    y = at.y + height / 2 + (-3 if words else _NAME_PX * 0.35)
    room = at.width - 2 * _ROOM + 1
    name = cut(spelled(_name(box)), int(room / _CELL / _NAME_PX))
    yield f'<text x="{_number(middle)}" y="{_number(y)}">{escaped(name)}</text>'
    if words:
        words = cut(words, int(room / _CELL / _WORDS_PX))
        place = f'x="{_number(middle)}" y="{_number(at.y + height / 2 + 14)}"'
        yield f'<text class="words" {place}>{escaped(words)}</text>'


def _tooltip(box: Box) -> str:
    lines = [box.name, _said(box)]
    if box.members:
        more = f" and {len(box) - 20:,} more" if len(box) > 20 else ""
        lines.append(", ".join(job.name for job in box.members[:20]) + more)
    if box.condition:
        lines.append(f"if {box.condition}")
    lines.append(box.reason)
    return cut("; ".join(filter(None, [*lines, box.description])), _MAX_TOOLTIP)


def _rectangle(x: float, y: float, width: float, height: float, class_: str) -> str:
    place = f'x="{_number(x)}" y="{_number(y)}"'
    size = f'width="{_number(width)}" height="{_number(height)}"'
    return f'<rect class="{class_}" {place} {size} rx="5"/>'


def _octagon(x: float, y: float, width: float, height: float, class_: str) -> str:
    """Return the sign that says stop, for a job that waits for a person."""
    along, down = _number(width - 20), _number(height - 20)
    path = f"M{_xy(x + 10, y)}h{along}l10 10v{down}l-10 10h-{along}l-10-10v-{down}z"
    return f'<path class="{class_}" d="{path}"/>'


def _draw_line(arrow: Arrow, line: Sequence[Point]) -> Iterator[str]:
    title = f"{arrow.blocker} → {arrow.future}" + (f", {arrow.word}" if arrow.word else "")
    class_ = f"line {arrow.word}" if arrow.word else "line"
    yield f'<path class="{class_}" d="{_rounded(line)}"><title>{escaped(title)}</title></path>'
    (x0, y0), (x, y) = line[-2], line[-1]
    angle = math.degrees(math.atan2(y - y0, x - x0))
    turned = f" rotate({_number(angle)})" if round(angle) else ""
    yield f'<path class="head" d="M0 0l-9-4.5v9z" transform="translate({_xy(x, y)}){turned}"/>'


def _rounded(line: Sequence[Point], radius: float = 6) -> str:
    """Return a path whose corners are rounded as far as its parts are long enough."""
    path = f"M{_xy(*line[0])}"
    for before, corner, after in zip(line, line[1:], line[2:], strict=False):
        size = min(radius, math.dist(before, corner) / 2, math.dist(corner, after) / 2)
        start, end = _towards(corner, before, size), _towards(corner, after, size)
        path += f"L{_xy(*start)}Q{_xy(*corner)} {_xy(*end)}"
    return f"{path}L{_xy(*line[-1])}"


def _towards(start: Point, end: Point, length: float) -> Point:
    part = length / (math.dist(start, end) or 1)
    return start[0] + (end[0] - start[0]) * part, start[1] + (end[1] - start[1]) * part


def _draw_policy(arrow: Arrow, line: Sequence[Point]) -> str:
    """Return the word of an edge, on the part of its line of which it covers least."""
    width = len(arrow.word) * _CELL * _WORDS_PX + 24

    def find_room(part: tuple[Point, Point]) -> float:
        across, down = abs(part[1][0] - part[0][0]), abs(part[1][1] - part[0][1])
        return max(across - width, down - 2 * _WORDS_PX)

    (x0, y0), (x1, y1) = max(pairwise(line), key=find_room)
    is_upright = abs(x1 - x0) < _WORDS_PX < abs(y1 - y0)
    x, y = (x0 + x1) / 2 + (width / 2 - 6 if is_upright else 0), (y0 + y1) / 2 + 4
    return f'<text class="policy" x="{_number(x)}" y="{_number(y)}">{escaped(arrow.word)}</text>'


def _xy(x: float, y: float) -> str:
    return f"{_number(x)} {_number(y)}"


def _number(value: float) -> str:
    return f"{round(value, 1):g}" if abs(value) < 100_000 else f"{value:.0f}"
