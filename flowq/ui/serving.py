"""Serves the page in this process until a signal ends it."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

END_S = 0.7
"""How long requests may go on after a signal; those of open pages would never end."""

KEPT_ALIVE_S = 30
MAX_HEADER_BYTES = 32_000


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
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # its warnings are about what strangers have sent
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEPT_ALIVE_S,
        timeout_graceful_shutdown=0,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    server = _Server(config)
    # Requests that the end cuts off are no news.
    logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
    server.run(sockets=[listener])
