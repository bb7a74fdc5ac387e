"""Serves the page in this process until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from flowq.ui.guard import MAX_HEADER_BYTES

END_S = 0.7
"""How long requests may go on after a signal; those of open pages would never end."""

KEPT_ALIVE_S = 30
HEAD_S = 10.0
"""How long a connection may take to send the head of its next request, once it has begun."""

MAX_CONNECTIONS = 400
SPARE_FILES = 56
"""Beyond the limit, connections are closed at once. So many files are left for other uses: the
page connects to the server of the runs, and reads files, even if strangers open all they can."""


ACCEPTED_AT_ONCE = 16
"""So that those that are too many are closed before more are accepted."""


class _Connection(H11Protocol):
    """A connection that ends if it sends no whole request in time, or is one too many.

    Whoever can connect needs no token for that. Without, a process has no files left.
    """

    most = MAX_CONNECTIONS
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or close at once."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
        else:
            self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        super().data_received(data)
        if self._is_serving:
            self._stop_waiting()
        elif self._timer is None:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_head(self) -> None:
        self._timer = self.loop.call_later(HEAD_S, self._end_if_idle)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_if_idle(self) -> None:
        self._timer = None
        if not self._is_serving:
            self.transport.abort()


class _Server(uvicorn.Server):
    """A server that ends at the first signal, even if a request hangs."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal, and leave if the end takes too long."""
        super().handle_exit(sig, frame)
        timer = threading.Timer(END_S, _leave)
        timer.daemon = True
        timer.start()


def _leave() -> None:
    """Leave without waiting for threads, which may wait for the server of the runs."""
    sys.stdout.flush()
    os._exit(0)


def serve(application: ASGIApp, listener: socket.socket) -> None:
    """Serve an application on a socket until SIGINT or SIGTERM. Blocks.

    No log has addresses of requests. Headers in which a proxy says who asked are not read.
    """
    config = uvicorn.Config(
        application,
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # its warnings are about what strangers have sent
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEPT_ALIVE_S,
        timeout_graceful_shutdown=0,
        backlog=ACCEPTED_AT_ONCE,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    _Connection.most = _find_room()
    server = _Server(config)
    # Without it, the loop writes a traceback for each connection that it cannot accept.
    logging.getLogger("asyncio").addFilter(lambda record: "socket.accept()" not in record.msg)
    # Requests that the end cuts off are no news.
    logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
    server.run(sockets=[listener])


def _find_room() -> int:
    """Return how many connections there may be, with the files that this process may open."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource  # noqa: PLC0415 - not on Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, (soft - SPARE_FILES) // 2))
