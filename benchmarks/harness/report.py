"""Runs → one table, for a terminal or as markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.catalogue import SYSTEMS, Work
from harness.rounds import Run

MODES = ("drain", "e2e")
NOTHING = ""
HEADER = [
    "system",
    "mode",
    "runs",
    "seconds",
    "jobs/s",
    "flowq ×",
    "unbatched ×",
    "of bare",
    "join ms",
    "commands",
    "reads",
    "declare s",
    "server ms",
    "worker ms",
    "B pending",
]
CHILDREN = {system.name: system.children for system in SYSTEMS}


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one work, and what had nothing to show."""

    title: str
    rows: list[list[str]]
    notes: list[str]


def make_sections(runs: Sequence[Run], works: Sequence[Work]) -> list[Section]:
    """Return the table's parts, in the order of the works."""
    return [_section(work, [run for run in runs if run.work == work.name]) for work in works]


def _section(work: Work, runs: list[Run]) -> Section:
    names = list(dict.fromkeys(system.name for system in SYSTEMS))
    shown = [run for run in runs if run.figures]
    rows = [row for name in names for mode in MODES if (row := _row(name, mode, shown))]
    notes = [f"{run.system}: {run.trouble}" for run in runs if run.trouble]
    notes += [f"{run.system}, {run.mode}: not done in time" for run in shown if _is_late(run)]
    return Section(f"{work.name}, {work.title.format(f'{work.count:,}')}", rows, notes)


def _is_late(run: Run) -> bool:
    return bool(run.figures.get("timed_out"))


def _row(name: str, mode: str, runs: list[Run]) -> list[str]:
    mine = [run for run in runs if run.system == name and run.mode == mode]
    if not mine:
        return []

    def median(key: str, digits: int) -> str:
        return show_median([run.figures.get(key) for run in mine], digits)

    late = ">" if any(map(_is_late, mine)) else ""
    reference = "flowq-2" if CHILDREN[name] == 2 and name != "flowq-2" else "flowq"
    return [
        name,
        mode,
        str(len(mine)),
        late + median("seconds", 3),
        show_spread([run.figures["jobs_s"] for run in mine], 0),
        _times(reference, name, mode, runs),
        _times("flowq-unbatched", name, mode, runs),
        _share_of_bare(name, mode, runs),
        median("join_ms", 2),
        median("commands", 1),
        median("reads", 2),
        median("declare_s", 3),
        median("server_ms", 3),
        median("worker_ms", 3),
        median("pending_bytes", 0),
    ]


# --- ratios ---


def ratios(
    above: str, below: str, mode: str, runs: Sequence[Run], figure: str = "jobs_s"
) -> list[float]:
    """Return one system's figure divided by another's, for each round that has both."""
    known = {(run.system, run.round): run.figures.get(figure) for run in runs if run.mode == mode}
    pairs = [
        (value, known.get((below, number)))
        for (name, number), value in known.items()
        if name == above
    ]
    return [first / second for first, second in pairs if first and second]


def _times(above: str, name: str, mode: str, runs: list[Run]) -> str:
    if above == name or name.startswith("bare"):
        return NOTHING
    if CHILDREN[name] != CHILDREN[above] and name != "flowq-2":
        return NOTHING
    return show_spread(ratios(above, name, mode, runs), 2)


def _share_of_bare(name: str, mode: str, runs: list[Run]) -> str:
    bare = f"bare-{CHILDREN[name]}"
    shares = [] if name == bare else ratios(name, bare, mode, runs)
    return f"{statistics.median(shares):.1%}" if shares else NOTHING


# --- showing ---


def show_median(values: Sequence[float | None], digits: int) -> str:
    """Return the median of what is there."""
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):,.{digits}f}" if known else NOTHING


def show_spread(values: Sequence[float | None], digits: int) -> str:
    """Return median, minimum and maximum of what is there."""
    known = sorted(value for value in values if value is not None)
    if len(known) < 2:
        return show_median(known, digits)
    low, high = f"{known[0]:,.{digits}f}", f"{known[-1]:,.{digits}f}"
    return f"{show_median(known, digits)} ({low}–{high})"


def as_text(sections: Sequence[Section]) -> Iterator[str]:
    """Yield the lines of the table for a terminal."""
    everything = [HEADER, *(row for section in sections for row in section.rows)]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    align: list[Callable[[str, int], str]] = [str.ljust, str.ljust, *[str.rjust] * 13]

    def line(cells: list[str]) -> str:
        parts = zip(align, cells, widths, strict=True)
        return "  ".join(place(cell, width) for place, cell, width in parts).rstrip()

    yield line(HEADER)
    for section in sections:
        yield f"--- {section.title}"
        yield from map(line, section.rows)
        yield from (f"    {note}" for note in section.notes)


def as_markdown(sections: Sequence[Section]) -> Iterator[str]:
    """Yield the lines of the table in markdown."""
    yield f"| {' | '.join(HEADER)} |"
    yield "|---|---|" + "---:|" * 13
    for section in sections:
        yield f"| **{section.title}** |" + " |" * 14
        yield from (f"| {' | '.join(row)} |" for row in section.rows)
    yield ""
    for section in sections:
        yield from (f"- {section.title}: {note}" for note in section.notes)
