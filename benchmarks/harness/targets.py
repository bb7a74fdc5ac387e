"""What we want to be true, beside what a run says: one line for each claim that it measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.catalogue import SYSTEMS
from harness.report import ratios, show_spread
from harness.rounds import Run


@dataclass(frozen=True, slots=True)
class Ratio:
    """So many times as fast as the fastest of some, in one mode of one work; or, with a figure that
    is a time, so many times as short as the shortest of some."""

    wanted: float
    system: str
    work: str
    rivals: tuple[str, ...]
    what: str
    mode: str = "drain"
    time: str = ""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """At most so much of one figure."""

    wanted: float
    system: str
    work: str
    figure: str
    what: str
    mode: str = "drain"


def _family(name: str, children: int = 1) -> tuple[str, ...]:
    return tuple(s.name for s in SYSTEMS if s.family == name and s.children == children)


PYTHON, BULLMQ, SANDBOX = _family("python"), _family("bullmq"), ("bullmq-sandbox",)
TARGETS: tuple[Ratio | Ceiling, ...] = (
    Ratio(10, "flowq", "W1:10000", PYTHON, "the fastest Python peer"),
    Ratio(2, "flowq", "W1:10000", BULLMQ, "BullMQ in its process"),
    Ratio(10, "flowq", "W1:10000", SANDBOX, "BullMQ in a sandbox"),
    Ratio(100, "flowq", "W1:1000", ("rq-fork",), "RQ's fork worker"),
    Ratio(1, "flowq-2", "W1:10000", ("flowq",), "one child"),
    Ratio(1.6, "flowq-2", "W4b:1000", ("flowq",), "one child"),
    Ratio(2, "flowq-unbatched", "W1:10000", PYTHON, "the fastest Python peer"),
    Ratio(3, "flowq-unbatched", "W1:10000", SANDBOX, "BullMQ in a sandbox"),
    Ratio(0.9, "flowq-mp", "W1:10000", ("flowq",), "a forked child"),
    Ratio(1, "flowq-fork", "W1:1000", ("rq-fork",), "RQ's fork worker"),
    Ratio(0.97, "flowq-2", "W4:1000", ("bare-2",), "two bare processes"),
    Ratio(1, "flowq", "W1:10000", BULLMQ, "BullMQ's time to declare", "e2e", "declare_s"),
    Ceiling(1, "flowq", "W1:10000", "join_ms", "ms from the last blocker to the join"),
    Ceiling(20, "flowq", "W1:10000", "commands", "commands for each job", "e2e"),
    Ceiling(0.3, "flowq", "W1:10000", "reads", "round trips for each job, batched"),
    Ceiling(1.1, "flowq-unbatched", "W1:10000", "reads", "round trips for each job, unbatched"),
    Ceiling(1_049, "flowq", "W1:10000", "pending_bytes", "bytes for each pending job"),
)


def target_lines(runs: Sequence[Run]) -> list[str]:
    """Return a line for each target that the runs can say something about."""
    lines = []
    for target in TARGETS:
        mine = [run for run in runs if run.work == target.work and run.figures]
        say = _say_ratio(target, mine) if isinstance(target, Ratio) else _say_ceiling(target, mine)
        if say:
            lines.append(f"target: {target.work} {target.mode}, {target.system}: {say}")
    return lines


def _say_ratio(target: Ratio, runs: list[Run]) -> str:
    pairs_by_rival = {
        rival: pairs for rival in target.rivals if (pairs := _pairs(target, rival, runs))
    }
    if not pairs_by_rival:
        return ""
    rival = min(pairs_by_rival, key=lambda name: statistics.median(pairs_by_rival[name]))
    pairs = pairs_by_rival[rival]
    verdict = _verdict(statistics.median(pairs) >= target.wanted)
    wanted = f"wanted {target.wanted:g}"
    return f"{show_spread(pairs, 2)} × {target.what} ({rival}), {wanted}: {verdict}"


def _pairs(target: Ratio, rival: str, runs: list[Run]) -> list[float]:
    if target.time:
        return ratios(rival, target.system, target.mode, runs, target.time)
    return ratios(target.system, rival, target.mode, runs)


def _say_ceiling(target: Ceiling, runs: list[Run]) -> str:
    values = [
        value
        for run in runs
        if run.system == target.system and run.mode == target.mode
        if (value := run.figures.get(target.figure)) is not None
    ]
    if not values:
        return ""
    verdict = _verdict(statistics.median(values) <= target.wanted)
    return f"{show_spread(values, 2)} {target.what}, wanted at most {target.wanted:g}: {verdict}"


def _verdict(met: bool) -> str:
    return "met" if met else "NOT met"
