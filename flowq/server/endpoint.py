"""How to reach the embedded server, and to prove that it is ours: by a Unix socket or by TCP.

The guardian and the commands use only the interface `Endpoint`, which has two implementations:

    UnixEndpoint   a socket that only this user can connect to. Proof: the server's data folder is
                   the one in this state folder
    TcpEndpoint    127.0.0.1 with a random password, where there are no Unix sockets (Windows).
                   Proof: a second secret, which is never sent to the server

STATE/             mode 0700 (`state.py` decides where it is, and makes it)
├── belongs-to     the folder that it is for
├── data/          the append-only file
├── logs/          worker.log: what the workers of runs say of themselves
├── server.log     the log of the server and its guardian
├── guardian.lock  held by the guardian
├── door.lock      shared by clients that look for the server; exclusive while it is being closed
├── server.lock    Unix: held while a server may use the data
├── server.sock    Unix: the socket, unless its path would be too long
├── socket         Unix: the path of the socket, if it is elsewhere
├── address        TCP: the port and the two secrets
└── server.conf    TCP: the settings of the server
"""

# The guardian imports this, and pathlib would slow down every start:
# ruff: noqa: PTH100, PTH106, PTH108, PTH110, PTH112, PTH117, PTH118, PTH119, PTH120
from __future__ import annotations

import os
import signal
import socket
import sys
from abc import ABC, abstractmethod
from contextlib import closing, suppress
from typing import NamedTuple

from flowq.server import private
from flowq.server.locks import (
    Lock,
    describe_process,
    find_other_host,
    read_holder,
    try_database_lock,
    try_file_lock,
)
from flowq.server.private import Path, is_private
from flowq.server.resp import Connection, NotOurs, Refused, explain_hang_up

DATA = "data"
LOG = "server.log"
GUARDIAN_LOCK = "guardian.lock"
KEEPER_LOCK = "keeper.lock"
"""Held by a guardian of an older version, where there are no Unix sockets."""

DOOR_LOCK = "door.lock"
SERVER_LOCK = "server.lock"
SOCKET, WHERE = "server.sock", "socket"
ADDRESS, CONFIG = "address", "server.conf"
CLOSED = "~"
"""The suffix of the socket's name, or of the address's, while the server is being closed."""

SETTINGS = {
    "save": "",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
    # RQ stores each job's result in a stream of its own, whose single entry would occupy 4 KB.
    "stream-node-max-bytes": "512",
    # A job with some arguments takes half the memory if its hash keeps the compact encoding.
    "hash-max-ziplist-value": "1024",
}
"""The settings of every embedded server."""


class CannotStart(Exception):
    """The server cannot be started; the message is for the user."""


