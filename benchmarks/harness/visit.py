"""One visit to one system: its worker is started once, and does the work in each mode.

*drain*: the graph is declared first. Where a warm worker can be kept from it, the clock starts
when it is let go; elsewhere the worker starts on a full queue, and the clock at the end of the
first job, which leaves the start of the worker out and favours the system a little. *e2e*: the
worker is warm, and the clock starts before the first call that declares. Both end at the start of
the last join; where no join is stored, at the end of the last job, or where the results came.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from subprocess import Popen
from typing import Any, NamedTuple

from harness.catalogue import System, Work
from harness.client import Trouble
from harness.place import Place
from harness.processes import cpu_s, last_line
from harness.server import Counts

LOOK_S = 0.003
"""How often the marks are looked at: seldom enough to leave the cores to the others."""

START_S = 30.0
SETTLE_S = 0.2
WARM_UP_JOBS = 100
"""Enough for a worker to know how long jobs take, and for node to compile them."""

Figures = dict[str, float | None]


class Moment(NamedTuple):
    """Where everything stood."""

    counts: Counts
    worker_cpu_s: float | None
    ended: int


class Declared(NamedTuple):
    """What declaring took: seconds, and bytes for each job."""

    seconds: float
    pending_bytes: float


def visit(
    place: Place, system: System, work: Work, modes: tuple[str, ...], limit_s: float
) -> Iterator[tuple[str, Figures]]:
    """Yield the figures of each mode; after a mode that took too long, there is no other.

    Errors: Trouble, with what the system says itself.
    """
    place.server.empty()
    place.marks.clear()
    attempt = Attempt(place, system, work, limit_s)
    cold = "drain" in modes and not system.holds
    declared = attempt.declare_held() if cold else None
    with place.worker_of(system) as attempt.worker:
        if not cold:
            attempt.warm_up()
        for mode in modes:
            if mode == "e2e":
                figures = attempt.end_to_end()
            else:
                figures = attempt.drain_cold(declared) if declared else attempt.drain_warm()
            yield mode, figures
            if figures["timed_out"]:
                return


class Attempt:
    """The steps of a visit, with the worker that is being visited. Errors: Trouble."""

    worker: Popen[bytes] | None = None

    def __init__(self, place: Place, system: System, work: Work, limit_s: float) -> None:
        self._place = place
        self._client = place.client_of(system)
        self._system = system
        self._work = work
        self._limit_s = limit_s

    # --- the modes ---

    def warm_up(self) -> None:
        """Wait until the worker has worked."""
        count = WARM_UP_JOBS * self._system.children
        stored = self._system.stores_join
        order = {"do": "declare", "shape": "fan_in", "body": "nothing", "hold": not stored}
        self._client.begin(**order, count=count)
        last, wanted = ("joins", 1) if stored else ("ends", count)
        if not self._await(lambda: self._place.marks.count(last) >= wanted, START_S):
            raise Trouble(f"not warm after {START_S:.0f} s; its worker: {self._last_words()}")
        self._answer(done=True)
        time.sleep(SETTLE_S)

    def declare_held(self) -> Declared:
        """Declare the graph; nothing of it may start yet."""
        before = self._place.server.measure_data()
        answer = self._client.ask(self._limit_s, **self._order(hold=True))
        grown = self._place.server.measure_data() - before
        return Declared(answer["seconds"], grown / self._work.jobs)

    def drain_warm(self) -> Figures:
        """Declare, and let a warm worker begin."""
        return self.let_go(self.declare_held())

    def let_go(self, declared: Declared) -> Figures:
        """Let a warm worker begin with what is declared."""
        self._place.marks.clear()
        start = self._moment()
        self._client.begin(do="go")
        done = self._await(self._is_done(), self._limit_s)
        return self._figures(self._began_at(done), start, done, declared)

    def drain_cold(self, declared: Declared) -> Figures:
        """Wait for the first job of the worker that has been started; then the clock runs."""
        if not self._await(lambda: self._place.marks.count("ends") > 0, START_S):
            raise Trouble(f"no job after {START_S:.0f} s; its worker: {self._last_words()}")
        start = self._moment()
        done = self._await(self._is_done(), self._limit_s)
        began_at = self._place.marks.read("ends")[0]
        return self._figures(began_at, start, done, declared, skipped=1)

    def end_to_end(self) -> Figures:
        """Declare while a warm worker works."""
        time.sleep(SETTLE_S)
        self._place.marks.clear()
        start = self._moment()
        self._client.begin(**self._order(hold=False))
        joins = self._work.joins
        done = self._await(lambda: self._place.marks.count("joins") >= joins, self._limit_s)
        answer = self._answer(done)
        declared = Declared(answer["seconds"], 0.0) if self._system.stores_join else None
        return self._figures(answer["began_at"], start, done, declared)

    # --- the clock ---

    def _await(self, is_done: Callable[[], bool], limit_s: float) -> bool:
        """Wait, and return whether it was done in time; see to it that client and worker live."""
        deadline = time.monotonic() + limit_s
        self._early_answer: dict[str, Any] | None = None
        while not is_done():
            if self.worker and self.worker.poll() is not None:
                raise Trouble(f"its worker has ended: {self._last_words()}")
            self._early_answer = self._early_answer or self._client.find_answer()
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_S)
        return True

    def _answer(self, done: bool) -> dict[str, Any]:
        """Return the client's answer; when the time is up it may still be at work."""
        if self._early_answer:
            return self._early_answer
        if done:
            return self._client.await_answer(self._limit_s)
        return {"began_at": time.time() - self._limit_s, "seconds": self._limit_s}

    def _began_at(self, done: bool) -> float:
        return float(self._answer(done)["began_at"])

    def _is_done(self) -> Callable[[], bool]:
        """Return how to see that a drain is at its end."""
        marks, work = self._place.marks, self._work
        if self._system.stores_join:
            return lambda: marks.count("joins") >= work.joins
        return lambda: marks.count("ends") >= work.count

    def _moment(self) -> Moment:
        used = cpu_s(self.worker.pid) if self.worker else None
        ended = self._place.marks.count("ends")
        return Moment(self._place.server.count(), used, ended)

    def _order(self, hold: bool) -> dict[str, Any]:
        work = self._work
        order = {"do": "declare", "shape": work.shape, "body": work.body}
        return {**order, "count": work.count, "hold": hold}

    def _last_words(self) -> str:
        return last_line(self._place.log_of(self._system))

    # --- the figures ---

    def _figures(
        self,
        began_at: float,
        start: Moment,
        done: bool,
        declared: Declared | None,
        skipped: int = 0,
    ) -> Figures:
        """Return what is shown, by name; None where a figure does not exist."""
        end = self._moment()
        ends, joins = self._place.marks.read("ends"), self._place.marks.read("joins")
        seconds = (max(joins or ends) - began_at) if done else self._limit_s
        jobs = len(ends) + len(joins) - skipped
        counted = max(1, len(ends) + len(joins) - start.ended)
        return {
            "timed_out": float(not done),
            "seconds": seconds,
            "jobs_s": jobs / seconds,
            "join_ms": self._join_ms(ends, joins),
            "commands": (end.counts.commands - start.counts.commands) / counted,
            "reads": (end.counts.reads - start.counts.reads) / counted,
            "declare_s": declared.seconds if declared else None,
            "server_ms": (end.counts.cpu_s - start.counts.cpu_s) * 1e3 / counted,
            "worker_ms": _used_ms(start, end, counted),
            "pending_bytes": (declared.pending_bytes or None) if declared else None,
        }

    def _join_ms(self, ends: list[float], joins: list[float]) -> float | None:
        if self._work.shape == "diamonds" or not joins or not self._system.stores_join:
            return None
        return (joins[0] - max(ends)) * 1e3


def _used_ms(start: Moment, end: Moment, jobs: int) -> float | None:
    if start.worker_cpu_s is None or end.worker_cpu_s is None:
        return None
    return (end.worker_cpu_s - start.worker_cpu_s) * 1e3 / jobs
