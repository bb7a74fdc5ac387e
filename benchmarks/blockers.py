"""What one blocker costs in front of one future job, and what RQ's own `depends_on` costs.

    python benchmarks/blockers.py [--sizes 100 1000 10000] [--native-limit 1000] [--pairs 3]

Both declare the last job first in meaning: flowq enqueues it with `deferred=True` and adds N
blockers, one by one (declare) and with `enqueue_many` in hundreds, as `.map` does (batches); RQ
enqueues N jobs and then the one that depends on all of them, since it has to. Both are then ended
one by one through RQ's own success path (`Worker.handle_job_success`), without running a function,
so that what is left is the bookkeeping. Sizes are interleaved, and everything runs against one
private server in one process. Figures per blocker: commands on the server (counted inside scripts
too), their growth from the smallest size, which should stay at 1, microseconds of server time
(INFO commandstats), and wall microseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis import Redis
from rq import Queue as RQQueue
from rq import SimpleWorker
from rq.job import Job as RQJob
from rq.utils import now

from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.server import temporary

FUNCTION = "time.time"
BATCH = 100
SCRIPTS = ("eval", "evalsha", "fcall")
Figures = dict[str, list[tuple[float, float, float]]]


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--native-limit", type=int, default=1_000, help="depends_on is cubic")
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    figures: Figures = {}
    with temporary() as server:
        connection = server.connect()
        for _ in range(options.pairs):
            for size in options.sizes:
                measure(figures, f"flowq {size:>6}", connection, size, deferred)
                if size <= options.native_limit:
                    measure(figures, f"rq    {size:>6}", connection, size, native)
    report(figures)


def measure(
    figures: Figures, name: str, connection: Redis, size: int, scenario: Callable[..., None]
) -> None:
    """Run one scenario on an empty server and note what each of its phases cost."""
    connection.flushall()

    @contextmanager
    def phase(what: str) -> Iterator[None]:
        connection.config_resetstat()
        started = time.perf_counter()
        yield
        wall_us = (time.perf_counter() - started) * 1e6
        stats = connection.info("commandstats")
        calls = sum(s["calls"] for s in stats.values())
        # A script's own time includes its commands, so those are not added again.
        scripts = sum(stats.get(f"cmdstat_{c}", {}).get("usec", 0) for c in SCRIPTS)
        others = sum(s["usec"] for c, s in stats.items() if c[8:] not in SCRIPTS)
        server_us = others if not scripts else max(scripts, others)
        figures.setdefault(f"{name} {what}", []).append(
            (calls / size, server_us / size, wall_us / size)
        )

    scenario(connection, size, phase)


def deferred(connection: Redis, size: int, phase: Callable[[str], object]) -> None:
    """A future job first, then its blockers, the release, and their ends."""
    queue = Queue(connection=connection)
    future = queue.enqueue(FUNCTION, deferred=True)
    with phase("declare"):
        blockers = [queue.enqueue(FUNCTION, blocked_by=future) for _ in range(size)]
    with phase("release"):
        future.release()
    end_all(connection, queue, blockers, Job, phase)
    assert future.get_status() == "queued"
    another = queue.enqueue(FUNCTION, deferred=True)
    with phase("batches"):
        for first in range(0, size, BATCH):
            count = min(BATCH, size - first)
            queue.enqueue_many(
                queue.prepare_data(FUNCTION, blocked_by=another) for _ in range(count)
            )
    assert connection.llen(f"rq:deferred:{another.id}") == size


def native(connection: Redis, size: int, phase: Callable[[str], object]) -> None:
    """The jobs first, then the one that depends on all of them."""
    queue = RQQueue(connection=connection)
    with phase("declare"):
        blockers = [queue.enqueue(FUNCTION) for _ in range(size)]
        last = queue.enqueue(FUNCTION, depends_on=blockers)
    end_all(connection, queue, blockers, RQJob, phase)
    assert last.get_status() == "queued"


def end_all(
    connection: Redis,
    queue: RQQueue,
    jobs: list[RQJob],
    job_class: type[RQJob],
    phase: Callable[[str], object],
) -> None:
    """End jobs as RQ's worker ends them."""
    worker = SimpleWorker([queue], connection=connection, job_class=job_class)
    with phase("settle"):
        for job in jobs:
            job.started_at = job.ended_at = now()
            execution = worker.prepare_execution(job)
            worker.handle_job_success(job, queue, job.started_job_registry, execution)


def report(figures: Figures) -> None:
    """Print medians, with the growth from the smallest size to each."""
    print("per blocker, medians")
    print(f"{'':<22} {'commands':>9} {'growth':>7} {'server us':>10} {'wall us':>9}")
    smallest: dict[tuple[str, str], float] = {}
    for name, rows in sorted(figures.items(), key=lambda item: _in_order(item[0])):
        calls, server, wall = (statistics.median(column) for column in zip(*rows, strict=True))
        who, _, what = name.split()
        growth = calls / smallest.setdefault((who, what), calls)
        print(f"{name:<22} {calls:>9.1f} {growth:>7.2f} {server:>10.1f} {wall:>9.1f}")


def _in_order(name: str) -> tuple[str, str, int]:
    who, size, what = name.split()
    return who, what, int(size)


if __name__ == "__main__":
    main()
