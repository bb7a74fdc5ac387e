"""The folder of a worker's scratch files, and its removal after the worker was killed.

The worker and its forked children hold a lock in the folder. If the worker is killed, the next
worker that starts on this machine removes the folder, once the lock is free.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from flowq.server import locks, private
from flowq.server.locks import Lock

PREFIX = "flowq-worker-"
LOCK = "lock"
BIRTH_S = 60.0
"""A folder without a lock in it may be one that is being made."""


class ScratchFolder:
    """A private folder for as long as it is not removed. Errors: OSError."""

    def __init__(self) -> None:
        lock = None
        while lock is None:  # somebody who swept up may have been quicker than we were
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            lock = _try_lock(self.path / LOCK)
        self._lock = lock

    def remove(self) -> None:
        """Remove it with all that is in it, as far as the system lets us. Idempotent."""
        _remove(self.path, self._lock)


def sweep() -> None:
    """Remove the folders of workers that were killed, of this user and in this temp folder."""
    for found in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if not _is_ours(found):
                continue
            is_young = time.time() - found.stat().st_mtime <= BIRTH_S
            if is_young and not (found / LOCK).exists():
                continue
            lock = _try_lock(found / LOCK)
            if lock is not None:
                _remove(found, lock)


def _is_ours(found: Path) -> bool:
    # Where there are no user numbers (Windows), each user has a temp folder of their own.
    return private.is_private(found) if hasattr(os, "geteuid") else found.is_dir()


def _remove(path: Path, lock: Lock) -> None:
    # Before the lock is free, or somebody else might take it; on Windows then, if at all.
    shutil.rmtree(path, ignore_errors=True)
    lock.release()
    shutil.rmtree(path, ignore_errors=True)


def _try_lock(path: Path) -> Lock | None:
    """Take a lock; None when somebody has it, or has removed its folder."""
    try:
        return locks.try_lock(path)
    except FileNotFoundError:
        return None
