"""Plain functions: flowq calls them, and they know nothing of it."""

from __future__ import annotations

import time


def cut_bread(parts: int) -> list[str]:
    """Cut a loaf into slices."""
    if parts < 2:
        raise ValueError(f"a sandwich takes at least 2 slices, not {parts}")
    return [f"slice {number}" for number in range(1, parts + 1)]


def add_marmalade(slices: list[str], flavour: str = "strawberry") -> list[str]:
    """Spread marmalade on every slice."""
    spread = []
    for slice_ in slices:
        time.sleep(0.1)  # as fast as marmalade goes
        spread.append(f"{slice_} with {flavour}")
    return spread


def make_tea(minutes: float = 0.01) -> str:
    """Let the tea steep."""
    time.sleep(60 * minutes)
    return "tea"


def serve(slices: list[str], drink: str) -> str:
    """Put the slices together, two by two."""
    sandwiches, rest = divmod(len(slices), 2)
    flavour = slices[0].rpartition(" ")[2]
    left_over = ", one slice for the birds" if rest else ""
    plural = "" if sandwiches == 1 else "es"
    return f"{sandwiches} {flavour} sandwich{plural} and {drink}{left_over}"
