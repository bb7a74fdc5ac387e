"""The one character that stands for a state of a job, in drawings, tables and displays."""

from __future__ import annotations

from collections.abc import Mapping

OPEN = "open"
"""Stands for a job that has no state, and to which running jobs may add blockers."""

_MARK_BY_STATE: Mapping[str, tuple[str, str]] = {
    "": ("●", "*"),
    OPEN: ("◎", "O"),
    "deferred": ("○", "o"),
    "scheduled": ("◷", "~"),
    "queued": ("◌", "q"),
    "started": ("▶", ">"),
    "finished": ("✓", "v"),
    "failed": ("✗", "x"),
    "stopped": ("■", "#"),
    "canceled": ("⊘", "/"),
    "skipped": ("–", "-"),
    "expired": ("⧖", "%"),
    "deleted": ("␡", "d"),
}


def find_mark(state: str, unicode: bool = True) -> str:
    """Return the one character that stands for a state of a job; `?` for one we do not know."""
    marks = _MARK_BY_STATE.get(state, ("?", "?"))
    return marks[0] if unicode else marks[1]
