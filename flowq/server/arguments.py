"""A password in the arguments of this process, which every user of the machine can list."""

from __future__ import annotations

import sys
from pathlib import Path

_ARG_START, _ARG_END = 45, 46
"""Which fields of /proc/self/stat these are behind the name of the program; see proc(5)."""


def hide_argument(argument: str, shown: str) -> bool:
    """Write `shown` over an argument of this process in the system's list of processes.

    `sys.argv` stays. Returns whether that was possible: on Linux only, and it could be seen until
    now. Errors: none.
    """
    if sys.platform != "linux":
        return False
    import ctypes  # noqa: PLC0415 - few commands need it

    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        written = ctypes.string_at(start, end - start) if 0 < start < end else b""
        wanted = argument.encode("utf-8", "surrogateescape")
        at = written.find(wanted)
        if at < 0:
            return False
        text = shown.encode("utf-8", "replace")[: len(wanted)].ljust(len(wanted))
        ctypes.memmove(start + at, text, len(text))
    except (OSError, ValueError, IndexError):
        return False
    return True
