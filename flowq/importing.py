"""Refuse to enqueue jobs and submit runs while a worker imports the module of a job.

The jobs that are enqueued so are executed by workers, which import the module and enqueue them
again, without end. `flowq.own_script` refuses most scripts that do this before the first job; what
is here stops all others, whichever module they are and whichever thread submits.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType
from typing import NamedTuple
from weakref import WeakSet

from flowq.errors import UsageError


class _Import(NamedTuple):
    """An import that is under way: its thread, and the threads that were there before."""

    importer: Thread
    before: frozenset[Thread]


_under_way: list[_Import] = []
_started: WeakSet[Thread] = WeakSet()
"""Threads that such an import has started, and that outlive it."""


@contextmanager
def importing() -> Iterator[None]:
    """For a block in which a worker imports modules of jobs, before it calls their functions."""
    this = _Import(threading.current_thread(), frozenset(threading.enumerate()))
    _under_way.append(this)
    try:
        yield
    finally:
        _under_way.remove(this)
        _started.update(each for each in threading.enumerate() if each not in this.before)


def refuse_while_importing() -> None:
    """Refuse to enqueue or submit in an import of a worker, or in a thread that one has started.

    Errors: UsageError.
    """
    if not (_under_way or _started):  # almost always
        return
    current = threading.current_thread()
    for importer, before in _under_way:
        if current is importer or current not in before:
            raise UsageError(_explain(_find_line(importer)))
    if current in _started:
        raise UsageError(
            f"the thread {current.name} was started when a worker imported a module of jobs, so "
            "what it enqueues or submits may be done again by each worker: start it under "
            '`if __name__ == "__main__":`, or in the function of a job'
        )


def _explain(at: str) -> str:
    return (
        f"a worker imports this module{at} to find the functions of jobs, so each of its jobs "
        "would enqueue or submit again: put what submits runs and enqueues jobs under "
        '`if __name__ == "__main__":`, at the end of the script'
    )


def _find_line(importer: Thread) -> str:
    """Return where the module stands that the thread imports: " (file, line n)", or nothing."""
    frame: FrameType | None = sys._current_frames().get(importer.ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            return f" ({frame.f_code.co_filename}, line {frame.f_lineno})"
        frame = frame.f_back
    return ""
