"""A picture as one HTML file: the drawing, nested workflows to open, and all jobs as a table.

It has no script and loads nothing. The table says what the drawing does, for readers who cannot
see that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from flowq.pictures.layers import lay_out
from flowq.pictures.picture import Picture
from flowq.pictures.svg import escaped, render_svg
from flowq.render.lines import more_are

_MAX_ROWS = 500
_MAX_BLOCKERS = 10
_MAX_NESTED = 30

_STYLE = """\
body{font:15px/1.5 system-ui,sans-serif;margin:1.5rem;color:#1f2328;background:#fff}
h1{font-size:1.4rem;margin:0}
h2{font-size:1.1rem}
p{margin:.3rem 0 1rem}
.drawing{overflow-x:auto;margin:1rem 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse}
th,td{text-align:start;vertical-align:top;padding:.25rem 1rem .25rem 0}
th,td{border-bottom:1px solid #d0d7de}
tbody th{font-weight:400;min-width:7rem}
@media (min-width:50rem){tbody th{min-width:12rem}}
td{min-width:4.5rem}
td,tbody th{overflow-wrap:anywhere}
summary{cursor:pointer;font-weight:600}
details{margin:1rem 0}
@media (prefers-color-scheme:dark){
body{color:#e6edf3;background:#0d1117}
th,td{border-color:#30363d}
}
"""


TABLE_START = '<div class="scroll" role="region" aria-label="table" tabindex="0"><table>'
TABLE_END = "</table></div>"
"""Around a table, which scrolls by itself, by keyboard too, where it is wider than the page."""


def render_html(picture: Picture) -> str:
    """Return a page that ends with a newline."""
    title = escaped(picture.heading)
    body = [
        f"<h1>{title}</h1>",
        f"<p>{escaped(picture.about)}</p>",
        draw_scrolling(render_svg(picture)),
        *_table(picture),
        *draw_nested(picture),
    ]
    return make_page(title, body)


def make_page(title: str, body: Iterable[str], style: str = "") -> str:
    """Return a page that loads nothing and runs no script; `title` is escaped."""
    out = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="color-scheme" content="light dark">',
        f"<title>{title}</title>",
        f"<style>\n{_STYLE}{style}</style>",
        "</head>",
        "<body>",
        "<main>",
        *body,
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(out) + "\n"


def draw_nested(picture: Picture, *, with_tables: bool = True) -> Iterator[str]:
    """Yield the nested workflows of a picture, to be opened."""
    nested = list(picture.nested())
    for inside in nested[:_MAX_NESTED]:
        job = f"{inside.job}, " if inside.job else ""
        summary = escaped(f"{job}workflow {inside.title}: {inside.about}")
        yield f"<details><summary>{summary}</summary>"
        # Drawn by our own layout, because there may be many of them.
        yield draw_scrolling(render_svg(inside, lay_out))
        if with_tables:
            yield from _table(inside)
        yield "</details>"
    if len(nested) > _MAX_NESTED:
        yield f"<p>{more_are(len(nested) - _MAX_NESTED, 'nested workflow')} not shown.</p>"


_LEAST_SCALE = 0.8
"""A drawing shrinks to the width of the page, but not more than its text can be read."""


def draw_scrolling(svg: str) -> str:
    """Return a drawing that can be moved by the keyboard where it is much wider than the page."""
    found = re.search(r' width="([0-9]+)"', svg)
    least = int(_LEAST_SCALE * int(found[1])) if found else 0
    style = f' style="max-width:100%;min-width:{least}px;height:auto"'
    svg = svg.replace("<svg ", f"<svg{style} ", 1)
    return f'<div class="drawing" role="region" aria-label="drawing" tabindex="0">{svg}</div>'


def _table(picture: Picture) -> Iterator[str]:
    blockers: dict[str, list[str]] = {box.name: [] for box in picture.boxes}
    for arrow in picture.arrows:
        word = f" ({escaped(arrow.word)})" if arrow.word else ""
        blockers[arrow.future].append(f"<bdi>{escaped(arrow.blocker)}</bdi>{word}")
    yield TABLE_START
    yield "<thead><tr><th>job</th><th>what it is</th><th>after</th><th>about</th></tr></thead>"
    yield "<tbody>"
    for box in picture.boxes[:_MAX_ROWS]:
        before = blockers[box.name]
        more = f" and {len(before) - _MAX_BLOCKERS:,} more" if len(before) > _MAX_BLOCKERS else ""
        condition = f"if {box.condition}" if box.condition else ""
        about = "; ".join(filter(None, [box.reason, condition, box.description]))
        yield (
            f'<tr><th scope="row">{escaped(box.name)}</th><td>{escaped(", ".join(box.words))}</td>'
            f"<td>{', '.join(before[:_MAX_BLOCKERS])}{more}</td><td>{escaped(about)}</td></tr>"
        )
    yield "</tbody>"
    yield TABLE_END
    if len(picture.boxes) > _MAX_ROWS:
        yield f"<p>{more_are(len(picture.boxes) - _MAX_ROWS, 'job')} not in this table.</p>"
