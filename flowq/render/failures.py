"""The part of a traceback that its reader can do something about: the frames of their own code."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_FRAME = re.compile(r'^  File "(?P<file>.*)", line \d+, in ')
_HEADER = "Traceback (most recent call last):"
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]|^<frozen |^<string>$")
_OF_RQ = re.compile(r"[/\\](site|dist)-packages[/\\](rq|flowq)[/\\]")
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


def without_runtime(traceback: str) -> list[str]:
    """Return a traceback without the frames of flowq and RQ, which stand before the user's own.

    Shape: by line; where some are left out the last line says so.
    """
    lines: list[str] = []
    left_out = 0
    for belongs_to, line in _attributed(traceback):
        if belongs_to is not None and _is_runtime(belongs_to):
            left_out += bool(_FRAME.match(line))
        else:
            lines.append(line)
    if not left_out:
        return lines
    if not any(_FRAME.match(line) for line in lines):
        lines = [line for line in lines if line != _HEADER]
    frames = "1 frame" if left_out == 1 else f"{left_out} frames"
    return [*lines, f"({frames} of flowq and RQ left out; -v shows all)"]


def _is_runtime(file: str) -> bool:
    return file.startswith(_OWN_FOLDERS[0]) or bool(_OF_RQ.search(file))


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
