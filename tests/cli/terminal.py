"""A command on a pseudo-terminal, and what a terminal makes of its output."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

_TOKEN = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")


def run_on_terminal(
    words: list[str],
    folder: Path,
    env: dict[str, str],
    columns: int,
    lines: int,
    look: Callable[[str], None] = lambda written: None,
) -> tuple[int, str]:
    """Run `flowq` on a terminal of that size; return its exit code and all that it wrote.

    `look` sees that as often as there is more of it, and may do something about it.
    """
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "flowq", *words],
        cwd=folder,
        env=env,
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        start_new_session=True,
    )
    os.close(secondary)
    written = bytearray()
    while True:
        try:
            part = os.read(primary, 65536)
        except OSError:  # Linux says so when the last writer has gone
            break
        if not part:
            break
        written += part
        look(written.decode(errors="replace"))
    os.close(primary)
    return process.wait(timeout=60), written.decode()


def screen(written: str) -> list[str]:
    """Return the lines that stand on the terminal after all that was written.

    It knows what rich uses: carriage return, cursor up, and erasing a line. An escape sequence
    that it does not know fails the test.
    """
    rows, row, column = [""], 0, 0
    for token in _TOKEN.finditer(written):
        if token.group() == "\r":
            column = 0
        elif token.group() == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif token[2] == "A":
            row = max(0, row - int(token[1] or 1))
        elif token[2] == "K":
            rows[row] = "" if token[1] == "2" else rows[row][:column]
        elif token[2] is None:
            text = token.group()
            rows[row] = rows[row][:column].ljust(column) + text + rows[row][column + len(text) :]
            column += len(text)
        else:
            assert token[2] in "mhl", f"unknown escape sequence: {token.group()!r}"
    return [line.rstrip() for line in rows]
