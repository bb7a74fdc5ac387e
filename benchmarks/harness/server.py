"""One private server for all, and what it counts.

It is the embedded server of flowq, which ends with this process and keeps nothing, asked to listen
on a free TCP port of the loopback too, because not every peer can use a Unix socket.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis import Redis

from flowq.server import temporary

SETTINGS = {
    "bind": "127.0.0.1",
    "lazyfree-lazy-user-flush": "no",  # or the end of one run would fall into the next one
    "latency-tracking": "no",  # its histograms would count as memory of the first jobs
}


@dataclass(frozen=True, slots=True)
class Counts:
    """What the server had done up to a moment."""

    commands: int
    reads: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class PrivateServer:
    """The server that everything runs against."""

    port: int
    unix_url: str
    connection: Redis

    @property
    def url(self) -> str:
        """Its URL, for those who use TCP."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def name(self) -> str:
        """What it is, as in `valkey 9.1.0`."""
        info: Any = self.connection.info("server")
        name = info.get("server_name", "redis")
        return f"{name} {info.get(f'{name}_version', info['redis_version'])}"

    def empty(self) -> None:
        """Remove everything, and wait for it. The server is ours alone."""
        self.connection.flushall()

    def count(self) -> Counts:
        """Read its counts; commands inside scripts are among them."""
        info: Any = self.connection.info()
        return Counts(
            commands=info["total_commands_processed"],
            reads=info.get("total_reads_processed", 0),
            cpu_s=info["used_cpu_sys"] + info["used_cpu_user"],
        )

    def measure_data(self) -> int:
        """Return the bytes that the data take: the memory without the clients' buffers."""
        info: Any = self.connection.info("memory")
        clients: Any = self.connection.client_list()
        buffers = sum(int(client.get("tot-mem", 0)) for client in clients)
        return int(info["used_memory"]) - int(info.get("used_memory_scripts_eval", 0)) - buffers


@contextmanager
def private_server() -> Iterator[PrivateServer]:
    """Run a server for as long as the block."""
    with temporary() as server:
        connection = server.connect()
        port = _free_port()
        for name, value in SETTINGS.items():
            connection.config_set(name, value)
        connection.config_set("port", port)
        yield PrivateServer(port, server.url, connection)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
