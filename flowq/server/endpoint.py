"""How a server is reached, and known to be ours: by a Unix socket, or by TCP on loopback.

`Endpoint` is the port; the guardian and the commands know nothing else of either kind.

    UnixEndpoint   a socket that only this user can connect to. Proof: the server's data folder is
                   the one of this state
    TcpEndpoint    127.0.0.1 with a random password, where there are no Unix sockets (Windows).
                   Proof: a second secret, which nobody ever sends to the server

STATE/             0700, ours (`state.py` says where it is, and makes it)
├── belongs-to     the folder that it is for
├── data/          the append-only file
├── logs/          what jobs and workers print
├── server.log     what the server and its guardian have to say
├── guardian.lock  held by the guardian
├── door.lock      shared by those who look for the server; the guardian's while it closes
├── server.lock    Unix: held while a server may have its hands on the data
├── server.sock    Unix: the socket, or elsewhere:
├── socket         Unix: where the socket is
├── address        TCP: the port and the two secrets
└── server.conf    TCP: what the server reads at its start
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
"""What a guardian of an older version holds, where there are no Unix sockets."""

DOOR_LOCK = "door.lock"
SERVER_LOCK = "server.lock"
SOCKET, WHERE = "server.sock", "socket"
ADDRESS, CONFIG = "address", "server.conf"
CLOSED = "~"
"""Added to the name of the socket, or of the address, while the server is being closed."""

SETTINGS = {
    "save": "",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
    # RQ keeps the result of each job in a stream of its own; its one entry would be given 4 KB.
    "stream-node-max-bytes": "512",
    # A job with some arguments takes half of the memory when its hash stays in one piece.
    "hash-max-ziplist-value": "1024",
}
"""What every embedded server is told, however it is reached."""


class Trouble(Exception):
    """There will be no server; the message is for the user."""


class Endpoint(ABC):
    """The way to the server of one state folder.

    Args:
        state: the state folder. The guardian, whose current folder it is, leaves it out: no path is
            absolute then, so that the folders around it can be renamed.
    """

    flags: tuple[str, ...]
    """Options of the interpreter that runs the guardian."""
    returns_when_removed: bool
    """Whether a server whose `path` was removed is started again (else that tells it to end)."""

    path: str
    """The file by which the server is found. While the server closes, CLOSED is added to it."""

    def __init__(self, state: Path = "") -> None:
        self.state = os.fspath(state)

    def at(self, name: str) -> str:
        """Return the path of a file in the state folder."""
        return os.path.join(self.state, name)

    # For those who look for the server ---

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL that redis.from_url, RQ's tools and FLOWQ_REDIS_URL understand; "" when unknown.

        A server that is not running may get another one.
        """

    @property
    def holder(self) -> str:
        """The process that has the data, for a message."""
        return read_holder(self.at(SERVER_LOCK))

    @property
    def other_host(self) -> str:
        """Which process of which other machine has the server; "" when none is known to."""
        return ""

    @abstractmethod
    def call(self, path: str | None = None) -> Connection:
        """Connect, and make sure that it is the server of this state.

        Errors: NotOurs, Refused; OSError when there is none.
        """

    def find(self) -> Connection | None:
        """Connect to the server of this state; None when it is not there."""
        try:
            return self.call()
        except (OSError, Refused):
            return None

    def find_refusal(self) -> str:
        """Return why the server, which is there, answers nobody who comes now; "" when it does."""
        try:
            self.call().close()
        except Refused as error:
            return str(error)
        except OSError:
            pass
        return ""

    def end_refusing(self) -> bool:
        """Tell a server to end that refuses to be told so. False: that is not possible here."""
        return False

    def announce_end(self) -> None:  # noqa: B027 - most have nothing to do
        """Make known that the server is told to end, where its end alone does not show that."""

    def forget_server(self) -> None:  # noqa: B027 - most have nothing to do
        """Remove what led to a server that was told to end, now that it has."""

    @abstractmethod
    def try_lock(self, name: str, *, shared: bool = False) -> Lock | None:
        """Take a lock of the state without waiting; None when another process has it."""

    @abstractmethod
    def try_data(self) -> Lock | None:
        """Take the data without waiting; None while a server may have its hands on them.

        Only for a holder of the guardian's lock, or for a moment. Nothing is changed by it.
        """

    def is_free(self) -> bool:
        """Whether neither a guardian nor a server is at work."""
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
        """Choose where the server is to be, and return the arguments of its program.

        Errors: Trouble, Untrusted, OSError.
        """

    def was_taken(self) -> bool:
        """Whether another program has taken what `prepare` chose. Then it chooses anew."""
        return False

    @abstractmethod
    def discard(self) -> None:
        """Remove all that leads to a server which has ended. Idempotent."""

    def adopt(self) -> Connection | None:
        """Connect to the server that another guardian has left behind; None when it is not there.

        That guardian may have died while it closed the server: then this opens it again.
        """
        for path in (self.path, self.path + CLOSED):
            with suppress(OSError, Refused):
                connection = self.call(path)
                if path != self.path:
                    private.replace(path, self.path)
                return connection
        return None

    def is_shown(self) -> bool:
        """Whether the server can be found."""
        return os.path.exists(self.path)

    def hide(self) -> None:
        """Let nobody find the server any more."""
        private.replace(self.path, self.path + CLOSED)

    def show(self) -> None:
        """Let a server that was hidden be found again. Idempotent."""
        with suppress(FileNotFoundError):
            private.replace(self.path + CLOSED, self.path)


