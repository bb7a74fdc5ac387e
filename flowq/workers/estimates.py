"""Estimates of job durations, which decide how many short jobs form a batch.

A batch is a few milliseconds of work. The first job of a new kind is sent alone. The batches then
double in size each time, and shrink when a job takes long and the others have to be taken back.
Jobs that take longer than a millisecond or two are sent alone; if the end of a job is predictable,
the next job is sent shortly before it.
"""

from __future__ import annotations

from math import inf

BATCH_S = 0.008
"""How much work a child gets at once."""

SHORT_S = 0.0015
"""What counts as short, on average."""

OUTLIER_S = 0.005
"""More than this is not believed at once: on a busy machine any job may be held up."""

OVERHEAD_S = 0.00004
MAX_KINDS = 32
MAX_BATCH = 48
SIGHTS_TO_GROW = 2
"""After how many jobs per job of a batch the next one may be twice as large."""

SHRINK = 4
LEAD_S = 0.003
"""How long before the end of a job its child gets the next one, when the end can be foreseen."""

AHEAD_S = 0.008
"""How long before that a child may get it when others are being asked for anyway."""

LONG_S = 2.0
STEADY = 0.25
"""How far a kind's times may be from each other for that, in parts of the time."""


class Estimates:
    """Estimates by kind. Units: seconds. Without `batches` a short job travels alone too, and the
    next one of its kind a moment behind it."""

    def __init__(self, batches: bool = True) -> None:
        self._least, self._most = (2, MAX_BATCH) if batches else (1, 1)
        self._kinds: dict[str, _Kind] = {}

    def learn(self, kind: str, seconds: float) -> None:
        """Take one job's time into account."""
        known = self._kinds.pop(kind, None) or _Kind(seconds)
        self._kinds[kind] = known  # the last in the order: dropped last
        known.learn(seconds, self._most)
        if len(self._kinds) > MAX_KINDS:
            del self._kinds[next(iter(self._kinds))]

    def shrink(self, kind: str) -> None:
        """Let fewer of the kind travel together: one of its jobs kept others waiting."""
        if kind in self._kinds:
            self._kinds[kind].shrink()

    def find_lead(self, kind: str, seconds: float) -> float:
        """Return in how many seconds a job that has run so long should be followed by another one.

        Zero or less: now. Infinity: nobody can tell, because its kind is short, or takes now longer
        and now less long, or it should have ended already.
        """
        known = self._kinds.get(kind)
        if known is None or not SHORT_S < known.usual_s < LONG_S:
            return inf
        if known.spread_s > known.usual_s * STEADY or seconds > known.usual_s + LEAD_S:
            return inf
        return known.usual_s - LEAD_S - seconds

    def cost_by_kind(self) -> dict[str, float]:
        """Return what to reckon for one job of each kind that is short."""
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
