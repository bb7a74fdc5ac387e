"""What is imported by an allowed module, and is not allowed itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def touch(path: str) -> None:
    """Leave a mark."""
    Path(path).touch()


class Touch:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return touch, (self.path,)


class Plain:
    """A class with nothing in it."""