class Endpoint(ABC):
    """The way to the server of one state folder.

    Args:
        state: the state folder. The guardian, which has it as its current folder, leaves it out:
            then all paths are relative, so that parent folders can be renamed.
    """

    flags: tuple[str, ...]
    """Options of the interpreter that runs the guardian."""
    returns_when_removed: bool
    """Whether a server whose `path` was removed is started again; otherwise it ends then."""

    path: str
    """The file by which clients find the server. While the server closes, CLOSED is appended."""

    def __init__(self, state: Path = "") -> None:
        self.state = os.fspath(state)

    def at(self, name: str) -> str:
        """Return the path of a file in the state folder."""
        return os.path.join(self.state, name)

    # For clients ---

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for redis.from_url, RQ's tools and FLOWQ_REDIS_URL; "" if it is unknown.

        It may change while the server is not running.
        """

    @property
    def holder(self) -> str:
        """The process that uses the data, for a message."""
        return read_holder(self.at(SERVER_LOCK))

    @property
    def other_host(self) -> str:
        """The process on another machine that has the server; "" if none is known."""
        return ""

    @abstractmethod
    def call(self, path: str | None = None) -> Connection:
        """Connect, and check that it is the server of this state.

        Errors: NotOurs; Refused; OSError if there is no server.
        """

    def find(self) -> Connection | None:
        """Connect to the server of this state; None if it does not run, or refuses."""
        try:
            return self.call()
        except (OSError, Refused):
            return None

    def find_refusal(self) -> str:
        """Return why a running server refuses new clients; "" if it does not."""
        try:
            self.call().close()
        except Refused as error:
            return str(error)
        except OSError:
            pass
        return ""

    def end_refusing(self) -> bool:
        """End a server that refuses commands; False if that is not possible here."""
        return False

    def announce_end(self) -> None:  # noqa: B027 - optional
        """Note that the server is told to end, if its end alone would not show the intention."""

    def forget_server(self) -> None:  # noqa: B027 - optional
        """Remove the files by which clients found a server that was told to end and has ended."""

    @abstractmethod
    def try_lock(self, name: str, *, shared: bool = False) -> Lock | None:
        """Take a lock of the state without waiting; None if another process has it."""

    @abstractmethod
    def try_data(self) -> Lock | None:
        """Lock the data without waiting; None while a server may use them.

        Only a holder of the guardian's lock may keep this lock; others must release it at once.
        """

    def is_free(self) -> bool:
        """Whether neither a guardian nor a server is running."""
        for take in (self.try_data, lambda: self.try_lock(GUARDIAN_LOCK)):
            if self.state and not os.path.isdir(self.state):
                break  # the folder is gone
            lock = take()
            if lock is None:
                return False
            lock.release()
        return True

    # For the guardian ---

    @abstractmethod
    def prepare(self, *, is_persistent: bool) -> list[str]:
        """Choose the server's address, and return the arguments for its program.

        Errors: CannotStart, Untrusted, OSError.
        """

    def was_taken(self) -> bool:
        """Whether another program has taken the address. Then `prepare` chooses a new one."""
        return False

    @abstractmethod
    def discard(self) -> None:
        """Remove all files by which clients find the server, after its end. Idempotent."""

    def adopt(self) -> Connection | None:
        """Connect to a server whose guardian has died; None if there is none.

        If the guardian died while it closed the server, this makes the server visible again.
        """
        for path in (self.path, self.path + CLOSED):
            with suppress(OSError, Refused):
                connection = self.call(path)
                if path != self.path:
                    private.replace(path, self.path)
                return connection
        return None

    def is_shown(self) -> bool:
        """Whether clients can find the server."""
        return os.path.exists(self.path)

    def hide(self) -> None:
        """Make the server invisible to new clients."""
        private.replace(self.path, self.path + CLOSED)

    def show(self) -> None:
        """Make a hidden server visible again. Idempotent."""
        with suppress(FileNotFoundError):
            private.replace(self.path + CLOSED, self.path)


def endpoint_of(state: Path) -> Endpoint:
    """Return the endpoint of a state folder, of the kind for this platform."""
    return UnixEndpoint(state) if has_unix_sockets() else TcpEndpoint(state)


def has_unix_sockets() -> bool:
    """Whether a server on a Unix socket is possible here."""
    return hasattr(os, "posix_spawn") and hasattr(socket, "AF_UNIX")


# A Unix socket -----------------------------------------------------------------------------------

# The path of a socket can have 108 bytes on Linux, 104 on macOS and BSD, with its final zero byte.
SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
SHORT = "flowq-socket-"


class UnixEndpoint(Endpoint):
    """A socket in the state folder or, where its path is too long, in a private folder elsewhere.

    The server inherits the lock on the data, so it is held until both guardian and server end.
    """

    # Without `site` an interpreter starts in a third of the time.
    flags = ("-I", "-S")
    returns_when_removed = True

    def __init__(self, state: Path = "") -> None:
        super().__init__(state)
        self.path = self.at(self._read_where())
        self._is_own = False  # not known yet: a copied state names the socket of the original

    @property
    def url(self) -> str:
        from urllib.parse import quote  # noqa: PLC0415 - slow, and not for the guardian

        return f"unix://{quote(self.path)}?db=0"

    @property
    def other_host(self) -> str:
        with suppress(OSError):
            if not self.is_free():
                return find_other_host(self.at(SERVER_LOCK)) or ""
        return ""

    def try_lock(self, name: str, *, shared: bool = False) -> Lock | None:
        return try_file_lock(self.at(name), shared=shared)

    def try_data(self) -> Lock | None:
        return self.try_lock(SERVER_LOCK)

    def call(self, path: str | None = None) -> Connection:
        path = path or self.path
        if not private.is_own_socket(path):
            raise FileNotFoundError(f"{path} is not a socket of this user")
        connection = Connection(path)
        try:
            if not _serves(connection, self.at(DATA)):
                raise NotOurs(f"{path} is the socket of another server")
        except BaseException:
            connection.close()
            raise
        self._is_own = True
        return connection

    def end_refusing(self) -> bool:
        # The system tells which process listens, and the lock on the data which one was started for
        # this state: a copied state may name the socket of another one.
        try:
            with closing(Connection(self.path)) as connection:
                pid = connection.find_peer()
        except OSError:
            return False
        if not pid or self.is_free() or self.holder != describe_process(pid):
            return False
        with suppress(OSError, Refused), closing(Connection(self.path)) as connection:
            connection.ask("SHUTDOWN", "NOSAVE")  # a server without room only obeys the signal
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        return True

    def prepare(self, *, is_persistent: bool) -> list[str]:
        self._discard_stale()
        self.path = self._place()
        self._is_own = True
        private.remove_socket(self.path)  # a foreign server must not answer for ours
        options = {
            "port": "0",
            "unixsocket": self._path_from_data(),
            "unixsocketperm": "700",
            "dir": DATA,
            "appendonly": "yes" if is_persistent else "no",
            **SETTINGS,
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def discard(self) -> None:
        _discard_socket(self.path)
        _forget(self.at(WHERE))

    def _read_where(self) -> str:
        """Return the socket's name in the state folder, or its absolute path elsewhere.

        A path outside of the state folder is trusted only if it leads into a private folder of this
        user that was made for a socket.
        """
        try:
            path = private.read(self.at(WHERE)).decode().rstrip("\n")
        except (OSError, ValueError):
            return SOCKET
        return path if _is_in_short_folder(path) else SOCKET

    def _discard_stale(self) -> None:
        """Remove the socket that a killed server has left elsewhere, if no process listens on it.

        One may: if this state is a copy, the server of the original.
        """
        if not self._is_own and private.is_own_socket(self.path):
            try:
                Connection(self.path).close()
            except OSError:
                _discard_socket(self.path)

    def _place(self) -> str:
        """Choose the path of the socket, and store it. Errors: CannotStart, Untrusted, OSError."""
        if _fits(os.path.abspath(SOCKET)) and is_private(".") and _can_bind():
            _forget(WHERE)
            return SOCKET
        path = self.path
        if not self._is_own or not _is_in_short_folder(path):
            path = os.path.join(_make_short_folder(), SOCKET)
        private.write_whole(WHERE, path.encode() + b"\n")
        return path

    def _path_from_data(self) -> str:
        if os.path.isabs(self.path):
            return self.path
        state = os.path.realpath(".")
        return os.path.relpath(os.path.join(state, self.path), os.path.realpath(DATA))


def _serves(connection: Connection, data: str) -> bool:
    """Whether the server's data folder is `data`, even if a parent folder was renamed."""
    answer = connection.ask("CONFIG", "GET", "dir")
    if not isinstance(answer, list) or len(answer) < 2 or not isinstance(answer[1], bytes):
        return False
    try:
        return os.path.samefile(os.fsdecode(answer[1]), data)  # noqa: PTH121 - see above
    except OSError:
        return False


