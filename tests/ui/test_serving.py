"""Strangers who only connect: they have no token, and end neither the page nor the disk."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

HANGS_S = 60
"""Only what hangs for ever takes so long."""

FILES = 100
PAGE = f"""
import resource, socket, sys
from flowq.ui import serving

async def application(scope, receive, send):
    await send({{"type": "http.response.start", "status": 204, "headers": []}})
    await send({{"type": "http.response.body", "body": b""}})

serving.HEAD_S = 0.5
resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
serving.serve(application, listener)
"""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port of a page that may open few files; its log is `log` in the folder."""
    with Path(tmp_path, "log").open("wb") as log:
        page = subprocess.Popen([sys.executable, "-c", PAGE], stdout=subprocess.PIPE, stderr=log)
        try:
            assert page.stdout is not None
            yield int(page.stdout.readline())
        finally:
            page.kill()
            page.communicate()


def connect(port: int, said: bytes) -> socket.socket:
    stranger = socket.create_connection(("127.0.0.1", port), HANGS_S)
    with suppress(OSError):  # it may be closed at once
        stranger.sendall(said)
    return stranger


def is_closed(stranger: socket.socket) -> bool:
    """Wait until the page closes the connection, without a reply."""
    try:
        return stranger.recv(100) == b""
    except ConnectionError:
        return True


def is_closed_after(byte: bytes, stranger: socket.socket) -> bool:
    """Send a byte more, and return whether the page has closed the connection meanwhile."""
    try:
        stranger.sendall(byte)
        return stranger.recv(100) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def ask(port: int) -> bytes:
    """Return the reply to a whole request; b"" if there is none."""
    try:
        with connect(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as client:
            return client.recv(100)
    except ConnectionError:
        return b""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_who_only_connects_is_closed_and_fills_neither_files_nor_the_log(port: int, tmp_path: Path):
    strangers = [connect(port, b"GET / HTTP/1.1\r\n") for _ in range(3 * FILES)]
    silent = connect(port, b"")

    assert all(is_closed(each) for each in (*strangers, silent))
    assert ask(port).startswith(b"HTTP/1.1 204")
    assert Path(tmp_path, "log").stat().st_size < 10_000


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_head_that_comes_byte_by_byte_ends_in_time_also_after_a_request(port: int):
    with connect(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as slow:
        assert slow.recv(1_000).startswith(b"HTTP/1.1 204")
        slow.settimeout(0.05)
        while not is_closed_after(b"G", slow):
            pass
