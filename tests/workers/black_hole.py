"""A proxy in front of a server that can swallow everything, as a network does that is cut."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Self

CHUNK_BYTES = 256 * 1024


class BlackHole:
    """Passes on between 127.0.0.1 and the server on a Unix socket, until it is told not to.

    What was connected when a cut came stays silent for ever, and nobody closes it; whoever connects
    during the cut is silent too, and whoever does after `mend` is served.
    """

    def __init__(self, path: str, pause_s: float = 0.0) -> None:
        self._path = path
        self._pause_s = pause_s
        self._state = threading.Condition()
        self._is_cut = False
        self._lines: list[Line] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        if pause_s:  # or the kernel would take everything at once
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK_BYTES)
        self._port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        for line in self._lines:
            line.close()
        self.deliver()

    def url(self, limit_s: float) -> str:
        """Return the URL of the server behind, with that limit for an answer."""
        return f"redis://127.0.0.1:{self._port}/0?socket_timeout={limit_s}"

    def cut(self, saying: bytes = b"") -> None:
        """Swallow what comes on connections that have said this, and keep them open."""
        with self._state:
            self._is_cut = not saying
            for line in self._lines:
                line.is_dead = line.is_dead or line.has_said(saying)

    def mend(self) -> None:
        """Serve those who connect from now on."""
        with self._state:
            self._is_cut = False
            self._state.notify_all()

    def deliver(self) -> None:
        """Pass on, late, what was swallowed."""
        with self._state:
            for line in self._lines:
                line.is_dead = False
            self._state.notify_all()

    def count(self, saying: bytes) -> int:
        """Return how many connections have said this."""
        with self._state:
            return sum(line.has_said(saying) for line in self._lines)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
                line = Line(client, server)
                with self._state:
                    line.is_dead = self._is_cut
                    self._lines.append(line)
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(line, *ends), daemon=True).start()

    def _pass_on(self, line: Line, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                with self._state:
                    if source is line.client:
                        line.said += data[:1_000]
                    self._state.wait_for(lambda: not line.is_dead)
                time.sleep(self._pause_s)
                sink.sendall(data)
        with self._state:
            self._state.wait_for(lambda: not line.is_dead)  # nor does an end come through
        line.close()


class Line:
    """One connection through the proxy. `said`: what came from the client, long things cut."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.is_dead = False
        self.said = b""

    def has_said(self, words: bytes) -> bool:
        """Whether the client has said this."""
        return words in self.said

    def close(self) -> None:
        """End both sides. Idempotent."""
        for each in (self.client, self.server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
