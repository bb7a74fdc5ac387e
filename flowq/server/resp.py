"""A small Redis client for processes that must not load redis-py, which takes 200 ms."""

from __future__ import annotations

import socket
import sys
import time
from contextlib import suppress
from typing import NoReturn

CLIENT_NAME = "flowq-guardian"
PROBE = "DBSIZE"
"""Every server that has loaded its data answers this. One whose disk is full refuses PING."""

ANSWER_S = 5.0
"""How long a connection waits for an answer by default."""

FULL = "max number of clients reached"
"""Part of the error of a server that has no room for another client, before it hangs up."""

BUSY = "BUSY"
"""The beginning of the error of a server that executes a long script."""

HEAR_S = 1.0
HANG_UPS = 3
"""A process that hangs up so often without an error is taken for another program."""

LONGEST_LINE_BYTES, LONGEST_TEXT_BYTES = 65_536, 2**26
DEEPEST = 8
"""Limits of an answer: the program that listens on a port may be any."""

Reply = None | int | bytes | list["Reply"]


class Refused(Exception):
    """The server answered with an error."""


class NotOurs(ConnectionRefusedError):
    """Another program listens on the address."""


Address = str | tuple[str, int]
"""The path of a Unix socket, or a host and its port."""


class Connection:
    """A connection to the server at an address.

    Errors: OSError if the server is gone; Refused if it answers with an error; NotOurs if the
    answer is not one of Redis.
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
        """The descriptor for `select`: readable without a command if the server has hung up."""
        return self.socket.fileno()

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._file.close()
        self.socket.close()

    def find_peer(self) -> int:
        """Return the process that listens on a Unix socket; 0 if the system does not tell."""
        if not hasattr(socket, "SO_PEERCRED"):
            return 0
        credentials = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(credentials[:4], sys.byteorder)  # pid, uid, gid

    def ask(self, *words: str) -> Reply:
        """Send one command and return its reply. Blocks: up to the connection's `timeout_s`."""
        parts = [word.encode() for word in words]
        body = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        with suppress(ConnectionError):  # a full server sends its error, then hangs up
            self.socket.sendall(b"*%d\r\n%s" % (len(parts), body))
        return self.read()

    def read_info(self, section: str, name: str) -> int:
        """Return a number from INFO; 0 if the server does not have it."""
        answer = self.ask("INFO", section)
        text = answer.decode(errors="replace") if isinstance(answer, bytes) else ""
        for line in text.splitlines():
            if line.startswith(name + ":"):
                return int(line[len(name) + 1 :])
        return 0

    def read(self, depth: int = 0) -> Reply:
        """Read an answer; `depth` is the number of lists around it."""
        line = self._file.readline(LONGEST_LINE_BYTES)
        kind, rest = line[:1], line[1:-2]
        if depth > DEEPEST or kind not in b"+-:$*":
            raise NotOurs("what listens there is not Redis")
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")
        if kind == b"-":
            raise Refused(rest.decode(errors="replace"))
        if kind == b"+":
            return rest
        try:
            size = int(rest)
        except ValueError:
            raise NotOurs("what listens there is not Redis") from None
        if kind == b":" or size < 0:
            return size if kind == b":" else None
        if kind == b"$":
            return self._read_text(size)
        return [self.read(depth + 1) for _ in range(size)]

    def _read_text(self, size_bytes: int) -> bytes:
        if size_bytes > LONGEST_TEXT_BYTES:
            raise NotOurs("what listens there is not Redis")
        text = self._file.read(size_bytes + 2)
        if len(text) < size_bytes + 2:
            raise ConnectionResetError("the server closed the connection")
        return text[:-2]


def explain_hang_up(address: Address) -> NoReturn:
    """Find out why the program at an address hung up: connect, send nothing, and read.

    A full server sends an error when it hangs up. TCP loses that error if data is on its way to
    the server at that moment, so this sends nothing.

    Errors: Refused with the server's error; NotOurs; TimeoutError if it sends nothing;
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
    raise NotOurs("what listens there closes the connection without an answer")


def is_guarded(connection: Connection) -> bool:
    """Whether a guardian is connected to the server."""
    clients = connection.ask("CLIENT", "LIST")
    return isinstance(clients, bytes) and f" name={CLIENT_NAME} ".encode() in clients


def await_loaded(connection: Connection) -> None:
    """Wait until the server has loaded its data. Blocks as long as that takes."""
    while True:
        try:
            connection.ask(PROBE)
            return
        except Refused as error:
            if not str(error).startswith("LOADING"):
                raise
        time.sleep(0.02)
