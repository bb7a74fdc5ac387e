"""What one blocker costs when there are many of them: it should be the same.

    python benchmarks/growth.py [--sizes 1000 10000 100000] [--pairs 3] [--depends-on 10000]

Through flowq's own worker (`blockers.py` ends jobs through RQ's). For each size a join and so many
blockers are declared, in batches, then released and run by one warm child. Per blocker: commands on
the server, counted inside scripts too, and microseconds in them (INFO commandstats), and the bytes
that a pending job takes. Beside those the same graph with RQ's `depends_on`, pending only, up to
`--depends-on` jobs. Sizes are interleaved; medians, and in brackets the ratio to the first size.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from harness.catalogue import choose, find_work
from harness.client import Trouble
from harness.environments import default_folder, prepare
from harness.place import Place, open_place
from harness.server import PrivateServer
from harness.visit import Attempt
from redis import Redis
from rq import Queue

LIMIT_S = 600.0
WARM_UP = 500
"""So many go first, uncounted: what a server allocates once is not for the first size."""

SCRIPTS = ("eval", "evalsha", "fcall")
Rows = dict[tuple[str, int], list[float]]


def main() -> None:
    """Measure what the command line asks for, and print one table."""
    options = read_options()
    rows: Rows = {}
    with open_place({"flowq": prepare("flowq", default_folder())}) as place:
        measure(place, WARM_UP)
        for _ in range(options.pairs):
            for size in options.sizes:
                for name, value in measure(place, size).items():
                    rows.setdefault((name, size), []).append(value)
                if size <= options.depends_on:
                    pending = measure_depends_on(place.server, size)
                    rows.setdefault(("B pending, depends_on", size), []).append(pending)
    report(rows, options.sizes)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--depends-on", type=int, default=10_000, help="its WATCH is quadratic")
    return parser.parse_args()


def measure(place: Place, size: int) -> dict[str, float]:
    """Return flowq's figures for one size, per blocker."""
    (system,) = choose("flowq")
    place.server.empty()
    place.marks.clear()
    attempt = Attempt(place, system, find_work(f"W1:{size}"), LIMIT_S)
    connection = place.server.connection
    with place.worker_of(system) as attempt.worker:
        attempt.warm_up()
        connection.config_resetstat()
        declared = attempt.declare_held()
        declaring = read_stats(connection, size)
        connection.config_resetstat()
        figures = attempt.let_go(declared)
        running = read_stats(connection, size)
    if figures["timed_out"]:
        raise Trouble(f"{size} blockers have not run within {LIMIT_S:.0f} s")
    return {
        "commands, declare": declaring[0],
        "commands, release and run": running[0],
        "server µs, declare": declaring[1],
        "server µs, release and run": running[1],
        "B pending": declared.pending_bytes,
    }


def read_stats(connection: Redis, size: int) -> tuple[float, float]:
    """Return how many commands the server has done, and microseconds in them, per blocker."""
    stats: Any = connection.info("commandstats")
    calls = sum(each["calls"] for each in stats.values())
    # The time of a script includes its commands; what is not in scripts hardly counts here.
    used = sum(stats.get(f"cmdstat_{name}", {}).get("usec", 0) for name in SCRIPTS)
    return calls / size, used / size


def measure_depends_on(server: PrivateServer, size: int) -> float:
    """Return the bytes of a pending job of the same graph, in RQ's way."""
    server.empty()
    queue = Queue(connection=server.connection)
    before = server.measure_data()
    jobs = queue.enqueue_many([Queue.prepare_data("mark.nothing") for _ in range(size)])
    queue.enqueue("mark.join", depends_on=jobs)
    return (server.measure_data() - before) / (size + 1)


def report(rows: Rows, sizes: list[int]) -> None:
    """Print a line for each figure, a column for each size."""
    print(f"{'per blocker':28}" + "".join(f"{size:>20,}" for size in sizes))
    for name in dict.fromkeys(name for name, _ in rows):
        medians = [statistics.median(rows.get((name, size), [0.0])) for size in sizes]
        cells = [f"{value:,.1f} ({value / medians[0]:.2f})" if value else "" for value in medians]
        print(f"{name:28}" + "".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    main()
