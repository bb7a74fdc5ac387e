"""What the jobs do: the same small bodies everywhere, and a line in a file that says when.

Light to import, because some workers import it again for each job. A mark is one write of eight
bytes with O_APPEND, a few microseconds: `time.time()` at the end of a job, or at the start of a
join. The folder of the files is BENCHMARK_MARKS.
"""

import os
import struct
import time

_file_by_name: dict[str, int] = {}


def nothing() -> None:
    """Do nothing."""
    _note("ends")


def spin(ms: float) -> None:
    """Use the processor for so many milliseconds of its time, however long that takes."""
    until = time.thread_time() + ms / 1000
    while time.thread_time() < until:
        pass
    _note("ends")


def take(_payload: str) -> None:
    """Take an argument."""
    _note("ends")


def join() -> None:
    """Be the job that waits for the others."""
    _note("joins")


def _note(name: str) -> None:
    at = time.time()
    file = _file_by_name.get(name)
    if file is None:
        path = os.path.join(os.environ["BENCHMARK_MARKS"], name)  # noqa: PTH118 - light to import
        file = _file_by_name[name] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, struct.pack("<d", at))
