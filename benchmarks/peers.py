"""flowq and its peers on the same work in the same run, in one table.

    python benchmarks/peers.py [--systems NAME …] [--work W1:1000,W1:10000,W2,W4] [--pairs 5]

One private server serves all, over TCP. In each round every system has its turn, with a worker
that is started for it; ratios are taken within a round. README.md says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from floor import Floor, floor_lines, read_floor
from harness.catalogue import SYSTEMS, System, Work, choose, find_work
from harness.environments import default_folder, find_version, prepare
from harness.place import open_place
from harness.report import as_markdown, as_text, make_sections
from harness.rounds import Limits, Run, run_rounds
from harness.targets import target_lines

WORK = "W1:1000,W1:10000,W2,W3,W4,W4b,W5"
BEGAN = time.monotonic()
T = TypeVar("T")


def main() -> None:
    """Measure what the command line asks for, and print one table."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running
    options = read_options()
    programs, systems, left_out = prepare_all(options.systems or list(SYSTEMS), options.setup)
    plan = [(work, choose_for(work, systems, options)) for work in options.work]
    runs: list[Run] = []
    with open_place(programs) as place:
        about = describe(programs, place.server.name)
        floor = read_floor(place.server.port, options.floor_repeat)
        try:
            for run in run_rounds(place, plan, limits_of(options), say):
                runs.append(run)
                save(options.json, about, runs, floor)
        except KeyboardInterrupt:
            say("interrupted; what was measured until now:")
    show(options, runs, floor, [about, *left_out])


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--systems", nargs="+", type=pattern, metavar="NAME", help="names, or patterns: 'flowq*'")
    add("--work", type=works, default=WORK, help=f"kinds, with counts; {WORK}")
    add("--pairs", type=int, default=5, metavar="N", help="rounds (5)")
    add("--limit", type=float, default=60.0, metavar="S", help="seconds for one run (60)")
    add(
        "--budget",
        type=float,
        default=12.0,
        metavar="S",
        help="a peer that is not the fastest of its family is not run again once a work has taken "
        "it so many seconds (12)",
    )
    add("--setup", type=Path, default=default_folder(), metavar="DIR", help="for the peers' files")
    add("--floor-repeat", type=int, default=5, metavar="N", help="0: do not measure the floor")
    add("--markdown", action="store_true", help="print the table in markdown")
    add("--json", type=Path, metavar="FILE", help="write each run's figures, as they come")
    options = parser.parse_args()
    if options.systems:
        options.systems = list(dict.fromkeys(s for chosen in options.systems for s in chosen))
    return options


def pattern(text: str) -> list[System]:
    """Return the systems that a word of the command line means."""
    return _or_explain(choose, text)


def works(text: str) -> list[Work]:
    """Return the works that a list on the command line means."""
    return [_or_explain(find_work, word) for word in text.split(",")]


def _or_explain(read: Callable[[str], T], text: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def prepare_all(
    systems: list[System], folder: Path
) -> tuple[dict[str, Path], list[System], list[str]]:
    """Return each environment's programs, the systems that have one, and why the others not."""
    programs: dict[str, Path] = {}
    left_out = []
    for name in dict.fromkeys(system.environment for system in systems):
        try:
            programs[name] = prepare(name, folder, say)
        except (RuntimeError, OSError) as error:
            left_out.append(f"left out: {name}: {error}")
            say(left_out[-1])
    return programs, [system for system in systems if system.environment in programs], left_out


def choose_for(work: Work, systems: list[System], options: argparse.Namespace) -> list[System]:
    """Return the systems that do a work: those asked for, or those that are meant for it."""
    if options.systems:
        return [s for s in systems if s.tasks or work.body.startswith("spin")]
    return [s for s in systems if {work.kind, work.name} & set(s.works.split())]


def limits_of(options: argparse.Namespace) -> Limits:
    """Return how often and how long."""
    return Limits(options.pairs, options.limit, options.budget)


def say(line: str) -> None:
    """Tell what is going on; the table alone goes to the standard output."""
    elapsed_s = int(time.monotonic() - BEGAN)
    print(f"[{elapsed_s // 60:02d}:{elapsed_s % 60:02d}] {line}", file=sys.stderr, flush=True)


def describe(programs: dict[str, Path], server: str) -> str:
    """Return what was measured, and on what."""
    versions = ", ".join(find_version(name, folder) for name, folder in programs.items())
    machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    return f"versions: {versions}; {server}; {machine}"


def save(path: Path | None, about: str, runs: list[Run], floor: list[Floor]) -> None:
    """Write everything that is known, so that an end in between loses nothing."""
    if path is not None:
        floors = [each._asdict() for each in floor]
        values = {"about": about, "floor": floors, "runs": [run.as_json() for run in runs]}
        path.write_text(json.dumps(values, indent=1))


def show(
    options: argparse.Namespace, runs: list[Run], floor: list[Floor], about: list[str]
) -> None:
    """Print the table, what it says about our targets, and the floor."""
    sections = make_sections(runs, options.work)
    for line in as_markdown(sections) if options.markdown else as_text(sections):
        print(line)
    for lines in (target_lines(runs), floor_lines(floor), about):
        if lines:
            print()
        for line in lines:
            print(f"- {line}" if options.markdown else line)


if __name__ == "__main__":
    main()
