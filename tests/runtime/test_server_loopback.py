"""What is particular to a server on loopback, which is to say to Windows, and to the fallback.

What it has in common with one on a Unix socket is in the other tests of the server, on both
endpoints. Here it is tried on this platform; tests/workers/test_windows_server.py has it where
POSIX cannot be found.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from flowq import server
from flowq.errors import ServerUnavailable
from flowq.runtime.queue import Queue
from flowq.server import embedded, endpoint, fake, locks, process, resp
from flowq.server.connection import connect, health
from flowq.workers import Worker
from tests.runtime.server_processes import pid_of


@pytest.fixture(autouse=True, scope="module")
def _without_unix_sockets() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoint, "has_unix_sockets", lambda: False)
        yield


@pytest.fixture
def started(tmp_path: Path) -> Iterator[server.Server]:
    """A running server, which ends with the test."""
    running = server.ensure(tmp_path)
    yield running
    server.ensure(tmp_path).stop()


def address_of(running: server.Server) -> endpoint.Address:
    found = endpoint.read_address(running.state / "address")
    assert found is not None
    return found


# --- whom it trusts ---


def test_it_listens_on_loopback_only_and_wants_its_password(started: server.Server) -> None:
    address = address_of(started)
    with started.connect() as connection:
        settings = connection.config_get("*")
    assert settings["bind"] == "127.0.0.1"
    assert settings["unixsocket"] == ""
    assert settings["appendonly"] == "yes"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["stream-node-max-bytes"] == "512"
    assert len(address.password) > 40
    for login in ({}, {"password": "wrong"}, {"username": "proof", "password": address.proof}):
        with (
            redis.Redis(port=address.port, retry=None, **login) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="Linux tells who listens where")
def test_no_other_address_of_this_machine_leads_to_it(started: server.Server) -> None:
    address = address_of(started)
    port = f":{address.port:04X}"
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[1].endswith(port) and row[3] == "0A"]
    assert listening == [f"0100007F{port}"]
    assert port not in Path("/proc/net/tcp6").read_text()


def test_its_secrets_are_in_private_files_and_nowhere_else(started: server.Server) -> None:
    address = address_of(started)
    for name in ("address", "server.conf"):
        assert stat.S_IMODE((started.state / name).stat().st_mode) == 0o600
    line = Path(f"/proc/{pid_of(started)}/cmdline").read_bytes()
    log = started.log.read_text()
    for secret in (address.password, address.proof):
        assert secret.encode() not in line
        assert secret not in log


def test_who_took_its_port_and_was_shown_its_password_is_not_believed(
    started: server.Server,
) -> None:
    address = address_of(started)
    started.stop()
    with server.temporary() as foreign, foreign.connect() as connection:
        connection.config_set("requirepass", address.password)
        port = connection.connection_pool.connection_kwargs["port"]
        endpoint.write_address(started.state / "address", address._replace(port=port))
        taken = embedded.server_of(started.state)
        assert not taken.is_running
        assert server.ensure(folder_of(started)).url != taken.url
        assert connection.ping()


def test_a_port_that_another_program_has_taken_is_given_up(started: server.Server) -> None:
    started.stop()
    address = endpoint.make_address()
    endpoint.write_address(started.state / "address", address)
    found = endpoint.TcpEndpoint(started.state)
    assert not found.was_taken()
    with socket.create_server(("127.0.0.1", address.port)):
        assert found.was_taken()
    assert endpoint.read_address(started.state / "address") is None


@pytest.mark.parametrize("password", ["", "another"])
def test_a_server_with_another_password_or_none_is_another_one(
    started: server.Server, password: str
) -> None:
    address = address_of(started)
    started.stop()
    with server.temporary() as foreign, foreign.connect() as connection:
        connection.config_set("requirepass", password)
        port = connection.connection_pool.connection_kwargs["port"]
        endpoint.write_address(started.socket, address._replace(port=port))
        found = endpoint.TcpEndpoint(started.state)
        with pytest.raises(endpoint.NotOurs):
            found.call()
        assert found.is_free()
        assert started.socket.exists()  # to look changes nothing
        assert server.ensure(folder_of(started)).is_running
        assert address_of(started).port != port


class Listening(threading.Thread):
    """A program at a port, which treats its first clients in one way, and all others in another.

    Ways: `bytes` to say before it hangs up; None, to wait for words and then hang up so that what
    it said is lost.
    """

    def __init__(self, *ways: bytes | None) -> None:
        super().__init__(daemon=True)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._ways = list(ways)
        self.start()

    def run(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:  # closed
                return
            way = self._ways.pop(0) if len(self._ways) > 1 else self._ways[0]
            with client:
                if way is None:
                    client.recv(1)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    client.sendall(way)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.join()


@pytest.fixture
def find_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., endpoint.TcpEndpoint]]:
    """`find_at(*ways)`: the endpoint of a state whose address names such a program."""
    listening: list[Listening] = []
    monkeypatch.setattr(resp, "HEAR_S", 0.05)

    def start(*ways: bytes | None) -> endpoint.TcpEndpoint:
        listening.append(Listening(*ways))
        address = endpoint.make_address()._replace(port=listening[-1].port)
        endpoint.write_address(tmp_path / "address", address)
        return endpoint.TcpEndpoint(tmp_path)

    yield start
    for each in listening:
        each.close()


FULL = b"-ERR max number of clients reached\r\n"


def test_a_full_server_whose_words_are_lost_is_not_free(
    find_at: Callable[..., endpoint.TcpEndpoint],
) -> None:
    found = find_at(None, FULL)
    assert not found.is_free()
    for ways in ([None, FULL], [b"", FULL], [None, b"", FULL]):
        assert "max number of clients" in find_at(*ways).find_refusal()


def test_what_waits_for_words_and_then_hangs_up_may_be_ours(
    find_at: Callable[..., endpoint.TcpEndpoint], tmp_path: Path
) -> None:
    found = find_at(None)
    assert not found.is_free()
    assert f"(remove {tmp_path / 'address'} if that is not flowq's)" in found.holder
    (tmp_path / "address").rename(tmp_path / "address~")
    assert not found.is_free()


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"+OK POP3\r\n",
        b":one\r\n",
        b"$999999999999\r\n",
        b"*1\r\n" * 2000,
        b"x" * 100_000,
    ],
)
def test_what_answers_as_no_redis_does_is_another_program(
    find_at: Callable[..., endpoint.TcpEndpoint], words: bytes
) -> None:
    found = find_at(words)
    with pytest.raises(endpoint.NotOurs):
        found.call()
    assert found.is_free()
    assert found.find() is None
    assert found.find_refusal() == ""


def test_a_full_server_never_looks_free(started: server.Server) -> None:
    found = endpoint.TcpEndpoint(started.state)
    with started.connect() as connection:
        connection.config_set("maxclients", 1)
        assert [found.try_data() for _ in range(100)] == [None] * 100
        connection.config_set("maxclients", 100)


def test_a_stopped_server_leaves_no_address(started: server.Server) -> None:
    started.stop()
    assert not [path.name for path in started.state.glob("address*")]


def test_a_guardian_of_an_older_version_keeps_others_away(tmp_path: Path) -> None:
    found = endpoint.TcpEndpoint(tmp_path)
    older = locks.try_database_lock(tmp_path / "keeper.lock")
    assert older is not None
    assert not found.is_free()
    older.release()
    assert found.is_free()


def test_a_guardian_of_an_older_version_can_start_the_fallback(tmp_path: Path) -> None:
    main = Path(endpoint.__file__).with_name("__main__.py")
    command = [sys.executable, "-P", str(main), "stopgap", str(tmp_path / "none")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "FileNotFoundError" in ended.stderr
    assert "fake.py" in ended.stderr


def test_a_long_log_that_cannot_be_put_aside_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("another process has it open")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "LOG_BYTES", 10)
    os.close(process.open_log())
    log = tmp_path / "server.log"
    log.write_bytes(b"0123456789")
    monkeypatch.setattr(os, "replace", refuse)
    os.close(process.open_log())
    assert log.read_bytes() == b"0123456789"
    log.write_bytes(b"0123456789+")
    os.close(process.open_log())
    assert log.read_bytes() == b""


def folder_of(running: server.Server) -> Path:
    return Path((running.state / "belongs-to").read_text().strip())


# --- which program it runs ---


def test_without_any_program_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_binary", lambda: None)
    monkeypatch.setattr(fake, "is_installed", lambda: False)
    for start_one in (lambda: embedded.ensure(tmp_path), lambda: embedded.temporary().__enter__()):
        with pytest.raises(ServerUnavailable, match=r"memurai on the PATH.*rq-flowq\[windows\]"):
            start_one()


# --- the fallback made of fakeredis ---


@pytest.fixture(scope="module")
def fallback(_without_unix_sockets: None) -> Iterator[server.Server]:
    """It, as a temporary server."""
    pytest.importorskip("fakeredis", reason="the extra `windows` is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "find_binary", lambda: None)
        with server.temporary() as running:
            yield running


def test_the_fallback_wants_its_password_too(fallback: server.Server) -> None:
    address = address_of(fallback)
    for login in ({}, {"password": "wrong"}):
        with (
            redis.Redis(port=address.port, protocol=2, retry=None, **login) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
    assert fallback.is_running


def test_the_fallback_runs_a_graph_under_our_worker(fallback: server.Server) -> None:
    with fallback.connect() as connection:
        queue = Queue(connection=connection)
        future = queue.enqueue("operator.add", 1, 2, deferred=True)
        blockers = [queue.enqueue("math.factorial", n, blocked_by=future) for n in range(10)]
        failing = queue.enqueue("math.factorial", -1)
        future.release()
        worker = Worker(["default"], connection=connection, mode="warm")
        worker.work(burst=True, logging_level="ERROR")
        assert [blocker.return_value() for blocker in blockers][:5] == [1, 1, 2, 6, 24]
        assert future.return_value() == 3
        assert failing.get_status() == "failed"


def test_an_error_of_the_fallback_does_not_hang_up(fallback: server.Server) -> None:
    with fallback.connect() as connection:
        pid = connection.client_id()
        connection.set("text", "x")
        for words in (("LPUSH", "text", "y"), ("EVALSHA", "0" * 40, 0), ("NOSUCH",)):
            with pytest.raises(redis.ResponseError):
                connection.execute_command(*words)
        assert connection.client_id() == pid
        with pytest.raises(redis.exceptions.NoScriptError):
            connection.evalsha("0" * 40, 0)


def test_subscribers_of_the_fallback_hear(fallback: server.Server) -> None:
    with fallback.connect() as connection, connection.pubsub() as subscription:
        subscription.subscribe("news")
        assert subscription.get_message(timeout=60)["type"] == "subscribe"
        connection.publish("news", "one")
        assert subscription.get_message(timeout=60)["data"] == b"one"


def test_the_fallback_is_warned_about(fallback: server.Server) -> None:
    with fallback.connect() as connection:
        (warning,) = health(connection)
    assert "this is a fallback made of fakeredis" in warning


def test_a_client_of_the_fallback_must_speak_its_protocol(fallback: server.Server) -> None:
    with pytest.raises(ServerUnavailable, match=r"add \?protocol=2 to the URL"):
        connect(fallback.url.partition("?")[0])


# --- its parts ---


def test_a_lock_is_shared_or_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = (locks.try_database_lock(path, shared=True) for _ in range(2))
    assert first is not None
    assert second is not None
    assert locks.try_database_lock(path) is None
    first.release()
    second.release()
    alone = locks.try_database_lock(path)
    assert alone is not None
    assert locks.try_database_lock(path, shared=True) is None
    alone.release()
    with pytest.raises(OSError, match="unable to open"):
        locks.try_database_lock(tmp_path / "gone" / "lock")


SECRETS = {"password": "a", "proof": "b"}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"port": 1}', json.dumps({"port": 1, "a": 2})]
    + [json.dumps({"port": port, **SECRETS}) for port in (0, -1, 65_536, "1", None, [1])],
)
def test_a_broken_address_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "address").write_text(text)
    assert endpoint.read_address(tmp_path / "address") is None


def test_it_is_chosen_by_what_the_platform_can_do() -> None:
    text = "import {0}; vars({0}).pop('{1}', 0); from flowq.server.endpoint import *; "
    for module, name in (("os", "posix_spawn"), ("socket", "AF_UNIX")):
        ask = text.format(module, name) + "print(type(endpoint_of('.')).__name__)"
        assert subprocess.check_output([sys.executable, "-c", ask], text=True) == "TcpEndpoint\n"


def test_the_address_that_a_newer_version_has_left_is_read(tmp_path: Path) -> None:
    address, path = endpoint.make_address(), tmp_path / "address"
    endpoint.write_address(path, address)
    path.write_text(json.dumps({**json.loads(path.read_text()), "nice": 0}))
    assert endpoint.read_address(path) == address
