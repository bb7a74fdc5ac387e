"""Private files and folders: created with their final mode, and opened only if they are safe.

Only this module decides whether a file or a folder of the state may be used. It must be a regular
file of this user, or a folder of this user to which no other user can write. Symbolic links,
devices and other users' files are refused with an explanation, and left as they are.
"""

# The guardian imports this, and pathlib would slow down every start:
# ruff: noqa: PTH100, PTH102, PTH103, PTH108, PTH114, PTH118, PTH120
from __future__ import annotations

import _thread
import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

Path = str | os.PathLike[str]

FOLDER_MODE, FILE_MODE = 0o700, 0o600
OTHERS, OTHERS_WRITE = 0o077, 0o022
_FLAGS = ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY")
_SAFELY = sum(getattr(os, name, 0) for name in _FLAGS)
_REMOVE = "remove it, or name another place with FLOWQ_STATE"

REPLACE_S = 2.0
DEPTH, FILES = 4, 1_000_000
"""Limits of `check_tree`. Data and logs are two folders deep."""

_umask = _thread.allocate_lock()


class Untrusted(OSError):
    """A file or a folder that must not be used; the message is for the user."""


# Files -------------------------------------------------------------------------------------------


def open_file(path: Path, flags: int) -> int:
    """Open a regular file of this user; if `flags` create it, with mode 0600.

    Errors: Untrusted if it is anything else; OSError.
    """
    if not hasattr(os, "O_NOFOLLOW") and os.path.islink(path):
        raise _is_link(path)
    try:
        descriptor = os.open(path, flags | _SAFELY, FILE_MODE)
    except OSError as error:
        raise _explain(error, path) from error
    try:
        status = os.fstat(descriptor)
        check_status(status, path)
        if flags & os.O_CREAT and ~status.st_mode & FILE_MODE and hasattr(os, "fchmod"):
            os.fchmod(descriptor, FILE_MODE)  # the umask may have removed the user's rights
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _explain(error: OSError, path: Path) -> OSError:
    """Return the error, or a clear one for a link, whose error differs between systems."""
    if error.errno == errno.ENOENT:
        return error
    try:
        status = os.lstat(path)
    except OSError:
        return error
    if stat.S_ISLNK(status.st_mode):
        return _is_link(path)
    return error if stat.S_ISREG(status.st_mode) else _is_no_file(path)


def check_status(status: os.stat_result, path: Path) -> None:
    """Check that this is the status of a regular file of this user. Errors: Untrusted."""
    if stat.S_ISLNK(status.st_mode):
        raise _is_link(path)
    if not stat.S_ISREG(status.st_mode):
        raise _is_no_file(path)
    _check_owner(status, path)


def _check_owner(status: os.stat_result, path: Path) -> None:
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        owner = f"belongs to another user (id {status.st_uid})"
        raise Untrusted(f"{path} {owner}; name another place with FLOWQ_STATE")


def _is_link(path: Path) -> Untrusted:
    return Untrusted(f"{path} is a symbolic link, which is not followed; {_REMOVE}")


def _is_no_file(path: Path) -> Untrusted:
    return Untrusted(f"{path} is not a regular file; {_REMOVE}")


def read(path: Path) -> bytes:
    """Return the content of a file of this user. Errors: Untrusted; OSError."""
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        return file.read()


