"""Files that commands write for a reader, and open in a browser."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path

from flowq.cli import terminal
from flowq.errors import UsageError


def write_file(file: Path, content: bytes) -> None:
    """Write a file. Errors: UsageError if that is not possible."""
    try:
        file.write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror or error}") from None


def name_file(stem: str, ending: str) -> str:
    """Return a new temporary file for viewing. It is not deleted, because browsers load it late."""
    return str(Path(tempfile.mkdtemp(prefix="flowq-")) / f"{stem}{ending}")


def open_file(file: Path) -> None:
    """Open a file in a browser. Errors: UsageError if there is none."""
    terminal.note(f"flowq: {file}")
    if not webbrowser.open(file.resolve().as_uri()):
        raise UsageError(f"no browser was found; open {file} in one")
