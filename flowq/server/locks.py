"""File locks, which the system releases when their holder dies, and notes about the holders.

`try_lock` uses `flock` where the platform has it, and otherwise a transaction of SQLite, because
the standard library has no other lock that works everywhere. Callers: the endpoints of the embedded
server, and the workers' scratch folders.
"""

# The guardian imports this, and pathlib would slow down every start:
from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from flowq.server import private

if TYPE_CHECKING:
    import sqlite3

    from flowq.server.private import Path

BOOT = ", boot "
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Lock:
    """A lock that is held until `release`. This base class locks nothing."""

    def release(self) -> None:
        """Release the lock. Idempotent."""

    def is_current(self) -> bool:
        """Whether the locked file still exists under its name."""
        return True

    def share(self) -> None:
        """Have each program that is started from now on hold it too, if the platform can."""

    def note_holder(self, pid: int) -> None:
        """Write the holder into the file, for messages of processes that wait in vain."""


class FileLock(Lock):
    """A lock by `flock`, which programs that this process starts can inherit."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def release(self) -> None:
        with suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = -1

    def is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path))
        except OSError:
            return False

    def share(self) -> None:
        os.set_inheritable(self._descriptor, True)

    def note_holder(self, pid: int) -> None:
        with suppress(OSError):  # the disk may be full
            text = f"{describe_process(pid)}{BOOT}{read_boot_id()}\n".encode()
            os.pwrite(self._descriptor, text, 0)  # before truncating, so that it is never empty
            os.ftruncate(self._descriptor, len(text))


class DatabaseLock(Lock):
    """A lock on a database of SQLite."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def release(self) -> None:
        self._connection.close()

    def is_current(self) -> bool:
        return os.path.exists(self._path)  # noqa: PTH110 - see above


def try_lock(path: Path, *, shared: bool = False) -> Lock | None:
    """Take a lock without waiting; None if another process has it, or has removed the file.

    Errors: Untrusted; OSError if the file cannot be made, or the file system has no locks.
    """
    try:
        import fcntl  # noqa: F401, PLC0415 - which Windows does not have
    except ImportError:
        return try_database_lock(path, shared=shared)
    return try_file_lock(path, shared=shared)


def try_file_lock(path: Path, *, shared: bool = False) -> FileLock | None:
    """`try_lock` by `flock`."""
    import fcntl  # noqa: PLC0415 - POSIX only; Windows imports this module too

    descriptor = private.open_file(path, os.O_RDWR | os.O_CREAT)
    lock = FileLock(path, descriptor)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.release()
        return None
    except OSError:
        lock.release()
        raise
    if lock.is_current():
        return lock
    lock.release()  # the folder was removed and made again meanwhile
    return None


def try_database_lock(path: Path, *, shared: bool = False) -> DatabaseLock | None:
    """`try_lock` by a transaction of SQLite."""
    import sqlite3  # noqa: PLC0415 - not everywhere used, and slow

    # Checked by its path: closing a descriptor of it would release the locks of this process.
    with suppress(FileNotFoundError):
        private.check_status(os.lstat(path), path)
    connection = None
    try:
        with private.exact_modes():
            connection = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
        if shared:
            connection.execute("BEGIN")
            connection.execute("SELECT * FROM sqlite_master").fetchall()
        else:
            connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return None
        raise OSError(f"{path}: {error}") from error
    return DatabaseLock(path, connection)


# Who holds one -----------------------------------------------------------------------------------


def describe_process(pid: int) -> str:
    """Return the note that describes a process of this machine."""
    return f"process {pid} on {socket.gethostname()}"


def read_holder(path: Path) -> str:
    """Return the holder of a lock that is noted in its file."""
    return _read_note(path)[0] or "another process"


def find_other_host(path: Path) -> str | None:
    """Return the holder of a lock if it is on another machine."""
    holder, boot_id = _read_note(path)
    if not holder or holder.endswith(f" on {socket.gethostname()}"):
        return None
    return None if boot_id and boot_id == read_boot_id() else holder


def _read_note(path: Path) -> tuple[str, str]:
    try:
        holder, _, boot_id = private.read(path).decode().strip().partition(BOOT)
    except (OSError, ValueError):
        return "", ""
    return holder, boot_id


def read_boot_id() -> str:
    """Return the id of this machine since its last start; "" if it is unknown.

    Containers on one machine have the same id, and share sockets and locks.
    """
    try:
        descriptor = os.open(BOOT_ID, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 64).decode().strip()
    finally:
        os.close(descriptor)
