"""Jobs whose runs the tests of the page look at."""

from __future__ import annotations

from typing import Any


def say(text: str, value: Any = None) -> Any:
    """Print a text, and return a value."""
    print(text)
    return value


def fail(text: str) -> None:
    """Print a text, and raise it."""
    print(text)
    raise ValueError(text)


def fail_if(value: Any, bad: Any) -> Any:
    """Raise if a value is a bad one."""
    if value == bad:
        raise LookupError(f"{value} is bad\nfor reasons")
    return value
