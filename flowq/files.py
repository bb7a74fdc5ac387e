"""Reading files that users name: without waiting, regular files only, and up to a limit.

And `write_all`, which writes to a descriptor all that it is given.
"""

from __future__ import annotations

import errno
import os
import stat

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # opening a pipe without a writer would block
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_CHUNK_BYTES = 1 << 20
FOLDER = "it is a folder"
PIPE = "it is a pipe, not a file"
_WORD_BY_KIND = (
    (stat.S_ISDIR, FOLDER),
    (stat.S_ISFIFO, PIPE),
    (stat.S_ISSOCK, "it is a socket, not a file"),
    (stat.S_ISCHR, "it is a device, not a file"),
    (stat.S_ISBLK, "it is a device, not a file"),
)


def read_file(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return the content of a regular file, at most `max_bytes` of it, without waiting for more.

    Errors: OSError, whose `strerror` says what it is, if it is not a regular file.
    """
    descriptor = _open(path)
    chunks: list[bytes] = []
    left = max_bytes
    try:
        while left > 0 and (chunk := os.read(descriptor, min(left, _CHUNK_BYTES))):
            chunks.append(chunk)
            left -= len(chunk)
    finally:
        os.close(descriptor)
    return b"".join(chunks)


def require_file(path: str | os.PathLike[str]) -> None:
    """Refuse a path that is not a regular file, or cannot be opened. Errors: as `read_file`."""
    os.close(_open(path))


def find_kind(mode: int) -> str:
    """Return what a path is instead of a regular file; "" for a regular file."""
    if stat.S_ISREG(mode):
        return ""
    return next((word for is_kind, word in _WORD_BY_KIND if is_kind(mode)), "it is not a file")


def _open(path: str | os.PathLike[str]) -> int:
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        # Sockets, and folders on Windows, cannot be opened; the message says what it is.
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


def reason_of(error: Exception) -> str:
    """Return why a file cannot be read, in a few words."""
    return getattr(error, "strerror", None) or str(error)


def write_all(descriptor: int, text: bytes) -> None:
    """Write to a descriptor, in several parts if a pipe takes only some of it. Errors: OSError."""
    while text:
        text = text[os.write(descriptor, text) :]
