"""Estimates of job durations, which decide how many short jobs form a batch.

A batch is a few milliseconds of work. The first job of a new kind is sent alone. The batches then
double in size each time, and shrink when a job takes long and the others have to be taken back.
Jobs that take longer than a millisecond or two are sent alone; if the end of a job is predictable,
the next job is sent shortly before it.
"""

from __future__ import annotations

from math import inf

BATCH_S = 0.008
"""The estimated duration of a batch."""

SHORT_S = 0.0015
"""A kind of jobs with at most this mean duration is short."""

OUTLIER_S = 0.005
"""A longer duration counts as this much in the mean: a busy machine can delay any job."""

OVERHEAD_S = 0.00004
MAX_KINDS = 32
MAX_BATCH = 48
SIGHTS_TO_GROW = 2
"""A batch may double after this many times its number of jobs."""

SHRINK = 4
LEAD_S = 0.003
"""How long before the predicted end of a job its child gets the next one."""

AHEAD_S = 0.008
"""The same if a turn is sent anyway."""

LONG_S = 2.0
STEADY = 0.25
"""The end of a job is predictable if the durations of its kind vary by at most this share."""


class Estimates:
    """Estimates by kind, in seconds.

    Without `batches`, short jobs are sent one by one too, each shortly before the end of the last.
    """

    def __init__(self, batches: bool = True) -> None:
        self._least, self._most = (2, MAX_BATCH) if batches else (1, 1)
        self._kinds: dict[str, _Kind] = {}

    def learn(self, kind: str, seconds: float) -> None:
        """Take the duration of a job into account."""
        known = self._kinds.pop(kind, None) or _Kind(seconds)
        self._kinds[kind] = known  # at the end of the order, so that it is dropped last
        known.learn(seconds, self._most)
        if len(self._kinds) > MAX_KINDS:
            del self._kinds[next(iter(self._kinds))]

    def shrink(self, kind: str) -> None:
        """Make batches of the kind smaller, because one of its jobs delayed others."""
        if kind in self._kinds:
            self._kinds[kind].shrink()

    def find_lead(self, kind: str, seconds: float) -> float:
        """Return in how many seconds to send another job after one that has run for `seconds`.

        Zero or less means now. Infinity means that it is unknown: jobs of the kind are short, or
        their durations vary, or the job should have ended already.
        """
        known = self._kinds.get(kind)
        if known is None or not SHORT_S < known.usual_s < LONG_S:
            return inf
        if known.spread_s > known.usual_s * STEADY or seconds > known.usual_s + LEAD_S:
            return inf
        return known.usual_s - LEAD_S - seconds

    def cost_by_kind(self) -> dict[str, float]:
        """Return the duration to assume for a job of each short kind."""
        return {
            kind: max(known.mean_s + OVERHEAD_S, BATCH_S / known.batch)
            for kind, known in self._kinds.items()
            if known.mean_s <= SHORT_S and known.batch >= self._least
        }


class _Kind:
    def __init__(self, seconds: float) -> None:
        self.mean_s = min(seconds, OUTLIER_S)
        self.usual_s = seconds
        self.spread_s = seconds
        self.batch = 1
        self._sights = 0

    def learn(self, seconds: float, max_batch: int) -> None:
        self.mean_s += (min(seconds, OUTLIER_S) - self.mean_s) * 0.2
        self.spread_s += (abs(seconds - self.usual_s) - self.spread_s) * 0.2
        self.usual_s += (seconds - self.usual_s) * 0.2
        self._sights += 1
        if self._sights >= SIGHTS_TO_GROW * self.batch:
            self._sights = 0
            self.batch = min(self.batch * 2, max_batch)

    def shrink(self) -> None:
        self.batch = max(1, self.batch // SHRINK)
        self._sights = 0
