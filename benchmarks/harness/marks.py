"""What the jobs have noted: the instants of their ends, and of the starts of the joins."""

from __future__ import annotations

import os
import struct
from pathlib import Path

MARK_BYTES = 8


class Marks:
    """The folder that `systems/mark.py` writes to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clear()

    def clear(self) -> None:
        """Forget everything; processes that have the files open go on with them."""
        for name in ("ends", "joins"):
            path = self.folder / name
            path.touch()
            os.truncate(path, 0)

    def count(self, name: str) -> int:
        """How many there are."""
        return (self.folder / name).stat().st_size // MARK_BYTES

    def read(self, name: str) -> list[float]:
        """Return the instants in the order in which they were noted, as epoch seconds."""
        return [at for (at,) in struct.iter_unpack("<d", (self.folder / name).read_bytes())]
