"""How much room a text takes, in cells: one for a letter, two for a Chinese character or an emoji.

Terminals and monospaced fonts have cells of one size, so text and drawings measure alike.
"""

from __future__ import annotations

import unicodedata

_ZERO_WIDTH = {"Mn", "Me", "Cf"}  # accents, joiners, marks of direction
_AS_EMOJI = "\ufe0f"  # asks for the coloured form of the character before it, which is wide


def count_cells(text: str) -> int:
    """Return the number of cells that a text takes."""
    return len(text) if text.isascii() else sum(map(_count, text))


def pad(text: str, cells: int) -> str:
    """Return the text with as many spaces behind it as it takes to fill the cells."""
    return text + " " * (cells - count_cells(text))


def _count(character: str) -> int:
    if character == _AS_EMOJI:
        return 1
    if unicodedata.category(character) in _ZERO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, cells: int, ellipsis: str = "…") -> str:
    """Return the text, with an ellipsis at its end where it would take more than `cells`."""
    if count_cells(text) <= cells:
        return text
    room = cells - len(ellipsis)
    if room < 0:
        return ellipsis[:cells]
    used = end = 0
    for character in text:
        used += _count(character)
        if used > room:
            break
        end += 1
    return text[:end].rstrip("\u200d ") + ellipsis  # no emoji that waits for its second half
