"""The chaos test as a command: `python -m tests.chaos --graphs 300`."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests import JOBS_FOLDER

sys.path.insert(0, JOBS_FOLDER)

from tests.chaos.director import CLIENTS, Director
from tests.chaos.judge import Fault, judge
from tests.chaos.play import clear, collect, play
from tests.chaos.report import render, tell_stuck


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    add = parser.add_argument
    add("--graphs", type=int, default=300, help="how many are submitted at least")
    add("--minutes", type=float, default=8.0, help="how long their submission takes, about")
    add("--seed", type=int, help="of an earlier run, to see the same graphs")
    add("--kill-every", type=float, default=1.0, metavar="SECONDS", help="on average")
    add("--folder", type=Path, help="where everything is kept; a new one by default")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Play, judge, print; 0 when every promise was kept."""
    options = parse(words)
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    folder = options.folder or Path(tempfile.mkdtemp(prefix="flowq-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}, folder {folder}", flush=True)
    os.environ["FLOWQ_STATE"] = str(folder.resolve() / "state")
    interval_s = options.minutes * 60 * CLIENTS / options.graphs
    director = Director(folder, seed, interval_s, options.kill_every)
    try:
        faults = put_on(director, options.graphs)
    finally:
        director.drop_curtain()
    if faults:
        print(f"FAILED: {len(faults)} faults; seed {seed}; everything is in {folder}")
        return 1
    if not options.folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def put_on(director: Director, graphs: int) -> list[Fault]:
    """Play, judge and print; return the faults."""
    began = time.monotonic()
    has_ended = play(director, graphs)
    played_s = time.monotonic() - began
    evidence = collect(director)
    evidence.save(director.folder / "evidence.json")
    stuck = [] if has_ended else tell_stuck(director, evidence)
    director.end_workers()
    faults, repeats = judge(evidence)
    if has_ended:
        faults += [Fault("redis", f"{key} left") for key in clear(director, evidence)]
    print(render(evidence, faults, repeats, played_s), *stuck, sep="\n", flush=True)
    return faults


if __name__ == "__main__":
    sys.exit(main())
