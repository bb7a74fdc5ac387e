"""A picture for a terminal: lanes where they fit, else a list indented by level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from flowq.render.lanes import Row, draw_lanes
from flowq.render.marks import OPEN, find_mark
from flowq.render.view import Node, View

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
