"""How long the jobs of each kind take, to hand several short ones over at once.

The estimate is careful: it jumps up to whatever was seen, and comes down slowly. A kind that has
not been seen, or once took longer than a few milliseconds, travels alone.
"""

from __future__ import annotations

BATCH_S = 0.004
"""How much work a child gets at once."""

SHORT_S = 0.0015
"""What counts as short."""

OVERHEAD_S = 0.00005
MAX_KINDS = 32
FIRST_COSTS = (0.002, 0.001, 0.0005, 0.00025, 0.000125)
"""At least what a job is reckoned at after one, two … sights of its kind."""


class Pace:
    """Estimates by kind. Units: seconds."""

    def __init__(self, batches: bool = True) -> None:
        self._batches = batches
        self._seconds: dict[str, float] = {}
        self._sights: dict[str, int] = {}

    def learn(self, kind: str, seconds: float) -> None:
        """Take one job's time into account."""
        if not self._batches:
            return
        before = self._seconds.pop(kind, 0.0)
        self._seconds[kind] = max(seconds, before * 0.9 + seconds * 0.1)
        self._sights[kind] = self._sights.get(kind, 0) + 1
        while len(self._seconds) > MAX_KINDS:
            oldest = next(iter(self._seconds))
            del self._seconds[oldest], self._sights[oldest]

    def forget(self, kind: str) -> None:
        """Treat the kind as unknown from here on: one of its jobs kept others waiting."""
        self._seconds[kind] = 1.0

    def cost_by_kind(self) -> dict[str, float]:
        """Return what to reckon for one job of each kind that is short."""
        costs = {kind: self._cost(kind, seconds) for kind, seconds in self._seconds.items()}
        return {kind: cost for kind, cost in costs.items() if cost <= FIRST_COSTS[0]}

    def _cost(self, kind: str, seconds: float) -> float:
        if seconds > SHORT_S:
            return seconds + FIRST_COSTS[0]
        index = self._sights[kind] - 1 if kind in self._sights else 0
        least = FIRST_COSTS[index] if index < len(FIRST_COSTS) else 0.0
        return max(seconds + OVERHEAD_S, least)
