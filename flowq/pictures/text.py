"""A picture as text for a terminal: lanes where they can be read, else a paragraph for each level.

Above `MAX_DRAWN_JOBS` jobs or `MAX_LANES` lanes a drawing is folded first, and no longer drawn if
that does not help: it would only be scrolled past. Nothing is wider than the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flowq.cells import count_cells, cut
from flowq.pictures.folding import by_level, fold
from flowq.pictures.lanes import Row, draw_lanes
from flowq.pictures.picture import Box, Picture
from flowq.render.lines import STYLE_BY_STATE, Line, Span, count, plain_text, spelled
from flowq.status import BAD

MAX_DRAWN_JOBS = 30
MAX_LANES = 10
MAX_LINES = 60

_MAX_LEVELS = 18
_MAX_LINES_OF_LEVEL = 12
_LINES_OF_LEVEL = 3
"""Where levels are what was asked for, rather than as many names as there is room for."""

_LEAST_NAME = 8
"""Units: cells. A drawing that leaves less room than this for a name is not drawn."""


def render_text(picture: Picture, width: int = 80, *, unicode: bool = True) -> str:
    """Return a picture for a terminal of `width` columns; it ends with a newline, if not empty.

    Without `unicode` it is ASCII as far as the texts of the workflow are.
    """
    return plain_text(draw_text(picture, width, unicode=unicode))


def draw_text(picture: Picture, width: int = 80, *, unicode: bool = True) -> list[Line]:
    """Return the same as lines with styles: nested workflows stand below the jobs that run them."""
    pen = _Pen(width, unicode)
    lines = pen.draw(picture)
    if picture.state:
        said = f"{spelled(' '.join(picture.title.split()))}: {picture.state}"
        lines = [pen.cut(((said, STYLE_BY_STATE.get(picture.state, "")),)), *lines]
    nested = list(picture.nested())
    for at, inside in enumerate(nested):
        inner = _Pen(width - 2, unicode).draw(inside)
        if len(lines) + len(inner) > MAX_LINES - 4:
            rest = f"{count(len(nested) - at, 'nested workflow')} not drawn"
            return [*lines, (), pen.cut(((rest, "dim"),))]
        title = f"workflow {' '.join(inside.title.split())}"
        if inside.job:
            title = f"{inside.job}, {title}: {inside.state}"
        title = spelled(title if inside.job else f"{title}:")
        lines += [(), pen.cut(((title, "bold"),)), *((("  ", ""), *line) for line in inner)]
    return lines


class _Pen:
    """Draws for one width of terminal."""

    def __init__(self, width: int, unicode: bool) -> None:
        self._width = max(width, 10)
        self._unicode = unicode
        self._ellipsis = "…" if unicode else "..."

    def draw(self, picture: Picture) -> list[Line]:
        """Return a picture without its nested workflows."""
        for wanted in (MAX_DRAWN_JOBS, 0):
            folded = fold(picture, wanted, MAX_DRAWN_JOBS)
            if folded.is_by_level:
                break
            if lines := self._draw_lanes(folded):
                return lines
        return self._draw_levels(picture)

    def cut(self, line: Line) -> Line:
        """Return a line of one span, no wider than the terminal."""
        ((text, style),) = line
        return ((cut(text, self._width, self._ellipsis), style),)

    def _draw_lanes(self, picture: Picture) -> list[Line]:
        """Return the lines of a drawing in lanes; none where it does not fit."""
        rows = list(draw_lanes(picture, self._unicode))
        widths = [len(row.before) + len(row.after) + 2 for row in rows]
        if max(widths, default=0) > min(self._width - _LEAST_NAME, 2 * MAX_LANES):
            return []
        notes = _find_notes(picture)
        return [self._draw_row(row, notes) for row in rows]

    def _draw_row(self, row: Row, notes: dict[str, str]) -> Line:
        box = row.box
        if box is None:
            return ((row.before, ""),)
        style = STYLE_BY_STATE.get(box.look, "")
        room = self._width - len(row.before) - len(row.after) - 2
        name = cut(self._ascii(spelled(box.name)), room, self._ellipsis)
        mark = (box.mark(self._unicode), style)
        spans: list[Span] = [(row.before, ""), mark, (row.after, ""), (f" {name}", style)]
        room -= count_cells(name) + 2
        if notes[box.name] and room > len(self._ellipsis):
            spans.append((f"  {cut(spelled(notes[box.name]), room, self._ellipsis)}", "dim"))
        return tuple(spans)

    def _draw_levels(self, picture: Picture) -> list[Line]:
        """Return a paragraph for each level: its name, how many jobs it has, and their names."""
        shown = by_level(picture, _MAX_LEVELS)
        if not shown.boxes:
            return []
        shared = [_find_shared(box) for box in shown.boxes]
        titles = [
            f"{box.name}  {', '.join([*box.words, *words])}  "
            for box, words in zip(shown.boxes, shared, strict=True)
        ]
        indent = min(max(map(count_cells, titles)), self._width // 2)
        at_most = max(1, (MAX_LINES - 2) // len(shown.boxes))
        at_most = min(at_most, _LINES_OF_LEVEL if picture.is_by_level else _MAX_LINES_OF_LEVEL)
        lines: list[Line] = []
        for box, title, words in zip(shown.boxes, titles, shared, strict=True):
            name = cut(self._ascii(title), indent, self._ellipsis)
            margin = name + " " * (indent - count_cells(name))
            for text in self._wrap(box, self._width - indent, at_most, with_words=not words):
                lines.append(((margin, "dim"), (text, "")))
                margin = " " * indent
        levels = 1 + max(box.level for job in shown.boxes for box in job.members or (job,))
        about = f"{count(len(picture), 'job')} in {count(levels, 'level')}"
        hint = "; --focus JOB draws what is before and after a job"
        return [*lines, self.cut(((about + hint, "dim"),))]

    def _ascii(self, text: str) -> str:
        """Return a text without the characters that only folding puts there, if it has to be."""
        return text if self._unicode else text.replace("–", "-").replace("…", "...")

    def _wrap(self, level: Box, width: int, at_most: int, *, with_words: bool) -> list[str]:
        """Return the names of a level's jobs in lines, the failed ones first."""
        jobs = sorted(level.members or (level,), key=lambda job: job.state not in BAD)
        words = [self._describe(job, with_words=with_words) for job in jobs]
        lines: list[str] = []
        for at, word in enumerate(words):
            ending = "" if at == len(words) - 1 else ","
            rest = f"and {len(words) - at:,} more"
            used = count_cells(lines[-1]) + 1 if lines else 0
            is_last_line = len(lines) == at_most
            room = width - used - (len(rest) + 1 if is_last_line and ending else 0)
            if lines and count_cells(word) + len(ending) <= room:
                lines[-1] += f" {word}{ending}"
            elif is_last_line:
                lines[-1] += f" {rest}"
                break
            else:
                lines.append(cut(word, width - len(ending), self._ellipsis) + ending)
        return [cut(line, width, self._ellipsis) for line in lines]

    def _describe(self, job: Box, *, with_words: bool) -> str:
        mark = f"{job.mark(self._unicode)} " if job.state or job.is_open else ""
        with_words = with_words and bool(job.words) and not job.state
        words = f" ({', '.join(job.words)})" if with_words else ""
        return mark + spelled(job.name) + words


def _find_shared(level: Box) -> tuple[str, ...]:
    """Return the words that each job of a level has, and no others; they are said once."""
    words = {() if job.state else job.words for job in level.members}
    return words.pop() if len(words) == 1 else ()


def _find_notes(picture: Picture) -> dict[str, str]:
    """Return what is said beside each box, with the failures that do not matter to it."""
    ignored: dict[str, list[str]] = {}
    for arrow in picture.arrows:
        if arrow.on_failure == "ignore" and not arrow.is_last:
            ignored.setdefault(arrow.future, []).append(arrow.blocker)
    return {
        box.name: ", ".join([*box.words, *_even_if(ignored.get(box.name, []))])
        for box in picture.boxes
    }


def _even_if(blockers: Sequence[str]) -> Iterator[str]:
    if len(blockers) == 1:
        yield f"even if {blockers[0]} fails"
    elif blockers:
        others = blockers[1] if len(blockers) == 2 else f"{len(blockers) - 1} others"
        yield f"even if {blockers[0]} or {others} fail"
