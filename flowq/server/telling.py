"""What a guardian, or a keeper, tells the command that started it, and then its log."""

from __future__ import annotations

import os
from contextlib import suppress


def say(who: str, text: str) -> None:
    """Write a line to the log, which is where the output goes once the report is made."""
    with suppress(OSError):  # its disk may be full
        os.write(2, f"flowq {who} {os.getpid()}: {text}\n".encode(errors="replace"))


def report(text: str) -> None:
    """Tell the starter, in one line, how it went; from now on the output goes to the log."""
    with suppress(OSError):  # a starter that was killed does not listen
        os.write(1, (text.replace("\n", " ") + "\n").encode(errors="replace"))
    os.dup2(2, 1)
