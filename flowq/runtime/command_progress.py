"""How far a command says that it has come: the file that `FLOWQ_PROGRESS` names.

As with the files of GitHub's workflow commands, a command writes lines to it, and the last one
counts: `echo "3/10 resizing" > "$FLOWQ_PROGRESS"`. The process that executes the job looks at the
file while it waits, and reports what it says as `flowq.progress` would.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from flowq.errors import UsageError
from flowq.runtime.progress import progress

VARIABLE = "FLOWQ_PROGRESS"

MAX_BYTES = 4_096
"""How much of the end of the file is read."""

_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_NOFOLLOW", "O_BINARY"):  # as far as the system has them
    _FLAGS |= getattr(os, _name, 0)

_LINE = re.compile(r"(\d+(?:\.\d+)?)(?:\s*/\s*(\d+(?:\.\d+)?)|\s*(%))?(?:\s+(.*))?")


class ProgressFile:
    """The file of one command, in a folder of its own, which only its user may enter.

    The file is there once the command has written to it. Where there is no room for a folder, what
    the command writes goes nowhere.
    """

    def __init__(self) -> None:
        self.folder, self.path = "", os.devnull
        with suppress(OSError):
            self.folder = tempfile.mkdtemp(prefix="flowq-progress-")
            self.path = str(Path(self.folder) / "progress")
        self._seen: tuple[int, int] | None = None
        self._has_complained = False

    def report(self) -> None:
        """Report what the file says, if it has changed. Never fails because of the file."""
        try:
            line = self._read_last_line()
        except OSError:  # it is not there, or is no file
            return
        if not line:
            return
        try:
            progress(*read_line(line))
        except UsageError as error:
            if not self._has_complained:
                self._has_complained = True
                sys.stderr.write(f"flowq: {VARIABLE}: {error}\n")

    def _read_last_line(self) -> str:
        """Return the last line; "" if it has not changed. Never blocks, as for a pipe. OSError."""
        descriptor = os.open(self.path, _FLAGS)
        try:
            found = os.fstat(descriptor)
            seen = found.st_mtime_ns, found.st_size
            if not stat.S_ISREG(found.st_mode) or seen == self._seen:
                return ""
            self._seen = seen
            os.lseek(descriptor, max(0, found.st_size - MAX_BYTES), os.SEEK_SET)
            text = os.read(descriptor, MAX_BYTES)
        finally:
            os.close(descriptor)
        lines = (line.strip() for line in reversed(text.splitlines()))
        return next(filter(None, lines), b"").decode("utf-8", "surrogateescape")

    def remove(self) -> None:
        """Remove the file and its folder."""
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def read_line(line: str) -> tuple[float, float | None, str]:
    """Return what a line says, as arguments of `flowq.progress`. Errors: UsageError."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise UsageError(
            f"write DONE/TOTAL, DONE or PERCENT%, and perhaps a message: not {line!r:.80}"
        )
    done, total, percent, message = found.groups()
    return _number(done), 100 if percent else _number(total) if total else None, message or ""


def _number(text: str) -> float:
    return float(text) if "." in text else int(text[:20])