def _discard_socket(path: str) -> None:
    """Remove a socket, and the folder that was made for it outside of the state folder."""
    with suppress(OSError):
        for name in (path, path + CLOSED):
            private.remove_socket(name)
        if _is_in_short_folder(path):
            os.rmdir(os.path.dirname(path))


def _is_in_short_folder(path: str) -> bool:
    """Whether a path leads into a folder that was made for a socket."""
    folder = os.path.dirname(path)
    return os.path.isabs(path) and os.path.basename(folder).startswith(SHORT) and is_private(folder)


def _fits(path: str) -> bool:
    """Whether a socket can have this path, and a URL can name it."""
    try:
        return len(path.encode("utf-8")) <= SOCKET_PATH_BYTES
    except UnicodeEncodeError:
        return False


def _can_bind() -> bool:
    """Whether the file system of the current folder can hold sockets; some mounts cannot."""
    probe = f"probe-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        try:
            server.bind(probe)
        except OSError:
            return False
    _forget(probe)
    return True


def _make_short_folder() -> str:
    import tempfile  # noqa: PLC0415 - needed by deep folders only, and slow

    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    bases = [runtime] if is_private(runtime) else []
    for base in [*bases, tempfile.gettempdir(), "/tmp"]:  # noqa: S108 - mkdtemp makes it private
        if _fits(os.path.join(base, f"{SHORT}12345678", SOCKET)):
            return tempfile.mkdtemp(prefix=SHORT, dir=base)
    raise CannotStart("no folder has a path that is short enough for a socket; set XDG_RUNTIME_DIR")


def _forget(*paths: str) -> None:
    for path in paths:
        with suppress(OSError):
            os.unlink(path)


# TCP on loopback ---------------------------------------------------------------------------------

HOST = "127.0.0.1"
PROOF_USER = "proof"
FOREIGN = ("WRONGPASS", "password", "unknown command")
"""Parts of the refusals of a server with another password or none, or of one that is not Redis.

Our own server refuses with other words: while a script runs (BUSY), or if it has too many clients.
"""


class Address(NamedTuple):
    """The port and the secrets of a server.

    Clients send `password`. The server shows `proof`, which is never sent to it: a program that has
    taken over the port, and so received the password, does not know the proof.
    """

    port: int
    password: str
    proof: str


