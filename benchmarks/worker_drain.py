"""How fast one worker drains N no-op blockers and starts the join behind them.

    python benchmarks/worker_drain.py [-n 1000] [-c 1] [--repeat 3] [--rq] [mode …]

The graph is declared and the worker is warm before the clock starts, at the release; it stops when
the join starts. Modes: warm, multiprocessing, fork, and each with `-single` for one job at a time.
`--rq` runs RQ's own fork worker beside it, on the same jobs without the join. The last blocker's
end to the start of the join is the join's latency. Commands and reads are the server's own counts.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import redis
import rq

from flowq import server
from flowq.runtime.queue import Queue
from flowq.workers import start

MODES = ("warm", "multiprocessing", "fork", "warm-single", "multiprocessing-single")


def wait_for(predicate: Any) -> None:
    """Look every few milliseconds: the waiting must not take the cores from the worker."""
    while not predicate():
        time.sleep(0.005)


def measure(
    url: str, connection: redis.Redis, mode: str, count: int, children: int
) -> dict[str, float]:
    """Return the figures of one drain."""
    connection.flushall()
    queue = Queue(connection=connection)
    function = "light_jobs.nothing"
    future = queue.enqueue("light_jobs.get_time", deferred=True)
    declared_at = time.time()
    datas = [Queue.prepare_data(function, blocked_by=future) for _ in range(count)]
    for first in range(0, count, 500):
        queue.enqueue_many(datas[first : first + 500])
    declare_s = time.time() - declared_at
    way, _, single = mode.partition("-")
    worker = start(
        url=url,
        paths=[str(Path(__file__).parent)],
        mode=way,
        concurrency=children,
        batches=not single,
    )
    try:
        warm_up(queue, function, children)
        before = connection.info()
        released_at = time.time()
        future.release()
        release_s = time.time() - released_at
        wait_for(future.return_value)
        after = connection.info()
    finally:
        worker.terminate()
        worker.wait()
    last = max(connection.hget(f"rq:job:{data}", "ended_at") for data in ids_of(connection, future))
    seconds = future.return_value() - released_at
    return {
        "jobs/s": count / seconds,
        "declare s": declare_s,
        "release s": release_s,
        "join ms": (future.return_value() - parse(last)) * 1e3,
        "commands/job": delta(before, after, "total_commands_processed") / count,
        "reads/job": delta(before, after, "total_reads_processed") / count,
    }


def warm_up(queue: Queue, function: str, children: int) -> None:
    """Wait until the worker has worked."""
    jobs = [queue.enqueue(function) for _ in range(20 * children)]
    wait_for(lambda: all(job.get_status() == "finished" for job in jobs))


def ids_of(connection: redis.Redis, future: Any) -> list[str]:
    """Return the ids of the last blockers (they end last, give or take a batch)."""
    return [each.decode() for each in connection.lrange(f"rq:deferred:{future.id}", -300, -1)]


def parse(text: bytes) -> float:
    """Return an instant of RQ's in epoch seconds."""
    return float(rq.utils.utcparse(text.decode()).timestamp())


def delta(before: dict[str, Any], after: dict[str, Any], name: str) -> float:
    """Return by how much a count of the server has grown."""
    return float(after.get(name, 0) - before.get(name, 0))


def measure_rq(url: str, connection: redis.Redis, count: int) -> dict[str, float]:
    """Return the figures of RQ's fork worker, for plain jobs."""
    connection.flushall()
    queue = rq.Queue(connection=connection)
    queue.enqueue_many([rq.Queue.prepare_data("light_jobs.nothing") for _ in range(count)])
    before = connection.info()
    began = time.time()
    folder = str(Path(__file__).parent)
    command = [str(Path(sys.executable).with_name("rq")), "worker", "--burst", "--quiet"]
    subprocess.run([*command, "--url", url, "--path", folder], check=True)
    seconds = time.time() - began
    after = connection.info()
    return {
        "jobs/s": count / seconds,
        "commands/job": delta(before, after, "total_commands_processed") / count,
        "reads/job": delta(before, after, "total_reads_processed") / count,
    }


def show(name: str, runs: list[dict[str, float]]) -> None:
    """Print minimum, median and maximum of each figure."""
    cells = []
    for key in runs[0]:
        values = sorted(run[key] for run in runs)
        shown = "/".join(f"{v:.4g}" for v in (values[0], statistics.median(values), values[-1]))
        cells.append(f"{key} {shown}")
    print(f"{name:24}", "   ".join(cells), flush=True)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modes", nargs="*", default=MODES[:3])
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("-c", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rq", action="store_true")
    options = parser.parse_args()
    with server.temporary() as started:
        connection = started.connect()
        for mode in options.modes:
            runs = [
                measure(started.url, connection, mode, options.n, options.c)
                for _ in range(options.repeat)
            ]
            show(f"{mode} -c {options.c}", runs)
        if options.rq:
            count = min(options.n, 300)
            runs = [measure_rq(started.url, connection, count) for _ in range(options.repeat)]
            show("rq fork", runs)


if __name__ == "__main__":
    main()
