"""The scratch files of a worker's children, as the supervisor sees them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flowq.texts import show_bytes
from flowq.workers.cell import LOCK_S, Cell
from flowq.workers.output import (
    ALL_BYTES,
    BINARY,
    HALF_BYTES,
    RUNAWAY_BYTES,
    TAIL_BYTES,
    append_log,
    read_at,
    read_bounded,
    scratch_path,
)

BRIEFLY_S = 0.01


class Scratch:
    """What the children of one supervisor have written; nothing without a folder for it."""

    def __init__(self, folder: str | None, log_folder: str | None) -> None:
        self._folder = folder
        self._log_folder = log_folder

    def pass_on(self, pid: int, cell: Cell, number: int, job_id: str) -> None:
        """Add what a running job has written so far to its log; the first half of what is kept.

        What comes last is known at its end only, and the child adds that.
        """
        if self._folder is None or self._log_folder is None:
            return  # where the worker itself prints a slow reader could stop us
        with suppress(OSError), cell.held(BRIEFLY_S) as is_held:
            if is_held and cell.begun == number:
                self._pass_on(scratch_path(self._folder, pid), cell, self._log_folder, job_id)

    def _pass_on(self, path: Path, cell: Cell, log_folder: str, job_id: str) -> None:
        with _opened(path, os.O_RDONLY) as descriptor:
            done = cell.logged_bytes
            text = read_at(descriptor, done, HALF_BYTES - done)
        cell.logged_bytes = done + len(text)
        append_log(log_folder, job_id, text)

    def take(self, pid: int, cell: Cell, job_id: str) -> str:
        """Move what a dead child has written to the log of its job; return the end of it."""
        if self._folder is None:
            return ""
        try:
            with (
                cell.held(LOCK_S),
                _opened(scratch_path(self._folder, pid), os.O_RDWR) as descriptor,
            ):
                return self._take(descriptor, cell, job_id)
        except OSError:
            return ""

    def _take(self, descriptor: int, cell: Cell, job_id: str) -> str:
        size = os.fstat(descriptor).st_size
        tail = read_at(descriptor, max(0, size - TAIL_BYTES), TAIL_BYTES)
        text = read_bounded(descriptor, cell.logged_bytes)
        cell.logged_bytes = ALL_BYTES
        if self._log_folder:
            with suppress(OSError):
                append_log(self._log_folder, job_id, text)
        os.ftruncate(descriptor, 0)
        cell.logged_bytes = 0
        return show_bytes(tail)

    def trim(self, pid: int) -> None:
        """Cut the output of a job that prints without end."""
        if self._folder is None:
            return
        path = scratch_path(self._folder, pid)
        with suppress(OSError):
            if path.stat().st_size > RUNAWAY_BYTES:
                os.truncate(path, HALF_BYTES)

    def drop(self, pid: int) -> None:
        """Remove the file of a child that is gone."""
        if self._folder is not None:
            with suppress(OSError):  # on Windows, while something that the job started has it open
                scratch_path(self._folder, pid).unlink()


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | BINARY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
