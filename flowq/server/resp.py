"""The few questions that must be asked before the redis client is loaded, which takes 200 ms."""

from __future__ import annotations

import socket
import sys
import time
from contextlib import suppress

CLIENT_NAME = "flowq-guardian"
PROBE = "DBSIZE"
"""Answered by every server that has loaded its data. PING is refused by one whose disk is full."""

ANSWER_S = 5.0
"""How long a connection waits for an answer unless it is told otherwise."""

FULL = "max number of clients reached"
"""In what a server says, before it hangs up, that has as many clients as it may."""

BUSY = "BUSY"
"""How it begins what it says while it executes a long script."""

Reply = None | int | bytes | list["Reply"]


class Refused(Exception):
    """The server answered with an error."""


Address = str | tuple[str, int]
"""The path of a Unix socket, or a host and its port."""


class Connection:
    """A connection to the server at an address.

    Errors: OSError when the server is not there (any more), Refused when it says no.
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
        return self._read()

    def read_info(self, section: str, name: str) -> int:
        """Return a figure of INFO; 0 when this server does not tell it."""
        answer = self.ask("INFO", section)
        text = answer.decode(errors="replace") if isinstance(answer, bytes) else ""
        for line in text.splitlines():
            if line.startswith(name + ":"):
                return int(line[len(name) + 1 :])
        return 0

    def _read(self) -> Reply:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server hung up")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Refused(rest.decode(errors="replace"))
        if kind == b"$":
            return None if rest == b"-1" else self._read_text(int(rest))
        if kind == b"*":
            return None if rest == b"-1" else [self._read() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest

    def _read_text(self, size_bytes: int) -> bytes:
        text = self._file.read(size_bytes + 2)
        if len(text) < size_bytes + 2:
            raise ConnectionResetError("the server hung up")
        return text[:-2]


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
