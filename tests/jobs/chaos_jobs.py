"""What the jobs of the chaos test do: tell a file, wait a little, add others, fail as planned."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence

from rq.job import Retry

from flowq.errors import DoNotRetry, RetryLater
from flowq.runtime.futures import current_future, current_job
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue

LOG_VARIABLE = "FLOWQ_CHAOS_LOG"
LATER_S = 0.4


class PlannedFailure(Exception):
    """The graph wants this attempt to fail."""


class PlannedRefusal(DoNotRetry):
    """The graph wants this attempt to be the last one."""


class PlannedDelay(RetryLater):
    """The graph wants another attempt, and not at once."""

    def __init__(self) -> None:
        super().__init__(LATER_S)


RAISED: Mapping[str, type[Exception]] = {
    "failure": PlannedFailure,
    "refusal": PlannedRefusal,
    "delay": PlannedDelay,
}


def work(
    seconds: float = 0.0,
    fails: int = 0,
    retries: int = 0,
    adds: Sequence[int] = (0, 0),
    adds_to: str = "",
    raises: str = "failure",
    fails_rounds: int = 0,
) -> str:
    """Be one job of a graph; every start and every end is one line, written at once."""
    job = current_job()
    assert job is not None
    note("start", job)
    try:
        _add_children(seconds, adds, adds_to)
        time.sleep(seconds)
        if job.generation < fails_rounds or retries - (job.retries_left or 0) < fails:
            raise RAISED[raises]
    except BaseException as error:
        note("raise", job, f"{type(error).__name__}: {error}")
        raise
    note("end", job)
    return job.id


def _add_children(seconds: float, adds: Sequence[int], adds_to: str) -> None:
    depth, width = adds
    if not depth:
        return
    future = current_future(adds_to)
    queue = Queue("chaos", connection=future.connection)
    for _ in range(width):
        queue.enqueue(
            work,
            seconds,
            retries=3,
            adds=(depth - 1, width),
            adds_to=adds_to,
            blocks=future,
            retry=Retry(3),
        )


def note(what: str, job: Job, text: str = "") -> None:
    """Append a line that is whole, whoever else writes and whoever dies."""
    line = {
        "what": what,
        "job": job.id,
        "generation": job.generation,
        "pid": os.getpid(),
        "parent": os.getppid(),
        "worker": os.environ.get("RQ_WORKER_ID", ""),
        "at": time.monotonic(),
        "text": text,
    }
    append(os.environ[LOG_VARIABLE], line)


def append(path: str, line: dict[str, object]) -> None:
    """Append one line to a file of lines, with one write."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
    finally:
        os.close(file)
