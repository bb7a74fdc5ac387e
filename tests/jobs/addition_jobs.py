"""Jobs that find out, while they run, what else has to run before the last one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from flowq.runtime.futures import current_future
from flowq.runtime.queue import Queue


def visit(log: str, depth: int, width: int) -> int:
    """Add `width` children of the same kind to the future job, `depth` levels deep."""
    _note(log, f"visit {depth}")
    if depth:
        future = current_future()
        queue = Queue(connection=future.connection)
        for _ in range(width):
            queue.enqueue(visit, log, depth - 1, width, blocks=future)
    return depth


def add_then_die_once(log: str, marker: str, children: int) -> str:
    """Add children; the first time, die without a word after the last addition."""
    future = current_future()
    queue = Queue(connection=future.connection)
    for number in range(children):
        queue.enqueue(_note, log, f"child {number}", blocks=future)
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "added"


def add_then_fail_once(log: str, marker: str, children: int) -> str:
    """The same, with an exception."""
    future = current_future()
    queue = Queue(connection=future.connection)
    for number in range(children):
        queue.enqueue(_note, log, f"child {number}", blocks=future)
    if not Path(marker).exists():
        Path(marker).touch()
        raise ConnectionError("the first time always fails")
    return "added"


def add_by_name(log: str, name: str) -> None:
    """Add a child to one of several future jobs, by its name in the run."""
    future = current_future(name)
    Queue(connection=future.connection).enqueue(_note, log, f"for {name}", blocks=future)


def ask_without_name() -> None:
    current_future()


def finish(log: str) -> int:
    """The last job: how many lines were there when it started."""
    lines = Path(log).read_text().splitlines()
    _note(log, "last")
    return len(lines)


def _note(log: str, text: str) -> None:
    with Path(log).open("a") as file:
        file.write(f"{text}\n")


def add_nested_that_fails(log: str) -> None:
    """Add a future job with a blocker that fails, and release it."""
    future = current_future()
    queue = Queue(connection=future.connection)
    inner = queue.enqueue(_note, log, "inner", deferred=True, blocks=future)
    queue.enqueue("math.sqrt", "no number", blocks=inner)
    inner.release()
