"""What the jobs of random workflows call: they answer, or fail as they are told."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """A failure of one kind."""


def answer(value: Any = None, fails_until: int = 0, attempt: int = 1, **_: Any) -> Any:
    """Return the value; fail in the first attempts."""
    if attempt <= fails_until:
        raise Refused(f"attempt {attempt} of {fails_until}")
    return value


def count(values: list[Any]) -> int:
    """Return how many of these are there."""
    return sum(value is not None for value in values)
