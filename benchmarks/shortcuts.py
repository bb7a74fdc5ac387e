"""What shortcuts on the way of a job are worth: each one beside the plain form of the same.

    python benchmarks/shortcuts.py [--repeat 100] [--number 1000] [--job-us 157]

Each line says what the plain form and the shortcut take for one job, in microseconds (the minimum
of the repetitions), and what the difference is in parts of a whole job: `--job-us`, what `peers.py`
measures for W1 when it drains a queue with one worker. The first line says what an empty job takes
in a warm child, from its task to its end. No server is needed.

What is worth 3 % of a whole job stays in flowq, in one function with its figure beside it. The rest
has the plain form.
"""

from __future__ import annotations

import _signal
import argparse
import os
import signal
import threading
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

from redis import Redis

from flowq.runtime.job import Job
from flowq.workers.address import address_of
from flowq.workers.child.environment import JobVariables
from flowq.workers.child.execute import Executor
from flowq.workers.child_messages import read_kept, write_end
from flowq.workers.messages import End, Settings, Task

EARLIER_JOBS = 500_000
"""After so many jobs of one child its environment variable is set: glibc keeps every value."""


class Shortcut(NamedTuple):
    """Two forms of the same, and how often one job needs it."""

    name: str
    plain: Callable[[], object]
    short: Callable[[], object]
    times: int


def make_id() -> str:
    """Return what `str(uuid4())` does."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def list_shortcuts(calls: int) -> list[Shortcut]:
    """Return what is compared; each form will be called so many times."""
    task = Task(1, "id", "execution", "default", [b"data", b"x"])
    end = End(1, "finished")
    variables = JobVariables()
    for _ in range(EARLIER_JOBS):
        os.environ["RQ_JOB_ID"] = make_id()
    ids = map(str, [make_id() for _ in range(calls)] * 2)  # for each form each value is new
    return [
        Shortcut(
            "environment: one string, written over",
            lambda: os.environ.__setitem__("RQ_JOB_ID", next(ids)),
            lambda: variables.set(next(ids), {}),
            1,
        ),
        Shortcut(
            "threading._active without the lock",
            threading.active_count,
            lambda: len(threading._active) + len(threading._limbo),  # type: ignore[attr-defined]
            2,
        ),
        Shortcut(
            "_signal.getsignal without the enum",
            partial(signal.getsignal, signal.SIGALRM),
            partial(_signal.getsignal, int(signal.SIGALRM)),
            2,
        ),
        Shortcut("uuid4 by hand", lambda: str(uuid4()), make_id, 1),
        Shortcut(
            "tuple.__new__ for a Task",
            partial(Task._make, task),
            partial(tuple.__new__, Task, task),
            1,
        ),
        Shortcut(
            "tuple.__new__ for an End", partial(End._make, end), partial(tuple.__new__, End, end), 1
        ),
    ]


def make_empty_job() -> Callable[[], object]:
    """Return what executes an empty job in this process, as a warm child does."""
    connection = Redis()  # nothing connects
    executor = Executor(Settings("benchmark", address_of(connection), allowed=None))
    job = Job.create(abs, [1], connection=connection, id="job", origin="default", timeout=180)
    raw = {**job.to_dict(include_meta=True), "status": "queued"}
    flat = [
        part if isinstance(part, bytes) else str(part).encode()
        for pair in raw.items()
        for part in pair
    ]
    task: Any = Task(1, "job", "execution", "default", flat)

    def execute() -> End:
        return read_kept(write_end(executor.execute(task, lambda _: None)))[0]

    assert execute().status == "finished", execute().error
    return execute


def measure(function: Callable[[], object], number: int, repeat: int) -> float:
    """Return how many microseconds a call takes at least."""
    return min(timeit.repeat(function, number=number, repeat=repeat)) / number * 1e6


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=100)
    parser.add_argument("--number", type=int, default=1_000)
    parser.add_argument("--job-us", type=float, default=157.0)
    options = parser.parse_args()
    of_job = partial(measure, repeat=options.repeat)
    child_us = of_job(make_empty_job(), number=max(1, options.number // 10))
    print(f"an empty job in a warm child: {child_us:.1f} µs")
    print(f"{'shortcut':40} {'plain':>7} {'short':>7} {'share':>7}")
    for name, plain, short, times in list_shortcuts(options.number * options.repeat):
        plain_us = times * of_job(plain, number=options.number)
        short_us = times * of_job(short, number=options.number)
        share = (plain_us - short_us) / options.job_us
        print(f"{name:40} {plain_us:7.2f} {short_us:7.2f} {share:7.1%}")


if __name__ == "__main__":
    main()
