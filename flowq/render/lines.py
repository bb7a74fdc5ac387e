"""Lines for a terminal as values: pieces of text with styles, and the marks of job states.

The caller decides what to do with the styles: colours on a terminal, nothing in a file. The command
line imports this module at every start, so it must stay light.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime

Span = tuple[str, str]
"""A text and its style, in rich's words ("bold red"); an empty style is plain."""

Line = tuple[Span, ...]

STYLE_BY_STATE: Mapping[str, str] = {
    "deferred": "dim",
    "scheduled": "yellow",
    "queued": "yellow",
    "started": "bold cyan",
    "finished": "green",
    "failed": "bold red",
    "tolerated": "yellow",
    "stopped": "red",
    "canceled": "magenta",
    "skipped": "magenta",
    "expired": "red",
    "deleted": "magenta",
    "staged": "dim",
    "running": "bold cyan",
    "waiting": "yellow",
    "succeeded": "bold green",
}
"""How the states of jobs and of runs look."""

_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-_])")
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain(line: Line) -> str:
    """Return a line without its styles."""
    return spelled_inside("".join(text for text, _ in line)).rstrip()


def plain_text(lines: Iterable[Line]) -> str:
    """Return lines without their styles, each with a newline."""
    return "".join(f"{plain(line)}\n" for line in lines)


def spelled(text: str) -> str:
    r"""Return a text with its control characters spelled out, `\x1b`, but for tabs and newlines.

    All that a terminal gets goes through here: what is in a workflow, a message or an item
    must not move its cursor, or turn the direction of what is read.
    """
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_spell, text)


def spelled_inside(text: str) -> str:
    r"""The same for what is inside a line, as the name of an item: `\n` is spelled, too."""
    return text if text.isascii() and text.isprintable() else _CONTROL.sub(_spell, text)


def spelled_line(text: str) -> str:
    """The same as one line: what is in several lines is joined with spaces."""
    return spelled(" ".join(text.split()))


def _spell(found: re.Match[str]) -> str:
    return ascii(found.group())[1:-1]


def printable(text: str) -> str:
    """Return one line that a foreign text can be shown in: nothing in it moves the cursor."""
    return _CONTROL.sub(" ", _ESCAPE.sub("", text).expandtabs(4))


def shortened(text: str, width: int, unicode: bool = True) -> str:
    """Return the text, cut to `width` characters with an ellipsis at the end."""
    if len(text) <= width:
        return text
    ellipsis = "…" if unicode else "..."
    return text[: max(0, width - len(ellipsis))] + ellipsis[:width]


def write_value(value: object) -> str:
    """Return the value of an input as forms and `-i` take it: a text as it is, others as JSON."""
    import json  # noqa: PLC0415 - few commands show inputs

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)


def format_duration(seconds: float) -> str:
    """Return a duration as one reads it: `30ms`, `1.2s`, `42s`, `3m 05s`, `2h 10m`, `3d 04h`."""
    seconds = max(0.0, seconds)
    if 0 < seconds < 0.0005:
        return "<1ms"
    if seconds < 0.9995:
        return f"{round(seconds * 1000)}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3_600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3_600}h {whole % 3_600 // 60:02}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3_600:02}h"


def format_age(at: datetime, now: datetime) -> str:
    """Return how long ago that was: `just now`, `12 s ago`, `3 min ago`, `2 h ago`, `5 d ago`."""
    seconds = int((now - at).total_seconds())
    if seconds < 2:  # or ahead, by another clock
        return "just now"
    for unit, unit_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= unit_s:
            return f"{seconds // unit_s} {unit} ago"
    return f"{seconds} s ago"


def count(number: int, thing: str) -> str:
    """Return `1 job`, `2 jobs`, `1,000 jobs`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def more_are(number: int, thing: str) -> str:
    """Return `1 more job is`, `1,000 more jobs are`."""
    return f"{count(number, f'more {thing}')} {'is' if number == 1 else 'are'}"


OPEN = "open"
"""Stands for a job that has no state, and to which running jobs may add blockers."""

_MARK_BY_STATE: Mapping[str, tuple[str, str]] = {
    "": ("●", "*"),
    OPEN: ("◎", "O"),
    "deferred": ("○", "o"),
    "scheduled": ("◷", "~"),
    "queued": ("◌", "q"),
    "started": ("▶", ">"),
    "finished": ("✓", "v"),
    "failed": ("✗", "x"),
    "tolerated": ("!", "!"),
    "stopped": ("■", "#"),
    "canceled": ("⊘", "/"),
    "skipped": ("–", "-"),
    "expired": ("◔", "%"),
    "deleted": ("∅", "d"),
}


def find_mark(state: str, unicode: bool = True) -> str:
    """Return the one character that stands for a state of a job; `?` for one we do not know."""
    marks = _MARK_BY_STATE.get(state, ("?", "?"))
    return marks[0] if unicode else marks[1]
