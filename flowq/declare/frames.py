"""Where a declaration in Python was written: the place outside of this package that called it."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from types import FrameType

from flowq.errors import Where

_HERE = str(Path(__file__).parent)


def find_caller() -> FrameType:
    """Return the frame of the user's code that called us."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_HERE) and frame.f_back is not None:
        frame = frame.f_back
    return frame


def here() -> Where:
    """Return the position in the user's code that called us."""
    return where_of(find_caller())


def where_of(frame: FrameType) -> Where:
    """Return the position that a frame is executing."""
    positions = islice(frame.f_code.co_positions(), frame.f_lasti // 2, None)
    line, _, column, _ = next(positions, (None, None, None, None))
    return Where(frame.f_code.co_filename, line or frame.f_lineno, (column or 0) + 1)


def find_folder(frame: FrameType) -> str | None:
    """Return the folder of a module that is imported by its file's name alone."""
    names = frame.f_globals
    if names.get("__package__") or not names.get("__file__"):
        return None
    return str(Path(names["__file__"]).parent)
