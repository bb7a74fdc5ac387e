"""The few commands that must be sent before the redis client is loaded, which takes 200 ms."""

from __future__ import annotations

import socket
import sys
import time
from contextlib import suppress
from typing import NoReturn

CLIENT_NAME = "flowq-guardian"
PROBE = "DBSIZE"
"""Answered by every server that has loaded its data. PING is refused by one whose disk is full."""

ANSWER_S = 5.0
"""How long a connection waits for an answer unless it is told otherwise."""

FULL = "max number of clients reached"
"""In what a server says, before it hangs up, that has as many clients as it may."""

BUSY = "BUSY"
"""How it begins what it says while it executes a long script."""

HEAR_S = 1.0
HANG_UPS = 3
"""So often what listens hangs up without a word before it is taken for another program."""

LONGEST_LINE_BYTES, LONGEST_TEXT_BYTES = 65_536, 2**26
DEEPEST = 8
"""Limits of what is taken for an answer: what listens at a port may be any program."""

Reply = None | int | bytes | list["Reply"]


class Refused(Exception):
    """The server answered with an error."""


class NotOurs(ConnectionRefusedError):
    """Another program listens there."""


Address = str | tuple[str, int]
"""The path of a Unix socket, or a host and its port."""


class Connection:
    """A connection to the server at an address.

    Errors: OSError when the server is not there (any more), Refused when it says no, NotOurs when
    what it says is no answer of a Redis.
    """

    def __init__(self, address: Address, timeout_s: float | None = None) -> None:
        is_path = isinstance(address, str)
        self.socket = socket.socket(socket.AF_UNIX if is_path else socket.AF_INET)
        try:
            self.socket.settimeout(timeout_s or ANSWER_S)
            self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise
        self._file = self.socket.makefile("rb")

    def fileno(self) -> int:
        """The descriptor, for select; readable without a question means that the server is gone."""
        return self.socket.fileno()

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._file.close()
        self.socket.close()

    def find_peer(self) -> int:
        """Return the process that listens at a Unix socket; 0 where the system does not tell."""
        if not hasattr(socket, "SO_PEERCRED"):
            return 0
        credentials = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(credentials[:4], sys.byteorder)  # pid, uid, gid

    def ask(self, *words: str) -> Reply:
        """Send one command and return its reply. Blocks: up to the connection's `timeout_s`."""
        parts = [word.encode() for word in words]
        body = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        with suppress(ConnectionError):  # a server that is full says so before it hangs up
            self.socket.sendall(b"*%d\r\n%s" % (len(parts), body))
        return self.read()

    def read_info(self, section: str, name: str) -> int:
        """Return a figure of INFO; 0 when this server does not tell it."""
        answer = self.ask("INFO", section)
        text = answer.decode(errors="replace") if isinstance(answer, bytes) else ""
        for line in text.splitlines():
            if line.startswith(name + ":"):
                return int(line[len(name) + 1 :])
        return 0

    def read(self, depth: int = 0) -> Reply:
        """Return the next answer, which is `depth` lists deep in another one."""
        line = self._file.readline(LONGEST_LINE_BYTES)
        kind, rest = line[:1], line[1:-2]
        if depth > DEEPEST or kind not in b"+-:$*":
            raise NotOurs("what listens there is no Redis")
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server hung up")
        if kind == b"-":
            raise Refused(rest.decode(errors="replace"))
        if kind == b"+":
            return rest
        try:
            size = int(rest)
        except ValueError:
            raise NotOurs("what listens there is no Redis") from None
        if kind == b":" or size < 0:
            return size if kind == b":" else None
        if kind == b"$":
            return self._read_text(size)
        return [self.read(depth + 1) for _ in range(size)]

    def _read_text(self, size_bytes: int) -> bytes:
        if size_bytes > LONGEST_TEXT_BYTES:
            raise NotOurs("what listens there is no Redis")
        text = self._file.read(size_bytes + 2)
        if len(text) < size_bytes + 2:
            raise ConnectionResetError("the server hung up")
        return text[:-2]


def explain_hang_up(address: Address) -> NoReturn:
    """Find out why what listens at an address hung up, from what it says to one who is silent.

    A server that is full says so when it hangs up. Its words are lost if something is on its way to
    it at that moment, as TCP has it; so here nothing is sent.

    Errors: Refused with its words; NotOurs; TimeoutError if it is silent as well;
    ConnectionRefusedError if it has ended.
    """
    for _ in range(HANG_UPS):
        connection = Connection(address, HEAR_S)
        try:
            connection.read()
        except NotOurs:
            raise
        except ConnectionError:
            continue
        finally:
            connection.close()
        raise NotOurs("what listens there speaks first, as no Redis does")
    raise NotOurs("what listens there hangs up without a word")


def is_guarded(connection: Connection) -> bool:
    """Whether a guardian is connected to the server."""
    clients = connection.ask("CLIENT", "LIST")
    return isinstance(clients, bytes) and f" name={CLIENT_NAME} ".encode() in clients


def await_loaded(connection: Connection) -> None:
    """Wait while the server loads its data, however long that takes."""
    while True:
        try:
            connection.ask(PROBE)
            return
        except Refused as error:
            if not str(error).startswith("LOADING"):
                raise
        time.sleep(0.02)
