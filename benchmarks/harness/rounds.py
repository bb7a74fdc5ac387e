"""Which system does what, and how often: rounds in which each has its turn.

A pair is a run of one system and a run of another in the same round; every second round goes
backwards, so that what changes slowly on a machine falls on all alike.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from harness.catalogue import System, Work
from harness.client import Trouble
from harness.place import TASKS, Place
from harness.visit import Figures, visit

ALWAYS = ("flowq", "bare")
CONTENDERS = ("python", "bullmq", "bullmq-sandbox")
"""Families whose fastest system is run in every round of a fan-in, however long it takes."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one system did in one round: figures, or why there are none."""

    system: str
    work: str
    mode: str
    round: int
    figures: Figures
    trouble: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Limits:
    """How often and how long. Units: rounds; seconds of a run; of a system on one work."""

    rounds: int
    run_s: float
    system_s: float


def run_rounds(
    place: Place,
    plan: list[tuple[Work, list[System]]],
    limits: Limits,
    say: Callable[[str], None],
) -> Iterator[Run]:
    """Yield a run for each system, work, mode and round; nothing that fails ends the others."""
    speeds: dict[tuple[str, str], float] = {}
    for work, systems in plan:
        yield from _Rounds(place, work, limits, speeds, say).run(systems)


class _Rounds:
    def __init__(
        self,
        place: Place,
        work: Work,
        limits: Limits,
        speeds: dict[tuple[str, str], float],
        say: Callable[[str], None],
    ) -> None:
        self._place = place
        self._work = work
        self._limits = limits
        self._speeds = speeds
        self._say = say
        self._used_s: dict[str, float] = {}
        self._broken: set[str] = set()

    def run(self, systems: list[System]) -> Iterator[Run]:
        """Yield the runs of one work."""
        able = []
        for system in systems:
            reason = self._find_reason_against(system)
            if reason:
                yield self._refusal(system, reason, 0)
            else:
                able.append(system)
        for number in range(self._limits.rounds):
            fastest = self._find_fastest(able)
            for system in able if number % 2 == 0 else able[::-1]:
                if number == 0 or self._is_due(system, fastest):
                    yield from self._visit(system, number, system.name in fastest)

    def _find_reason_against(self, system: System) -> str:
        """Say why a system need not be tried; an empty text when it is to be."""
        if self._work.shape == "fan_in" and self._work.count > system.largest:
            return f"left out above {system.largest}"
        speed = self._speeds.get((system.name, self._work.kind))
        if speed and self._work.jobs / speed > self._limits.run_s:
            return f"left out: it would take about {self._work.jobs / speed:.0f} s"
        return ""

    def _find_fastest(self, systems: list[System]) -> set[str]:
        """Return the fastest system of each family of contenders, by the runs so far."""
        fastest: set[str] = set()
        if self._work.kind != "W1":
            return fastest
        for family in CONTENDERS:
            rivals = [s.name for s in systems if s.family == family and self._speed(s.name)]
            if rivals:
                fastest.add(max(rivals, key=self._speed))
        return fastest

    def _speed(self, name: str) -> float:
        return self._speeds.get((name, self._work.kind), 0.0)

    def _is_due(self, system: System, fastest: set[str]) -> bool:
        if system.name in self._broken:
            return False
        if system.family in ALWAYS or system.name in fastest:
            return True
        return self._used_s[system.name] < self._limits.system_s

    def _visit(self, system: System, number: int, is_fastest: bool) -> Iterator[Run]:
        began = time.monotonic()
        try:
            for mode, figures in self._figures(system, self._modes(system, number, is_fastest)):
                yield self._note(system, mode, number, figures)
        except Trouble as trouble:
            self._give_up(system)
            yield self._refusal(system, str(trouble), number)
        except Exception as error:  # noqa: BLE001 - one that breaks must not end the others
            self._give_up(system)
            yield self._refusal(system, f"{type(error).__name__}: {error}", number)
        self._used_s[system.name] = self._used_s.get(system.name, 0.0) + time.monotonic() - began

    def _modes(self, system: System, number: int, is_fastest: bool) -> tuple[str, ...]:
        """Return the modes of a round: where it takes long, not everything end to end."""
        work = self._work
        spared = work.is_large and not (system.family in ALWAYS or is_fastest)
        if number >= work.e2e_rounds or (spared and self._speed(system.name)):
            return tuple(mode for mode in work.modes if mode != "e2e")
        return work.modes

    def _figures(self, system: System, modes: tuple[str, ...]) -> Iterator[tuple[str, Figures]]:
        if system.family == "bare":
            return iter([("drain", run_bare(self._place, system, self._work))])
        return visit(self._place, system, self._work, modes, self._limits.run_s)

    def _note(self, system: System, mode: str, number: int, figures: Figures) -> Run:
        speed = figures["jobs_s"] or 0.0
        if mode == "drain":
            self._speeds[system.name, self._work.kind] = speed
        if figures["timed_out"]:
            self._give_up(system)
        told = f"{speed:,.0f} jobs/s" + (", not done in time" if figures["timed_out"] else "")
        self._tell(system, number, f"{mode}: {told}")
        return Run(system.name, self._work.name, mode, number, figures)

    def _refusal(self, system: System, reason: str, number: int) -> Run:
        self._tell(system, number, reason)
        return Run(system.name, self._work.name, "", number, {}, reason)

    def _give_up(self, system: System) -> None:
        self._broken.add(system.name)
        if system.tasks:
            self._place.drop_client(system)

    def _tell(self, system: System, number: int, what: str) -> None:
        self._say(f"{self._work.name} {number + 1}/{self._limits.rounds} {system.name}: {what}")


def run_bare(place: Place, system: System, work: Work) -> Figures:
    """Return what bare processes need for the same bodies."""
    command = [sys.executable, str(TASKS / "bare.py"), str(system.children)]
    environment = {"BENCHMARK_MARKS": str(place.marks.folder), "PYTHONPATH": str(TASKS)}
    done = subprocess.run(
        [*command, str(work.count), work.body],
        env=environment,
        capture_output=True,
        check=True,
        timeout=600,
    )
    seconds = float(done.stdout)
    return {"timed_out": 0.0, "seconds": seconds, "jobs_s": work.count / seconds}
