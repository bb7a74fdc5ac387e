"""What an idle worker costs, and how soon a job that it gets is started.

    python benchmarks/idle.py [--systems NAME …] [--seconds 10] [--count 200] [--setup DIR]

For each system one worker, warm, against one private server: the part of a core that the worker and
the server use while nothing happens; then jobs one by one, each after a pause of 10 to 30 ms, and
for each the time from before the call that enqueues to the start of its function.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from harness.catalogue import SYSTEMS, System, choose, find_work
from harness.client import Trouble
from harness.environments import default_folder, prepare
from harness.place import Place, open_place
from harness.processes import cpu_s
from harness.visit import START_S, Attempt

SYSTEM_NAMES = (
    *("flowq", "flowq-mp", "flowq-fork", "flowq-2"),
    *("rq-fork", "rq-simple", "celery", "dramatiq", "huey", "saq", "streaq"),
    *("bullmq", "bullmq-sandbox"),
)
PAUSE_S = 0.02
CALM_S = 1.0


def main() -> None:
    """Measure what the command line asks for, and print one table."""
    options = read_options()
    systems = [s for chosen in options.systems for s in chosen if s.tasks]
    print(f"{'':16} {'worker':>8} {'server':>8} {'start ms':>9} {'p90':>8} {'max':>8}")
    for system in dict.fromkeys(systems):
        try:
            programs = {system.environment: prepare(system.environment, options.setup)}
            with open_place(programs) as place:
                print(f"{system.name:16} {measure(place, system, options)}", flush=True)
        except (Trouble, RuntimeError, OSError) as error:
            print(f"{system.name:16} left out: {error}", flush=True)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    known = [[system] for system in SYSTEMS if system.name in SYSTEM_NAMES]
    parser.add_argument("--systems", nargs="+", type=choose, default=known, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to look at it idle")
    parser.add_argument("--count", type=int, default=200, help="how many jobs, one by one")
    parser.add_argument("--setup", type=Path, default=default_folder(), metavar="DIR")
    return parser.parse_args()


def measure(place: Place, system: System, options: argparse.Namespace) -> str:
    """Return a row of the table. Errors: Trouble."""
    attempt = Attempt(place, system, find_work("W1"), START_S)
    with place.worker_of(system) as attempt.worker:
        attempt.warm_up()
        time.sleep(CALM_S)
        shares = idle_shares(place, attempt.worker.pid, options.seconds)
        latencies = sorted(trickle(place, system, options.count))
    late = statistics.quantiles(latencies, n=10)[-1] if len(latencies) > 1 else latencies[0]
    return " ".join(
        [
            *(f"{share:>8.2%}" for share in shares),
            f"{statistics.median(latencies):>9.2f} {late:>8.2f} {latencies[-1]:>8.2f}",
        ]
    )


def idle_shares(place: Place, pid: int, seconds: float) -> tuple[float, float]:
    """Return which part of a core the worker's tree and the server use while nothing happens."""
    worker_s, server_s = cpu_s(pid) or 0.0, place.server.count().cpu_s
    time.sleep(seconds)
    worker = (cpu_s(pid) or 0.0) - worker_s
    return worker / seconds, (place.server.count().cpu_s - server_s) / seconds


def trickle(place: Place, system: System, count: int) -> list[float]:
    """Enqueue jobs one by one; return for each how many milliseconds it took to start."""
    place.marks.clear()
    order = {"do": "trickle", "count": count, "pause_s": PAUSE_S}
    limit_s = count * (2 * PAUSE_S) + START_S
    enqueued_at = place.client_of(system).ask(limit_s, **order)["enqueued_at"]
    deadline = time.monotonic() + limit_s
    while place.marks.count("ends") < count:
        if time.monotonic() > deadline:
            raise Trouble(f"{place.marks.count('ends')} of {count} jobs have run")
        time.sleep(0.01)
    started_at = place.marks.read("ends")
    return [(start - at) * 1e3 for start, at in zip(started_at, enqueued_at, strict=True)]


if __name__ == "__main__":
    main()