def write_whole(path: Path, text: bytes) -> None:
    """Write a file atomically: readers find the old or the new text. Errors: OSError.

    An existing file is replaced, as is a link, whose target is not changed.
    """
    draft = make_draft(path, text)
    try:
        replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def replace(old: Path, new: Path) -> None:
    """Rename a file, replacing an existing one. Errors: OSError."""
    deadline = time.monotonic() + REPLACE_S
    while True:
        try:
            os.replace(old, new)  # noqa: PTH105 - see above
            return
        except PermissionError:  # on Windows, while a process reads one of them
            if os.name != "nt" or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def make_draft(path: Path, text: bytes) -> str:
    """Write a new file next to `path`, and return its path. Errors: OSError."""
    draft = f"{os.fspath(path)}.{os.urandom(6).hex()}"
    descriptor = open_file(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
    except BaseException:
        os.unlink(draft)
        raise
    return draft


# Folders -----------------------------------------------------------------------------------------


def is_private(folder: Path) -> bool:
    """Whether `folder` is a folder of this user (not a link) that no other user can enter."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return mine and not status.st_mode & OTHERS


def make_folder(folder: Path) -> None:
    """Create a private folder and its parents, or check an existing one.

    Changes the umask of the whole process for a moment: other threads must not create files.
    Errors: as `check_folder`; OSError if it cannot be created.
    """
    with exact_modes():
        os.makedirs(os.path.dirname(os.path.abspath(folder)), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(folder, FOLDER_MODE)
    check_folder(folder)


@contextmanager
def exact_modes() -> Iterator[None]:
    """Set a umask that gives files their requested mode, without rights for other users."""
    with _umask:  # two threads at once would each restore the other's umask
        before = os.umask(OTHERS)
        try:
            yield
        finally:
            os.umask(before)


def check_folder(folder: Path) -> None:
    """Check that a folder belongs to this user alone. Changes nothing.

    A user who can write to it can run code as the user of its jobs. Errors: Untrusted if another
    user may have done so, or it is a link; OSError.
    """
    status = os.lstat(folder)
    if stat.S_ISLNK(status.st_mode):
        raise _is_link(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise Untrusted(f"{folder} is not a folder; {_REMOVE}")
    if not hasattr(os, "geteuid"):
        return  # on Windows, `mkdir` of a recent Python has made it private
    _check_owner(status, folder)
    if status.st_mode & OTHERS_WRITE and _has_modes(folder):
        reason = f"other users can write to it; if you trust it: chmod 700 {folder}"
        raise Untrusted(f"{folder} is not used: {reason}")


def close_folder(folder: Path) -> None:
    """Remove other users' rights to a folder that is known to be a state. Errors: Untrusted;
    OSError."""
    if not hasattr(os, "fchmod"):
        return  # Windows
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _SAFELY)
    try:
        status = os.fstat(descriptor)
        _check_owner(status, folder)
        if status.st_mode & OTHERS and _has_modes(folder):
            os.fchmod(descriptor, FOLDER_MODE)
    finally:
        os.close(descriptor)


def _has_modes(folder: Path) -> bool:
    """Whether the file system stores modes. Mounted Windows drives, for one, show 0777 for all."""
    probe = os.path.join(folder, f"probe.{os.urandom(6).hex()}")
    descriptor = open_file(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        return not os.fstat(descriptor).st_mode & OTHERS
    finally:
        os.close(descriptor)
        os.unlink(probe)


def check_tree(folder: Path, depth: int = DEPTH) -> list[str]:
    """Check that a folder contains only files and folders of this user; return the files.

    A server that writes there would follow links. Files that disappear meanwhile are left out.
    Errors: Untrusted, also for a folder that is deeper than flowq makes any; OSError.
    """
    check_folder(folder)
    if not depth:
        raise Untrusted(f"{folder} is deeper than flowq makes a folder; {_REMOVE}")
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # a server may be rewriting its files
                if entry.is_dir(follow_symlinks=False):
                    files += check_tree(entry.path, depth - 1)
                else:
                    check_status(entry.stat(follow_symlinks=False), entry.path)
                    files.append(entry.path)
            if len(files) > FILES:
                raise Untrusted(f"{folder} has more than {FILES:,} files; {_REMOVE}")
    return files


# Sockets -----------------------------------------------------------------------------------------


def is_own_socket(path: Path) -> bool:
    """Whether the path is a socket of this user (not a link) in a private folder."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    mine = stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid()
    return mine and is_private(os.path.dirname(path) or ".")


def remove_socket(path: Path) -> None:
    """Remove a socket of this user. Errors: Untrusted if the path is anything else; OSError."""
    if is_own_socket(path):
        os.unlink(path)
    elif os.path.lexists(path):
        raise Untrusted(f"{path} is not a socket of flowq's; {_REMOVE}")
