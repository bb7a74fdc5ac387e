"""The state folder of an embedded server, `.flowq/`: the names in it, its locks and its socket.

.flowq/            0700, ours
├── .gitignore     *
├── data/          the append-only file
├── server.sock    the socket, or elsewhere:
├── socket         where the socket is
├── server.log     what the server and its guardian have to say
├── server.lock    held while a server may have its hands on the data
├── guardian.lock  held by the guardian
└── door.lock      shared by those who look for the server; the guardian's while it closes
"""

# The guardian imports this, and pathlib would slow down every start:
# ruff: noqa: PTH100, PTH105, PTH106, PTH108, PTH110, PTH116, PTH117, PTH118, PTH120, PTH123, PTH202
from __future__ import annotations

import os
import socket
import stat
import sys
from contextlib import suppress

SOCKET = "server.sock"
CLOSED = "~"  # added to the name of the socket while the server is being closed
WHERE = "socket"
DATA = "data"
LOG = "server.log"
GUARDIAN_LOCK = "guardian.lock"
SERVER_LOCK = "server.lock"
DOOR_LOCK = "door.lock"

# Linux has 108 bytes for the path of a socket, macOS and the BSDs 104, each with a closing zero.
SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
LOG_BYTES = 1_000_000


class Trouble(Exception):
    """There will be no server; the message is for the user."""


def is_private(folder: str | os.PathLike[str]) -> bool:
    """Whether `folder` is a real folder of ours that nobody else can enter."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return mine and not status.st_mode & 0o077


def try_lock(path: str | os.PathLike[str], *, shared: bool = False) -> int | None:
    """Take the lock file without waiting; return its descriptor, or None when somebody has it.

    Errors: OSError when the file cannot be made, or the file system has no locks.
    """
    import fcntl  # noqa: PLC0415 - POSIX only; Windows imports this module too

    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:
        os.close(lock)
        raise
    if is_same(lock, path):
        return lock
    os.close(lock)  # the folder was removed and made again meanwhile
    return None


def is_same(descriptor: int, path: str | os.PathLike[str]) -> bool:
    """Whether the open file is still the one with that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def read_where(state: str | os.PathLike[str]) -> str:
    """Return where the socket of the state folder is: its name in there, or an absolute path.

    A path out of the state folder is believed only if it leads into a private folder of ours.
    """
    try:
        with open(os.path.join(state, WHERE), encoding="utf-8") as file:
            path = file.read().rstrip("\n")
    except (OSError, ValueError):
        return SOCKET
    return path if os.path.isabs(path) and is_private(os.path.dirname(path)) else SOCKET


def place_socket(previous: str) -> str:
    """Choose where the socket is to be, and note it. Errors: Trouble, OSError.

    It is in the state folder, the current one, if that can be; else in a private folder with a
    short path: the one of `previous`, which must be this folder's own, or a new one.
    """
    if fits(os.path.abspath(SOCKET)) and is_private(".") and can_bind():
        forget(WHERE)
        return SOCKET
    path = previous
    if not os.path.isabs(path) or not is_private(os.path.dirname(path)):
        path = os.path.join(_make_short_folder(), SOCKET)
    write_whole(WHERE, path)
    return path


def discard_socket(path: str) -> None:
    """Remove a socket, and the folder that was made for it if it is not the state folder."""
    forget(path, path + CLOSED)
    if os.path.isabs(path):
        with suppress(OSError):
            os.rmdir(os.path.dirname(path))


def fits(path: str) -> bool:
    """Whether a socket can have this path, and a URL can name it."""
    try:
        return len(path.encode("utf-8")) <= SOCKET_PATH_BYTES
    except UnicodeEncodeError:
        return False


def can_bind() -> bool:
    """Whether the file system of the current folder can hold sockets; some mounts cannot."""
    probe = f"probe-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        try:
            server.bind(probe)
        except OSError:
            return False
    forget(probe)
    return True


def _make_short_folder() -> str:
    import tempfile  # noqa: PLC0415 - needed by deep folders only, and slow

    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    bases = [runtime] if is_private(runtime) else []
    for base in [*bases, tempfile.gettempdir(), "/tmp"]:  # noqa: S108 - mkdtemp makes it private
        if fits(os.path.join(base, "flowq-socket-12345678", SOCKET)):
            return tempfile.mkdtemp(prefix="flowq-socket-", dir=base)
    raise Trouble("no folder has a path that is short enough for a socket; set XDG_RUNTIME_DIR")


def write_whole(path: str, text: str) -> None:
    """Write a file so that a reader finds the old or the new text, never a part."""
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    os.replace(draft, path)


def open_log() -> int:
    """Open the log for appending; a long one is put aside first."""
    if os.path.exists(LOG) and os.path.getsize(LOG) > LOG_BYTES:
        os.replace(LOG, LOG + ".old")
    return os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def note_holder(lock: int, pid: int) -> None:
    """Leave in the lock file who holds it, for the message of somebody who waits in vain."""
    with suppress(OSError):  # the disk may be full
        text = f"process {pid} on {socket.gethostname()}\n".encode()
        os.pwrite(lock, text, 0)  # over what stands there: a reader never finds nothing
        os.ftruncate(lock, len(text))


def read_holder(state: str | os.PathLike[str]) -> str:
    """Who holds the server's lock, as it was noted there."""
    try:
        with open(os.path.join(state, SERVER_LOCK), encoding="utf-8") as file:
            return file.read().strip() or "another process"
    except (OSError, ValueError):
        return "another process"


def forget(*paths: str) -> None:
    """Remove files that may not be there."""
    for path in paths:
        with suppress(OSError):
            os.unlink(path)


def remove_tree(folder: str) -> None:
    """Remove a folder with all that is in it."""
    import shutil  # noqa: PLC0415 - needed at the very end only, and slow

    shutil.rmtree(folder, ignore_errors=True)
