"""Servers that a test starts, of the program that the embedded server is made of."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis

from flowq.server.embedded import find_binary

READY_S = 20.0
TRIES = 5


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

    @property
    def has_ended(self) -> bool:
        """Whether its process is gone."""
        return self.process.poll() is not None


class Servers:
    """Starts servers, which end with the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, *options: str, config: str = "", **login: str) -> Started:
        """Start a server that keeps nothing, and wait until it answers."""
        for _ in range(TRIES):
            started = self._start(options, config, login)
            wait_until(lambda each=started: each.has_ended or answers(each), READY_S)
            if not started.has_ended:
                return started
        raise AssertionError(f"it ended at once, {TRIES} times")

    def start_again(self, ended: Started) -> None:
        """Start a server again that was killed, with its configuration and its data."""
        file = self._folder / str(ended.port) / "server.conf"
        process = subprocess.Popen([str(find_binary()), str(file)], stdout=subprocess.DEVNULL)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)

    def _start(self, options: Sequence[str], config: str, login: Mapping[str, str]) -> Started:
        port = free_port()  # somebody else may take it before the server does
        folder = self._folder / str(port)
        folder.mkdir()
        file = folder / "server.conf"
        file.write_text(f'port {port}\nbind 127.0.0.1\ndir {folder}\nsave ""\n{config}\n')
        process = subprocess.Popen(
            [str(find_binary()), str(file), *options], stdout=subprocess.DEVNULL
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        started = Started(port, process, redis.Redis(port=port, **login))
        self._stack.callback(started.connection.close)
        return started


def answers(started: Started) -> bool:
    """Whether the server is there, and not another one that has taken its port."""
    try:
        return started.connection.info("server")["process_id"] == started.process.pid
    except redis.RedisError:
        return False


def wait_until(predicate: Any, within_s: float) -> None:
    """Fail when the predicate does not become true in time."""
    deadline = time.monotonic() + within_s
    while not predicate():
        assert time.monotonic() < deadline, f"it did not happen within {within_s} s: {predicate}"
        time.sleep(0.01)


# Kinds of servers --------------------------------------------------------------------------------


def make_cluster(servers: Servers, replicas_of: str = "") -> list[Started]:
    """Start three nodes that share the slots, and a replica of the one that has a key's slot."""
    nodes = [_start_node(servers) for _ in range(3 + bool(replicas_of))]
    size = 16384 // 3 + 1
    for number, node in enumerate(nodes[:3]):
        first, last = number * size, min((number + 1) * size, 16384) - 1
        node.connection.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        node.connection.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
    for node in nodes[1:]:
        bus = int(node.connection.config_get("cluster-port")["cluster-port"])
        nodes[0].connection.execute_command("CLUSTER MEET", "127.0.0.1", node.port, bus)
    wait_until(lambda: all(_is_whole(node, len(nodes)) for node in nodes), READY_S)
    if replicas_of:
        owner = find_owner(nodes, replicas_of)
        owner_id = owner.connection.execute_command("CLUSTER MYID").decode()
        nodes[3].connection.execute_command("CLUSTER REPLICATE", owner_id)
        wait_until(lambda: _is_in_sync(nodes[3]), READY_S)
    return nodes


def _start_node(servers: Servers) -> Started:
    config = (
        f"cluster-enabled yes\ncluster-port {free_port()}\ncluster-node-timeout 2000\n"
        "repl-diskless-sync-delay 0\n"
    )
    return servers.start(config=config)


def _is_whole(node: Started, count: int) -> bool:
    info = node.connection.execute_command("CLUSTER INFO")
    known = info["cluster_known_nodes"] if isinstance(info, dict) else _read(info, "known_nodes")
    state = info["cluster_state"] if isinstance(info, dict) else _read(info, "state")
    return state == "ok" and int(known) == count


def _read(info: bytes, name: str) -> str:
    return info.decode().partition(f"cluster_{name}:")[2].split()[0]


def _is_in_sync(node: Started) -> bool:
    return node.connection.info("replication").get("master_link_status") == "up"


def find_owner(nodes: list[Started], key: str) -> Started:
    """Return the primary that has the slot of a key."""
    for node in nodes:
        try:
            node.connection.exists(key)
        except redis.ResponseError:  # MOVED
            continue
        if node.connection.info("replication")["role"] == "master":
            return node
    raise AssertionError("nobody has that slot")


class TlsProxy:
    """Speaks TLS in front of a server, whose program in the wheel does not."""

    def __init__(self, folder: Path, port: int) -> None:
        self.certificate = make_certificate(folder)
        self._target = port
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, folder / "key.pem")
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept nobody any more."""
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):  # also what the handshake raises
            outer = self._context.wrap_socket(client, server_side=True)
            inner = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=_pass_on, args=(inner, outer), daemon=True).start()
            _pass_on(outer, inner)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def make_certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1 that vouches for itself, with `key.pem` beside it."""
    certificate = folder / "ca.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=flowq test", "-addext"]
    command += ["subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key.pem")]
    subprocess.run([*command, "-out", str(certificate)], check=True, capture_output=True)
    return certificate


# --- servers that refuse ---


def replicate(connection: redis.Redis) -> None:
    connection.execute_command("REPLICAOF", "127.0.0.1", "1")


def be_primary(connection: redis.Redis) -> None:
    connection.execute_command("REPLICAOF", "NO", "ONE")


def setting(name: str, value: object) -> Callable[[redis.Redis], object]:
    return lambda connection: connection.config_set(name, value)


REFUSALS: dict[str, tuple[Callable[[redis.Redis], object], Callable[[redis.Redis], object]]] = {
    "OOM": (setting("maxmemory", 1), setting("maxmemory", 0)),
    "READONLY": (replicate, be_primary),
    "NOREPLICAS": (setting("min-replicas-to-write", 1), setting("min-replicas-to-write", 0)),
}
"""How a server begins to refuse what changes it, and how it takes changes again."""
