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
"""A younger folder without a lock may be one that another worker is just making."""


class ScratchFolder:
    """A new private folder, locked until `remove`. Errors: OSError."""

    def __init__(self) -> None:
        lock = None
        while lock is None:  # another worker's `sweep` may have locked and removed it
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            lock = _try_lock(self.path / LOCK)
        self._lock = lock

    def remove(self) -> None:
        """Remove the folder with its content, as far as possible. Idempotent."""
        _remove(self.path, self._lock)


def sweep() -> None:
    """Remove the folders of this user's killed workers from the temp folder."""
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
    # Without user ids (Windows), each user has a temp folder of their own.
    return private.is_private(found) if hasattr(os, "geteuid") else found.is_dir()


def _remove(path: Path, lock: Lock) -> None:
    # Before the lock is released, so that no other process takes it. Windows cannot remove the
    # locked file, hence the second attempt.
    shutil.rmtree(path, ignore_errors=True)
    lock.release()
    shutil.rmtree(path, ignore_errors=True)


def _try_lock(path: Path) -> Lock | None:
    """Take a lock; None if another process has it, or has removed its folder."""
    try:
        return locks.try_lock(path)
    except FileNotFoundError:
        return None
