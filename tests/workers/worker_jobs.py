"""What the workers' tests run. Importable by the children through `paths=[<this folder>]`."""

from __future__ import annotations

import time
from pathlib import Path


def nothing() -> None:
    """Do nothing."""


def add(a: int, b: int) -> int:
    """Return the sum."""
    return a + b


def fail(text: str = "no") -> None:
    """Raise."""
    raise ValueError(text)


def sleep(seconds: float) -> float:
    """Take that long."""
    time.sleep(seconds)
    return seconds


def touch(path: str) -> None:
    """Say so with a file."""
    Path(path).touch()
