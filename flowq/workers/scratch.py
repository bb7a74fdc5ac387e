"""The scratch files of a worker's children, as the supervisor sees them.

A child sends its secrets before its job can print them, and the shared state says how many there
are. Output is masked on its way into a log, and stays where it is until all of them are known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flowq.runtime.masking import Mask
from flowq.texts import show_bytes
from flowq.workers.output import (
    ALL_BYTES,
    BINARY,
    HALF_BYTES,
    RUNAWAY_BYTES,
    TAIL_BYTES,
    append_log,
    read_at,
    read_bounded,
    read_masked,
    scratch_path,
)
from flowq.workers.shared_state import LOCK_S, SharedState

BRIEFLY_S = 0.01

WITHHELD = b"[its output is not kept: it may have secrets in it that are not known here]\n"


MAX_SECRETS = 8_000_000
MAX_SECRETS_COUNT = 10_000
"""How many characters, and how many secrets, are kept of one child. A child runs the code of users,
which must not fill the memory of its supervisor."""


class Secrets:
    """What the supervisor knows of the secrets of one child. Shape: `heard` is how many."""

    def __init__(self) -> None:
        self.mask = Mask()
        self.heard = 0
        self._size = 0

    def hear(self, values: list[str]) -> bool:
        """Take in some of them; False when these would be too many, and are left out.

        `heard` then stays below what the shared state says, so that the child's output is withheld.
        """
        self._size += sum(map(len, values))
        if self._size > MAX_SECRETS or self.heard + len(values) > MAX_SECRETS_COUNT:
            return False
        self.mask.add(values)
        self.heard += len(values)
        return True


class Scratch:
    """What the children of one supervisor have written; nothing without a folder for it."""

    def __init__(self, folder: str | None, log_folder: str | None) -> None:
        self._folder = folder
        self._log_folder = log_folder

    def pass_on(
        self, pid: int, shared: SharedState, number: int, job_id: str, secrets: Secrets
    ) -> None:
        """Add what a running job has written so far to its log; the first half of what is kept.

        What comes last is known at its end only, and the child adds that.
        """
        if self._folder is None or self._log_folder is None:
            return  # where the worker itself prints a slow reader could stop us
        with suppress(OSError), shared.held(BRIEFLY_S) as is_held:
            if is_held and shared.begun == number:
                with _opened(scratch_path(self._folder, pid), os.O_RDONLY) as descriptor:
                    self._pass_on(descriptor, shared, self._log_folder, job_id, secrets)

    def _pass_on(
        self, descriptor: int, shared: SharedState, log_folder: str, job_id: str, secrets: Secrets
    ) -> None:
        done = shared.logged_bytes
        text = read_at(descriptor, done, HALF_BYTES - done)
        if shared.secrets_told != secrets.heard:  # now, as it may print them once it has told them
            return
        shown, used = secrets.mask.hide_begun(text)
        shared.logged_bytes = done + used
        append_log(log_folder, job_id, shown)

    def take(self, pid: int, shared: SharedState, job_id: str, secrets: Secrets) -> str:
        """Move what a dead child has written to the log of its job; return the end of it."""
        if self._folder is None:
            return ""
        try:
            with (
                shared.held(LOCK_S),
                _opened(scratch_path(self._folder, pid), os.O_RDWR) as descriptor,
            ):
                return self._take(descriptor, shared, job_id, secrets)
        except OSError:
            return ""

    def _take(self, descriptor: int, shared: SharedState, job_id: str, secrets: Secrets) -> str:
        size = os.fstat(descriptor).st_size
        tail = text = WITHHELD if size else b""
        if shared.secrets_told == secrets.heard:
            tail = read_masked(descriptor, max(0, size - TAIL_BYTES), size, secrets.mask)
            text = read_bounded(descriptor, shared.logged_bytes, secrets.mask)
        shared.logged_bytes = ALL_BYTES
        if self._log_folder:
            with suppress(OSError):
                append_log(self._log_folder, job_id, text)
        os.ftruncate(descriptor, 0)
        shared.logged_bytes = 0
        return show_bytes(tail)

    def trim(self, pid: int, secrets: Secrets) -> None:
        """Cut the output of a job that prints without end, but not in the middle of a secret."""
        if self._folder is None:
            return
        path = scratch_path(self._folder, pid)
        with suppress(OSError):
            if path.stat().st_size > RUNAWAY_BYTES:
                os.truncate(path, _find_cut(path, secrets.mask) if secrets.mask else HALF_BYTES)

    def drop(self, pid: int) -> None:
        """Remove the file of a child that is gone."""
        if self._folder is not None:
            with suppress(OSError):  # on Windows, while something that the job started has it open
                scratch_path(self._folder, pid).unlink()


def _find_cut(path: Path, mask: Mask) -> int:
    with _opened(path, os.O_RDONLY) as descriptor:
        begin = max(0, HALF_BYTES - mask.longest)
        text = read_at(descriptor, begin, HALF_BYTES - begin)
    return begin + mask.hide_begun(text)[1]


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | BINARY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
