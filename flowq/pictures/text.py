"""A graph as text for a terminal: lanes where they fit, else a list indented by level.

The lane of a job runs down from its row to the last job that waits for it. In a job's own row the
lanes of its blockers turn towards it; all other lanes pass. So each vertical stroke belongs to
one blocker and each horizontal one to one future job, and every picture can be read in one way
only, which drawings with freely routed lines do not achieve on a grid of characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from flowq.pictures.picture import Node, View
from flowq.render.lines import OPEN, find_mark

Paint = Callable[[str, Node], str]
"""Adds what takes no room, such as colours, to the text of one job."""

MAX_DRAWN_JOBS = 100
"""Above this many jobs a drawing in lanes is no longer read, only scrolled past."""


FINALLY = "finally"
"""What is said beside a job that runs when all others have ended."""


def _plain(text: str, node: Node) -> str:
    return text


def render_text(view: View, width: int = 80, *, unicode: bool = True, paint: Paint = _plain) -> str:
    """Return a picture for a terminal of `width` columns, or for none at all.

    Never wider than `width`, unless the name of a job is. It ends with a newline, if there are
    jobs. Without `unicode` it is ASCII as far as the texts of the workflow are.
    """
    drawn = _draw(view, width, unicode, paint) if len(view.nodes) <= MAX_DRAWN_JOBS else None
    lines = drawn if drawn is not None else list(_listed(view, width, unicode, paint))
    return "".join(f"{line}\n" for line in lines)


def _draw(view: View, width: int, unicode: bool, paint: Paint) -> list[str] | None:
    """Return the lines of a drawing in lanes, or None when it does not fit."""
    rows = list(draw_lanes(view, unicode))
    if any(len(row.before) + len(row.after) + _room(row) > width for row in rows):
        return None
    notes = _notes(view)
    return [_drawn_row(row, notes, width, unicode, paint) for row in rows]


def _room(row: Row) -> int:
    return len(f"* {row.node.name}") if row.node else 0


def _drawn_row(row: Row, notes: Mapping[str, str], width: int, unicode: bool, paint: Paint) -> str:
    if row.node is None:
        return row.before
    used = len(row.before) + len(row.after) + _room(row)
    note = _note_within(notes[row.node.name], width - used, unicode)
    mark = paint(_mark(row.node, unicode), row.node)
    return f"{row.before}{mark}{row.after} {paint(row.node.name, row.node)}{note}"


def _mark(node: Node, unicode: bool) -> str:
    return find_mark(node.state or (OPEN if node.is_open else ""), unicode)


def _notes(view: View) -> dict[str, str]:
    """Return what is said beside each job: its state, and the failures that do not matter to it."""
    notes = {
        node.name: [
            *filter(None, [node.state]),
            *([OPEN] if _may_grow(node) else []),
            *([FINALLY] if node.is_final else []),
        ]
        for node in view.nodes
    }
    for line in view.lines:
        if line.on_failure == "ignore" and not line.is_last:
            notes[line.future].append(f"even if {line.blocker} fails")
    return {name: ", ".join(said) for name, said in notes.items()}


def _may_grow(node: Node) -> bool:
    return node.is_open and node.state in ("", "deferred")


def _note_within(note: str, room: int, unicode: bool) -> str:
    """Return the note behind two spaces, cut to the room there is, or nothing."""
    ellipsis = "…" if unicode else "..."
    if not note or room < len(ellipsis) + 3:
        return ""
    text = f"  {note}"
    return text if len(text) <= room else text[: room - len(ellipsis)] + ellipsis


def _listed(view: View, width: int, unicode: bool, paint: Paint) -> Iterator[str]:
    """Yield a line for every job, indented by level, with its blockers as far as they fit."""
    blockers_by_name, notes = view.blockers_by_name(), _notes(view)
    for node in view.nodes:
        room = width - len(f"* {node.name}")
        indent = max(0, min(2 * node.level, _MAX_INDENT, room))
        said = [note] if (note := notes[node.name]) else []
        if blockers := blockers_by_name[node.name]:
            said.append(f"after {_enumerated(blockers, room)}")
        note = _note_within(", ".join(said), room - indent, unicode)
        mark = paint(_mark(node, unicode), node)
        yield f"{' ' * indent}{mark} {paint(node.name, node)}{note}"


_MAX_INDENT = 16  # deeper levels would leave no room for the names


def _enumerated(names: list[str], room: int) -> str:
    """Return a list of names, of which the last ones are only counted when it gets long."""
    shown, length = 0, 0
    for name in islice(names, 8):
        length += len(name) + 2
        if shown and length > room - 20:
            break
        shown += 1
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest else "")


_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8

_UNICODE: Mapping[int, str] = {
    0: " ",
    _UP | _DOWN: "│",
    _LEFT | _RIGHT: "─",
    _UP | _RIGHT: "└",
    _UP | _LEFT: "┘",
    _UP | _DOWN | _RIGHT: "├",
    _UP | _DOWN | _LEFT: "┤",
    _UP | _LEFT | _RIGHT: "┴",
    _UP | _DOWN | _LEFT | _RIGHT: "┼",
}
_ASCII: Mapping[int, str] = {
    0: " ",
    _UP | _DOWN: "|",
    _LEFT | _RIGHT: "-",
    _UP | _RIGHT: "'",
    _UP | _LEFT: "'",
    _UP | _DOWN | _RIGHT: "+",
    _UP | _DOWN | _LEFT: "+",
    _UP | _LEFT | _RIGHT: "'",
    _UP | _DOWN | _LEFT | _RIGHT: "+",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the drawing: what stands before and after a job's mark.

    A row without a node only carries the lanes on; all of it is in `before` then.
    """

    before: str
    node: Node | None = None
    after: str = ""


