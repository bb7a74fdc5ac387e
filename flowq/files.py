"""Files that somebody else names: opened without waiting, looked at, and read up to a limit."""

from __future__ import annotations

import errno
import os
import stat

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # a pipe that nobody writes to
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_CHUNK_BYTES = 1 << 20
FOLDER = "it is a folder"
PIPE = "it is a pipe, and no file"
_WORD_BY_KIND = (
    (stat.S_ISDIR, FOLDER),
    (stat.S_ISFIFO, PIPE),
    (stat.S_ISSOCK, "it is a socket, and no file"),
    (stat.S_ISCHR, "it is a device, and no file"),
    (stat.S_ISBLK, "it is a device, and no file"),
)


def read_file(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return what is in a regular file, at most `max_bytes` of it; it never waits for more.

    Errors: OSError, whose `strerror` says what stands there instead of a file.
    """
    descriptor = _open(path)
    try:
        return _read(descriptor, max_bytes)
    finally:
        os.close(descriptor)


def require_file(path: str | os.PathLike[str]) -> None:
    """Refuse what is no regular file, or cannot be opened. Errors: OSError, as `read_file`."""
    os.close(_open(path))


def find_kind(mode: int) -> str:
    """Return what stands in a place where a regular file should be; "" for such a file."""
    if stat.S_ISREG(mode):
        return ""
    return next((word for is_kind, word in _WORD_BY_KIND if is_kind(mode)), "it is no file")


def _open(path: str | os.PathLike[str]) -> int:
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        # Neither a socket nor a folder of Windows can be opened: what it is helps more.
        _refuse_other(os.stat(path).st_mode, path)  # noqa: PTH116 - as os.open
        raise
    try:
        _refuse_other(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_other(mode: int, path: str | os.PathLike[str]) -> None:
    if kind := find_kind(mode):
        raise OSError(errno.EINVAL, kind, os.fspath(path))


def _read(descriptor: int, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    left = max_bytes
    while left > 0 and (chunk := os.read(descriptor, min(left, _CHUNK_BYTES))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def reason_of(error: Exception) -> str:
    """Return why a file cannot be read, in a few words."""
    return getattr(error, "strerror", None) or str(error)