class TcpEndpoint(Endpoint):
    """A port of 127.0.0.1, whose number and secrets are in the private state folder.

    A server cannot inherit locks here. Whether it uses the data is found out by connecting to its
    address, which is therefore written before the server starts, and kept if its guardian dies.
    """

    flags = ("-P",)  # with `site`: `fake.py` needs installed packages
    returns_when_removed = False  # see `announce_end`

    def __init__(self, state: Path = "") -> None:
        super().__init__(state)
        self.path = self.at(ADDRESS)
        self._foreign: set[Address] = set()

    @property
    def url(self) -> str:
        address = read_address(self.path)
        if address is None:
            return ""
        url = f"redis://:{address.password}@{HOST}:{address.port}/0"
        return f"{url}?protocol=2"  # which all servers know

    def try_lock(self, name: str, *, shared: bool = False) -> Lock | None:
        if name == GUARDIAN_LOCK and os.path.exists(self.at(KEEPER_LOCK)):
            older = try_database_lock(self.at(KEEPER_LOCK))
            if older is None:
                return None
            older.release()
        return try_database_lock(self.at(name), shared=shared)

    @property
    def holder(self) -> str:
        for path in (self.path, self.path + CLOSED):
            if address := read_address(path):
                where = f"what listens at {HOST}:{address.port}"
                return f"{where} (remove {os.path.abspath(path)} if that is not flowq's)"
        return super().holder

    def try_data(self) -> Lock | None:
        """Lock the data, unless a process that may be our server listens on the address."""
        for path in (self.path, self.path + CLOSED):
            try:
                self.call(path).close()
            except NotOurs:
                if address := read_address(path):
                    self._foreign.add(address)
            except (ConnectionRefusedError, FileNotFoundError):
                pass
            except (OSError, Refused):
                return None
            else:
                return None
        return Lock()

    def call(self, path: str | None = None) -> Connection:
        address = read_address(path or self.path)
        if address is None:
            raise FileNotFoundError("there is no address")
        connection = Connection((HOST, address.port))
        try:
            connection.ask("AUTH", address.password)
            if not _shows(connection.ask("ACL", "GETUSER", PROOF_USER), address.proof):
                raise NotOurs("this is another server")
        except BaseException as error:
            connection.close()
            if isinstance(error, Refused) and any(sign in str(error) for sign in FOREIGN):
                raise NotOurs(str(error)) from error
            if isinstance(error, ConnectionError) and not isinstance(error, NotOurs):
                explain_hang_up((HOST, address.port))
            raise
        return connection

    def announce_end(self) -> None:
        # Not removed: `try_data` needs the address until the server has ended.
        with suppress(OSError):  # its guardian may have hidden it already
            self.hide()

    def forget_server(self) -> None:
        _forget(self.path + CLOSED)

    def prepare(self, *, is_persistent: bool) -> list[str]:
        # The same address as before, if possible, so that running workers can go on.
        known = (read_address(self.path), read_address(self.path + CLOSED))
        usable = (address for address in known if address and address not in self._foreign)
        address = next(usable, None) or make_address()
        lines = [
            f"port {address.port}",
            f"bind {HOST}",
            f"requirepass {address.password}",
            f"user {PROOF_USER} off #{address.proof}",
            f"dir {DATA}",
            f"appendonly {'yes' if is_persistent else 'no'}",
            *(f'{name} "{value}"' for name, value in SETTINGS.items()),
        ]
        # In a file, because other users can see the command line.
        private.write_whole(self.at(CONFIG), ("\n".join(lines) + "\n").encode())
        write_address(self.path, address)
        _forget(self.path + CLOSED)
        return [self.at(CONFIG)]

    def was_taken(self) -> bool:
        address = read_address(self.path)
        if address is None:
            return False
        try:
            Connection((HOST, address.port)).close()
        except OSError:
            return False
        _forget(self.path)
        return True

    def discard(self) -> None:
        _forget(self.path, self.path + CLOSED, self.at(CONFIG))


def _shows(facts: object, proof: str) -> bool:
    flat = facts if isinstance(facts, list) else []
    found = dict(zip(flat[::2], flat[1::2], strict=False)).get(b"passwords")
    return isinstance(found, list) and found == [proof.encode()]


def make_address() -> Address:
    """Return an address with a free port and new secrets."""
    import secrets  # noqa: PLC0415 - not for the guardian of a socket

    with socket.create_server((HOST, 0)) as probe:
        port = int(probe.getsockname()[1])
    return Address(port, secrets.token_urlsafe(32), secrets.token_hex(32))


def read_address(path: Path) -> Address | None:
    """Return the address in a file; None if there is none.

    Ignores fields that only a newer version knows.
    """
    import json  # noqa: PLC0415 - not for the guardian of a socket

    try:
        said = json.loads(private.read(path))
        address = Address(*(said[name] for name in Address._fields))
        return address if 0 < address.port < 65_536 else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_address(path: Path, address: Address) -> None:
    """Write the address, so that clients can find the server. Errors: OSError."""
    import json  # noqa: PLC0415 - not for the guardian of a socket

    private.write_whole(path, json.dumps(address._asdict()).encode())
