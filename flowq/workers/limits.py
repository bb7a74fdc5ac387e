"""When a worker ends without being told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What was asked for; None and False for no limit. `until` is asked between jobs."""

    burst: bool = False
    max_jobs: int | None = None
    max_idle_s: float | None = None
    until: Callable[[], bool] | None = None

    def are_reached(
        self, *, done: int, has_nothing_left: bool, idle_s: float, is_healing: Callable[[], bool]
    ) -> bool:
        """Whether an idle worker ends now; `until` is not looked at.

        In a burst it heals before it leaves: `is_healing` says whether there may be jobs of lost
        workers.
        """
        if self.burst and (has_nothing_left or self.max_jobs == 0) and is_healing():
            return False
        if self.max_jobs is not None and done >= self.max_jobs:
            return True
        if self.burst and has_nothing_left:
            return True
        return self.max_idle_s is not None and idle_s >= self.max_idle_s
