"""Functions that jobs may call."""

from __future__ import annotations

from typing import Any

from forbidden_marks import Plain

from flowq import get_current_job

__all__ = ["get_current_job"]


def charge(amount: Any = 1, **more: Any) -> Any:
    """Charge that."""
    return amount


def note(*_: Any) -> None:
    """Be a callback."""


def count(job: Any, connection: Any, *_: Any) -> None:
    """Be a callback that is counted."""
    connection.incr(f"called:{job.id}")


def make_strange() -> Any:
    """Return what the workers may not read."""
    return Plain()
