"""Lines with styles as rich shows them. Together with the command line, the only user of rich."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from flowq.render.lines import Line, spelled


def to_text(lines: Iterable[Line]) -> Text:
    """Return lines as one renderable that is cut at the right edge, never wrapped."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for index, line in enumerate(lines):
        if index:
            text.append("\n")
        for words, style in line:
            text.append(spelled(words), style or None)
    return text