def endpoint_of(state: Path) -> Endpoint:
    """Return the endpoint of a state folder, of the kind that this platform has."""
    return UnixEndpoint(state) if has_unix_sockets() else TcpEndpoint(state)


def has_unix_sockets() -> bool:
    """Whether a server on a Unix socket is possible here."""
    return hasattr(os, "posix_spawn") and hasattr(socket, "AF_UNIX")


# A Unix socket -----------------------------------------------------------------------------------

# Linux has 108 bytes for the path of a socket, macOS and the BSDs 104, each with a closing zero.
SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
SHORT = "flowq-socket-"


class UnixEndpoint(Endpoint):
    """A socket in the state folder or, where its path is too long, in a private folder elsewhere.

    The lock of the data is inherited by the server: it is held as long as either the guardian or
    the server lives.
    """

    # Without `site` an interpreter starts in a third of the time; the first command waits for it.
    flags = ("-I", "-S")
    returns_when_removed = True

    def __init__(self, state: Path = "") -> None:
        super().__init__(state)
        self.path = self.at(self._read_where())
        self._is_own = False  # a copied state notes the socket of the original

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
            raise FileNotFoundError(f"{path} is no socket of ours")
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
        # The system says who listens, and the lock of the data who was started for this state: a
        # copied state may note the socket of another one.
        try:
            with closing(Connection(self.path)) as connection:
                pid = connection.find_peer()
        except OSError:
            return False
        if not pid or self.is_free() or self.holder != describe_process(pid):
            return False
        with suppress(OSError, Refused), closing(Connection(self.path)) as connection:
            connection.ask("SHUTDOWN", "NOSAVE")  # a full one takes only the signal
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
        """Return where the socket is: its name in the state folder, or an absolute path.

        A path out of the state folder is believed only if it leads into a private folder of ours
        that was made for sockets.
        """
        try:
            path = private.read(self.at(WHERE)).decode().rstrip("\n")
        except (OSError, ValueError):
            return SOCKET
        return path if _is_in_short_folder(path) else SOCKET

    def _discard_stale(self) -> None:
        """Remove the socket that a killed server has left elsewhere, if nobody listens there.

        The server of another folder may, of which this one is a copy.
        """
        if not self._is_own and private.is_own_socket(self.path):
            try:
                Connection(self.path).close()
            except OSError:
                _discard_socket(self.path)

    def _place(self) -> str:
        """Choose where the socket is to be, and note it. Errors: Trouble, Untrusted, OSError."""
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
    """Whether the server keeps its data in the folder `data`, whatever that is called now."""
    answer = connection.ask("CONFIG", "GET", "dir")
    if not isinstance(answer, list) or len(answer) < 2 or not isinstance(answer[1], bytes):
        return False
    try:
        return os.path.samefile(os.fsdecode(answer[1]), data)  # noqa: PTH121 - see above
    except OSError:
        return False


def _discard_socket(path: str) -> None:
    """Remove a socket, and the folder that was made for it if it is not the state folder."""
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
    raise Trouble("no folder has a path that is short enough for a socket; set XDG_RUNTIME_DIR")


def _forget(*paths: str) -> None:
    for path in paths:
        with suppress(OSError):
            os.unlink(path)


# TCP on loopback ---------------------------------------------------------------------------------

HOST = "127.0.0.1"
PROOF_USER = "proof"
FOREIGN = ("WRONGPASS", "password", "unknown command")
"""What is in the refusals of a server that has another password, or none, or is no Redis.

Our own refuses too: while a script runs (BUSY), or when it has as many clients as it may.
"""


class Address(NamedTuple):
    """Where a server listens.

    `password` is what we show to it. `proof` is what it shows to us, and what nobody ever sends to
    it: whoever took over its port, and was shown the password, does not know that.
    """

    port: int
    password: str
    proof: str


class TcpEndpoint(Endpoint):
    """A port of 127.0.0.1. Its number and its secrets are in the state, for our eyes only.

    A server does not inherit locks here: whether one has the data is asked of the address. So that
    is written before the server starts, and kept when its guardian dies.
    """

    flags = ("-P",)  # the server of `fake.py` needs what is installed
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
        return f"redis://:{address.password}@{HOST}:{address.port}/0?protocol=2"  # all speak that

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
        """As above. What accepts a connection may have them, unless it shows that it has not."""
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
        # Not removed: until the server has ended, that is where `try_data` asks for it.
        with suppress(OSError):  # its guardian may just have hidden it
            self.hide()

    def forget_server(self) -> None:
        _forget(self.path + CLOSED)

    def prepare(self, *, is_persistent: bool) -> list[str]:
        # At the same address as before, if there was one: workers that are left go on.
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
        # Not on the server's command line, which others can see.
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
    """Return an address with a port that is free at the moment, and new secrets."""
    import secrets  # noqa: PLC0415 - not for the guardian of a socket

    with socket.create_server((HOST, 0)) as probe:
        port = int(probe.getsockname()[1])
    return Address(port, secrets.token_urlsafe(32), secrets.token_hex(32))


def read_address(path: Path) -> Address | None:
    """Return the address in a file, if there is one.

    A newer version may have written it: what only that one knows is ignored.
    """
    import json  # noqa: PLC0415 - not for the guardian of a socket

    try:
        said = json.loads(private.read(path))
        address = Address(*(said[name] for name in Address._fields))
        return address if 0 < address.port < 65_536 else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_address(path: Path, address: Address) -> None:
    """Let others find the server. Errors: OSError."""
    import json  # noqa: PLC0415 - not for the guardian of a socket

    private.write_whole(path, json.dumps(address._asdict()).encode())
