"""Servers that a test starts, of the program that the embedded server is made of."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis

from flowq.server.binary import find_binary

READY_S = 20.0


def free_port() -> int:
    """Return a TCP port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Started:
    """A server that runs on 127.0.0.1."""

    port: int
    process: subprocess.Popen[bytes]
    connection: redis.Redis

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


class Servers:
    """Starts servers, which end with the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, *options: str, config: str = "") -> Started:
        """Start a server that keeps nothing, and wait until it answers."""
        port = free_port()
        folder = self._folder / str(port)
        folder.mkdir()
        file = folder / "server.conf"
        file.write_text(f'port {port}\nbind 127.0.0.1\ndir {folder}\nsave ""\n{config}\n')
        process = subprocess.Popen(
            [str(find_binary()), str(file), *options], stdout=subprocess.DEVNULL
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        started = Started(port, process, redis.Redis(port=port))
        self._stack.callback(started.connection.close)
        wait_until(lambda: answers(started.connection), READY_S)
        return started


def answers(connection: Any) -> bool:
    """Whether the server is there."""
    try:
        return bool(connection.ping())
    except redis.RedisError:
        return False


def wait_until(predicate: Any, within_s: float) -> None:
    """Fail when the predicate does not become true in time."""
    deadline = time.monotonic() + within_s
    while not predicate():
        assert time.monotonic() < deadline, f"it did not happen within {within_s} s: {predicate}"
        time.sleep(0.01)
