"""The state folder of an embedded server: the names in it, its locks and its socket.

STATE/             0700, ours (`state.py` says where it is, and makes it)
├── belongs-to     the folder that it is for
├── data/          the append-only file
├── logs/          what jobs and workers print
├── server.sock    the socket, or elsewhere:
├── socket         where the socket is
├── server.log     what the server and its guardian have to say
├── server.lock    held while a server may have its hands on the data
├── guardian.lock  held by the guardian
└── door.lock      shared by those who look for the server; the guardian's while it closes
"""

# The guardian imports this, and pathlib would slow down every start:
# ruff: noqa: PTH100, PTH105, PTH106, PTH108, PTH117, PTH118, PTH119, PTH120
from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress

from flowq.server import private
from flowq.server.private import is_private

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
SHORT = "flowq-socket-"
BOOT = ", boot "
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Trouble(Exception):
    """There will be no server; the message is for the user."""


def try_lock(path: str | os.PathLike[str], *, shared: bool = False) -> int | None:
    """Take the lock file without waiting; return its descriptor, or None when somebody has it.

    Errors: OSError when the file cannot be made, or the file system has no locks.
    """
    import fcntl  # noqa: PLC0415 - POSIX only; Windows imports this module too

    lock = private.open_file(path, os.O_RDWR | os.O_CREAT)
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
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


def read_where(state: str | os.PathLike[str]) -> str:
    """Return where the socket of the state folder is: its name in there, or an absolute path.

    A path out of the state folder is believed only if it leads into a private folder of ours that
    was made for sockets.
    """
    try:
        path = private.read(os.path.join(state, WHERE)).decode().rstrip("\n")
    except (OSError, ValueError):
        return SOCKET
    return path if os.path.isabs(path) and is_short_folder(os.path.dirname(path)) else SOCKET


def place_socket(previous: str) -> str:
    """Choose where the socket is to be, and note it. Errors: Trouble, Untrusted, OSError.

    It is in the state folder, the current one, if that can be; else in a private folder with a
    short path: the one of `previous`, which must be this folder's own, or a new one.
    """
    if fits(os.path.abspath(SOCKET)) and is_private(".") and can_bind():
        forget(WHERE)
        return SOCKET
    path = previous
    if not os.path.isabs(path) or not is_short_folder(os.path.dirname(path)):
        path = os.path.join(_make_short_folder(), SOCKET)
    private.write_whole(WHERE, path.encode() + b"\n")
    return path


def discard_socket(path: str) -> None:
    """Remove a socket, and the folder that was made for it if it is not the state folder."""
    with suppress(OSError):
        for name in (path, path + CLOSED):
            private.remove_socket(name)
        if os.path.isabs(path) and is_short_folder(os.path.dirname(path)):
            os.rmdir(os.path.dirname(path))


def is_short_folder(folder: str) -> bool:
    """Whether a folder is one that was made for a socket."""
    return os.path.basename(folder).startswith(SHORT) and is_private(folder)


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
        if fits(os.path.join(base, f"{SHORT}12345678", SOCKET)):
            return tempfile.mkdtemp(prefix=SHORT, dir=base)
    raise Trouble("no folder has a path that is short enough for a socket; set XDG_RUNTIME_DIR")


def open_log() -> int:
    """Open the log for appending; a long one is put aside first. Errors: Untrusted, OSError."""
    if os.path.lexists(LOG) and os.lstat(LOG).st_size > LOG_BYTES:
        os.replace(LOG, LOG + ".old")
    return private.open_file(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note_holder(lock: int, pid: int) -> None:
    """Leave in the lock file who holds it, for the message of somebody who waits in vain."""
    with suppress(OSError):  # the disk may be full
        text = f"process {pid} on {socket.gethostname()}{BOOT}{read_boot_id()}\n".encode()
        os.pwrite(lock, text, 0)  # over what stands there: a reader never finds nothing
        os.ftruncate(lock, len(text))


def read_holder(state: str | os.PathLike[str]) -> str:
    """Who holds the server's lock, as it was noted there."""
    try:
        noted = private.read(os.path.join(state, SERVER_LOCK)).decode()
        return noted.partition(BOOT)[0].strip() or "another process"
    except (OSError, ValueError):
        return "another process"


def read_boot_id() -> str:
    """Return what tells this machine, as long as it runs, from others; "" where none is known.

    Containers on one machine have the same, and reach each other's sockets and locks.
    """
    try:
        descriptor = os.open(BOOT_ID, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 64).decode().strip()
    finally:
        os.close(descriptor)


def find_other_host(state: str | os.PathLike[str]) -> str | None:
    """Return who has noted down the server's lock, if that was on another machine than this one."""
    try:
        noted = private.read(os.path.join(state, SERVER_LOCK)).decode().strip()
    except (OSError, ValueError):
        return None
    holder, _, boot_id = noted.partition(BOOT)
    if not holder or holder.endswith(f" on {socket.gethostname()}"):
        return None
    return None if boot_id and boot_id == read_boot_id() else holder


def forget(*paths: str) -> None:
    """Remove files that may not be there."""
    for path in paths:
        with suppress(OSError):
            os.unlink(path)


def remove_tree(folder: str) -> None:
    """Remove a folder with all that is in it."""
    import shutil  # noqa: PLC0415 - needed at the very end only, and slow

    shutil.rmtree(folder, ignore_errors=True)