@dataclass(slots=True)
class _Lanes:
    """The lanes that are open between two rows. Shape: the owner of each column, None if free."""

    waiting_by_owner: dict[str, int]
    owners: list[str | None] = field(default_factory=list)
    last_column: int | None = None

    def entering(self, blockers: list[str]) -> list[int]:
        return [column for column, owner in enumerate(self.owners) if owner in blockers]

    def find_ending(self, columns: list[int]) -> list[int]:
        """Return those of the columns whose owner has no other job left that waits for it."""
        return [
            column for column in columns if self.waiting_by_owner[self.owners[column] or ""] == 1
        ]

    def free_column(self) -> int:
        """Return a column for a job that continues no lane: not below a mark it does not follow."""
        for column, owner in enumerate(self.owners):
            if owner is None and column != self.last_column:
                return column
        end = len(self.owners)
        return end + 1 if end == self.last_column else end

    def enter(self, node: Node, column: int, entering: list[int], ending: list[int]) -> None:
        for each in entering:
            self.waiting_by_owner[self.owners[each] or ""] -= 1
        for each in ending:
            self.owners[each] = None
        self.owners += [None] * (column + 1 - len(self.owners))
        self.owners[column] = node.name if self.waiting_by_owner[node.name] else None
        while self.owners and self.owners[-1] is None:
            self.owners.pop()
        self.last_column = column


def draw_lanes(view: View, unicode: bool = True) -> Iterator[Row]:
    """Yield the rows of a drawing, first jobs on top."""
    glyphs = _UNICODE if unicode else _ASCII
    blockers_by_name = view.blockers_by_name()
    waiting = dict.fromkeys(blockers_by_name, 0)
    for line in view.lines:
        waiting[line.blocker] += 1
    lanes = _Lanes(waiting)
    for node in view.nodes:
        entering = lanes.entering(blockers_by_name[node.name])
        ending = lanes.find_ending(entering)
        column = ending[0] if ending else lanes.free_column()
        if column == lanes.last_column:  # two marks in line would hide the stroke between them
            yield Row(_written(_passing(lanes.owners), glyphs).rstrip())
        strokes = _turning(lanes.owners, column, entering, ending)
        text = _written(strokes, glyphs)
        yield Row(text[: 2 * column], node, text[2 * column + 1 :].rstrip())
        lanes.enter(node, column, entering, ending)


def _passing(owners: list[str | None]) -> list[int]:
    return [0 if owner is None else _UP | _DOWN for owner in owners]


def _turning(
    owners: list[str | None], column: int, entering: list[int], ending: list[int]
) -> list[int]:
    """Return the strokes of a job's row, by column."""
    strokes = _passing(owners) + [0] * (column + 1 - len(owners))
    low, high = min([column, *entering]), max([column, *entering])
    for each in range(low, high + 1):
        if strokes[each] == 0:
            strokes[each] = _LEFT | _RIGHT
    for each in entering:
        down = 0 if each in ending else _DOWN
        left, right = _LEFT if each > low else 0, _RIGHT if each < high else 0
        strokes[each] = _UP | down | left | right
    strokes[column] = (_LEFT if low < column else 0) | (_RIGHT if column < high else 0)
    return strokes


def _written(strokes: list[int], glyphs: Mapping[int, str]) -> str:
    """Return the glyphs with one character between two columns: a stroke where the row has one."""
    turns = [each for each, stroke in enumerate(strokes) if stroke & (_LEFT | _RIGHT)]
    low, high = (turns[0], turns[-1]) if turns else (0, 0)
    out = ""
    for each, stroke in enumerate(strokes):
        out += glyphs.get(stroke, " ")
        out += glyphs[_LEFT | _RIGHT] if low <= each < high else " "
    return out
