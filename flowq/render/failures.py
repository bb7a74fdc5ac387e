"""The part of a traceback that its reader can do something about: the frames of their own code."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_FRAME = re.compile(r'^  File "(?P<file>.*)", line \d+, in ')
_HEADER = "Traceback (most recent call last):"
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]|^<frozen |^<string>$")
_OWN_FOLDERS = (str(Path(__file__).resolve().parents[1]), sysconfig.get_paths()["stdlib"])


def own_lines(traceback: str) -> list[str]:
    """Return a traceback without the frames of flowq, of RQ, and of whatever was installed.

    Shape: the message of each exception stays whole, and so do the sentences that chain them. A
    text that is no traceback comes back as it is, line by line.
    """
    lines: list[str] = []
    for belongs_to, line in _attributed(traceback):
        if belongs_to is None or not is_foreign(belongs_to):
            lines.append(line)
    return [line for line in lines if line != _HEADER]


def is_foreign(file: str) -> bool:
    """Whether a file is part of flowq, of an installed package or of Python itself."""
    return bool(_INSTALLED.search(file)) or file.startswith(_OWN_FOLDERS)


def _attributed(traceback: str) -> Iterator[tuple[str | None, str]]:
    """Yield each line with the file of the frame that it belongs to, or None for a message."""
    file, is_in_frames = None, False
    for line in traceback.rstrip().splitlines():
        if line == _HEADER:
            file, is_in_frames = None, True
        elif is_in_frames and (frame := _FRAME.match(line)):
            file = frame["file"]
        elif line.startswith('  File "') or not line.startswith("  "):
            # A file without a function is where a SyntaxError is: part of its message.
            file, is_in_frames = None, False
        yield file, line
