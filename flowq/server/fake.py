"""A fallback server: fakeredis on loopback, for small runs, without persistence.

If no server program is found (mostly on Windows) and fakeredis is installed, the guardian runs this
module instead, with the same settings file. fakeredis provides the commands. This module adds
features that its TCP server lacks: a password check, errors that do not close the connection,
commands that RQ and the guardian need (INFO, CLIENT INFO, CLIENT LIST, SHUTDOWN), and delivery of
messages to subscribers on every platform. It speaks RESP2.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hiredis

PUSH_S = 0.01
"""The longest delay of a message to a subscriber."""

PREFIX_BY_ERROR = {
    "NoScriptError": "NOSCRIPT ",
    "ExecAbortError": "EXECABORT ",
    "ReadOnlyError": "READONLY ",
    "NoPermissionError": "NOPERM ",
}
"""The prefixes that redis-py removes from error messages, and that clients need."""


def is_installed() -> bool:
    """Whether the packages that it needs are installed."""
    return all(find_spec(name) for name in ("fakeredis", "lupa"))


class FakeServer:
    """One server. `settings` are the settings that the endpoint has written, by name."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        import fakeredis  # noqa: PLC0415 - an extra, which others do not need

        self.port = int(settings["port"])
        self.password = settings["requirepass"].encode()
        self.proof = settings["user"].rpartition("#")[2].encode()
        self.fake: Any = fakeredis.FakeServer(server_type="redis", version=(7, 4))
        self.clients: list[Client] = []
        self.received = 0

    def serve(self) -> None:
        """Serve until a client sends SHUTDOWN."""
        with socket.create_server(("127.0.0.1", self.port)) as listening:
            while True:
                accepted, _ = listening.accept()
                self.received += 1
                threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with accepted, suppress(OSError):  # it may have hung up already
            Client(self, accepted).serve()

    def info(self) -> str:
        """Return the answer to INFO."""
        figures = {
            "redis_version": "7.4.0",
            "flowq_fake": 1,
            "process_id": os.getpid(),
            "connected_clients": len(self.clients),
            "total_connections_received": self.received,
            "maxmemory_policy": "noeviction",
            "aof_enabled": 0,
            "role": "master",
        }
        return "".join(f"{name}:{value}\r\n" for name, value in figures.items())


class Client:
    """One connection, with a thread of its own."""

    def __init__(self, server: FakeServer, accepted: socket.socket) -> None:
        from fakeredis import FakeRedisConnection  # noqa: PLC0415 - see above

        self.server = server
        self.name = b""
        self.host, self.port = accepted.getpeername()[:2]
        self._socket = accepted
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._is_known = False
        self._is_subscriber = False
        about = {
            "laddr": accepted.getsockname(),
            "addr": (self.host, self.port),
            "fd": accepted.fileno(),
        }
        self._fake: Any = FakeRedisConnection(server=server.fake, protocol=2, client_info=about)
        server.clients.append(self)

    def serve(self) -> None:
        """Answer until the client hangs up."""
        try:
            self._serve()
        finally:
            self.server.clients.remove(self)
            self._fake.disconnect()

    def _serve(self) -> None:
        reader = hiredis.Reader()
        while data := self._socket.recv(65536):
            reader.feed(data)
            answers = []
            while (words := reader.gets()) is not False:
                answers.append(self._answer(words))
            self._socket.sendall(b"".join(answers))
            while self._is_subscriber and not select.select([self._socket], [], [], PUSH_S)[0]:
                while self._fake.can_read():
                    self._socket.sendall(encode(self._read()))

    def _answer(self, words: list[bytes]) -> bytes:
        name = words[0].upper()
        if name == b"AUTH":
            self._is_known = secrets.compare_digest(words[-1], self.server.password)
            return b"+OK\r\n" if self._is_known else b"-WRONGPASS wrong password.\r\n"
        if name == b"HELLO" and words[1:2] != [b"2"]:
            return b"-NOPROTO this server speaks RESP2: add ?protocol=2 to the URL\r\n"
        if not self._is_known:
            return b"-NOAUTH Authentication required.\r\n"
        ours = self._find_own([word.upper() for word in words[:2]])
        return ours(words) if ours else self._pass_on(words)

    def _find_own(self, names: list[bytes]) -> Callable[[list[bytes]], bytes] | None:
        return {
            b"INFO": lambda _: encode(self.server.info()),
            b"CONFIG GET": lambda _: encode([]),
            b"ACL GETUSER": lambda _: encode(["passwords", [self.server.proof]]),
            b"CLIENT INFO": lambda _: encode(self.describe()),
            b"CLIENT LIST": lambda _: encode("\n".join(map(Client.describe, self.server.clients))),
            b"CLIENT SETNAME": self._take_name,
            b"SHUTDOWN": lambda _: os._exit(0),
        }.get(names[0] if names[0] in (b"INFO", b"SHUTDOWN") else b" ".join(names))

    def describe(self) -> str:
        """Return the client's line in CLIENT LIST."""
        return f"id={self.port} addr={self.host}:{self.port} name={self.name.decode()} db=0"

    def _take_name(self, words: list[bytes]) -> bytes:
        self.name = words[2]
        return b"+OK\r\n"

    def _pass_on(self, words: list[bytes]) -> bytes:
        count = 1
        if words[0].upper() in (b"SUBSCRIBE", b"PSUBSCRIBE"):
            self._is_subscriber = True
            count = len(words) - 1
        self._fake.get_socket().sendall(hiredis.pack_command(tuple(words)))  # type: ignore[arg-type]
        return b"".join(encode(self._read()) for _ in range(count))

    def _read(self) -> Any:
        from redis.exceptions import RedisError  # noqa: PLC0415 - see above

        try:
            return self._fake.read_response()
        except RedisError as error:
            return error


def encode(value: Any) -> bytes:
    """Return a reply as RESP2."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, Exception):
        return f"-{error_text(value)}\r\n".encode()
    if isinstance(value, bool | int):
        return b":%d\r\n" % value
    if isinstance(value, float | str):
        value = str(value).encode()
    if isinstance(value, bytes):
        return b"+%s\r\n" % value if value in SIMPLE else b"$%d\r\n%s\r\n" % (len(value), value)
    parts = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
    return b"*%d\r\n" % len(parts) + b"".join(map(encode, parts))


SIMPLE = (b"OK", b"PONG", b"QUEUED")
"""Answers that are sent as a status."""


def error_text(error: Exception) -> str:
    """Return the message of an error, with its first word in capitals."""
    text = " ".join(str(error).split())
    prefix = PREFIX_BY_ERROR.get(type(error).__name__, "")
    return prefix + text if prefix or text.partition(" ")[0].isupper() else f"ERR {text}"


def main(words: list[str]) -> int:
    """Run with FAKE and the path of the settings that the endpoint has written."""
    lines = Path(words[1]).read_text(encoding="utf-8").splitlines()
    FakeServer({name: value for name, _, value in (line.partition(" ") for line in lines)}).serve()
    return 0
