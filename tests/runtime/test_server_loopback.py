"""The embedded server where there are no Unix sockets, which is to say on Windows.

It is the same program and the same promises, by other means. Here they are tried on this platform;
tests/workers/test_windows_server.py has them where POSIX cannot be found.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from flowq.errors import ServerUnavailable
from flowq.runtime import keys
from flowq.runtime.queue import Queue
from flowq.server import embedded, fake, loopback, portable
from flowq.server.connection import connect, health
from flowq.server.embedded import find_binary
from flowq.workers import Worker
from tests.runtime.server_processes import is_alive, kill

WaitUntil = Callable[..., None]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose server ends with the test."""
    place = tmp_path / ".flowq"
    place.mkdir(mode=0o700)
    yield place
    if place.exists():
        loopback.LoopbackServer(place, "").stop()


def start(state: Path, idle_s: float = 60.0) -> loopback.LoopbackServer:
    binary = find_binary()
    assert binary is not None
    return loopback.ensure(state, binary, idle_s)


def pid_of(started: loopback.LoopbackServer) -> int:
    with started.connect() as connection:
        return int(connection.info("server")["process_id"])


def keeper_of(started: loopback.LoopbackServer) -> int:
    """Return the parent of the server, which is its keeper unless that has died."""
    stat_line = Path(f"/proc/{pid_of(started)}/stat").read_text()
    return int(stat_line.rpartition(")")[2].split()[1])


def value_in(started: loopback.LoopbackServer) -> bytes | None:
    with started.connect() as connection:
        value = connection.get("key")
        assert value is None or isinstance(value, bytes)
        return value


def put(started: loopback.LoopbackServer) -> None:
    with started.connect() as connection:
        connection.set("key", "value")


# --- whom it trusts ---


def test_it_listens_on_loopback_only_and_wants_its_password(state: Path) -> None:
    started = start(state)
    address = portable.read_address(state)
    assert address is not None
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
def test_no_other_address_of_this_machine_leads_to_it(state: Path) -> None:
    start(state)
    address = portable.read_address(state)
    assert address is not None
    port = f":{address.port:04X}"
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[1].endswith(port) and row[3] == "0A"]
    assert listening == [f"0100007F{port}"]
    assert port not in Path("/proc/net/tcp6").read_text()


def test_its_secrets_are_in_private_files_and_nowhere_else(state: Path) -> None:
    started = start(state)
    address = portable.read_address(state)
    assert address is not None
    for name in ("address", "server.conf"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
    line = Path(f"/proc/{pid_of(started)}/cmdline").read_bytes()
    log = started.log.read_text()
    for secret in (address.password, address.proof):
        assert secret.encode() not in line
        assert secret not in log


def test_who_took_its_port_and_was_shown_its_password_is_not_believed(state: Path) -> None:
    first = start(state)
    address = portable.read_address(state)
    assert address is not None
    first.stop()
    binary = find_binary()
    assert binary is not None
    with loopback.temporary(binary) as foreign, foreign.connect() as connection:
        connection.config_set("requirepass", address.password)
        port = connection.connection_pool.connection_kwargs["port"]
        taken = portable.Address(port, address.password, address.proof)
        portable.write_address(state, taken)
        assert start(state).url != taken.url
        assert connection.ping()


# --- how it lives ---


def test_it_is_found_again_and_keeps_everything(state: Path) -> None:
    first = start(state)
    put(first)
    assert start(state) == first
    assert first.is_running
    first.stop()
    assert not first.is_running
    assert list(state.glob("server.conf")) == list(state.glob("address")) == []
    assert value_in(start(state)) == b"value"


def test_starters_at_once_get_the_same_server(state: Path) -> None:
    barrier = threading.Barrier(4)
    pids: list[int] = []

    def begin() -> None:
        barrier.wait()
        pids.append(pid_of(start(state)))

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 4
    assert len(set(pids)) == 1


def test_a_killed_server_comes_back_at_its_address(state: Path, wait_until: WaitUntil) -> None:
    started = start(state)
    put(started)
    pid = pid_of(started)
    kill(pid)

    def is_back() -> bool:
        try:
            return value_in(started) == b"value"
        except (ServerUnavailable, redis.RedisError):
            return False

    wait_until(is_back, 10)
    assert pid_of(started) != pid


def test_a_server_whose_keeper_was_killed_gets_another_one(state: Path) -> None:
    started = start(state)
    put(started)
    pid, keeper = pid_of(started), keeper_of(started)
    kill(keeper)
    assert value_in(started) == b"value"
    again = start(state)
    assert again == started
    assert pid_of(again) == pid
    again.stop()
    assert not is_alive(pid)


def test_after_the_death_of_both_the_data_are_there_at_the_same_address(state: Path) -> None:
    started = start(state)
    put(started)
    pid = pid_of(started)
    kill(keeper_of(started))
    kill(pid)
    again = start(state)
    assert value_in(again) == b"value"
    assert again == started  # workers that are left go on


def test_an_unused_server_ends_unless_a_run_is_unfinished(
    state: Path, wait_until: WaitUntil
) -> None:
    started = start(state, 0.2)
    pid = pid_of(started)
    with started.connect() as connection:
        connection.zadd(keys.RUNS, {"run1": 1})
    looks = 0

    def has_waited() -> bool:
        nonlocal looks
        looks += 1
        return looks > 100  # half a second

    wait_until(has_waited)
    assert is_alive(pid)
    with started.connect() as connection:
        connection.zadd(keys.ENDED, {"run1": 1})
    wait_until(lambda: not is_alive(pid), 10)
    assert not (state / "address").exists()


def test_a_temporary_one_leaves_nothing_behind() -> None:
    binary = find_binary()
    assert binary is not None
    with loopback.temporary(binary) as started:
        pid = pid_of(started)
        with started.connect() as connection:
            assert connection.config_get("appendonly")["appendonly"] == "no"
    assert not is_alive(pid)
    assert not started.state.exists()


def test_a_program_that_does_not_start_is_named(state: Path) -> None:
    broken = state / "memurai"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(ServerUnavailable, match=r"memurai did not start: it ended at once; see"):
        loopback.ensure(state, broken, 60.0)


def test_without_any_program_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "has_unix_sockets", lambda: False)
    monkeypatch.setattr(embedded, "find_binary", lambda: None)
    monkeypatch.setattr(fake, "is_installed", lambda: False)
    for start_one in (lambda: embedded.ensure(tmp_path), lambda: embedded.temporary().__enter__()):
        with pytest.raises(ServerUnavailable, match=r"memurai on the PATH.*rq-flowq\[windows\]"):
            start_one()


# --- the stopgap ---


@pytest.fixture(scope="module")
def gap() -> Iterator[loopback.LoopbackServer]:
    """The stopgap, as a temporary server."""
    pytest.importorskip("fakeredis", reason="the extra `windows` is not installed")
    with loopback.temporary(None) as started:
        yield started


def test_the_stopgap_wants_its_password_too(gap: loopback.LoopbackServer) -> None:
    address = portable.read_address(gap.state)
    assert address is not None
    for login in ({}, {"password": "wrong"}):
        with (
            redis.Redis(port=address.port, protocol=2, retry=None, **login) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
    assert gap.is_running


def test_the_stopgap_runs_a_graph_under_our_worker(gap: loopback.LoopbackServer) -> None:
    with gap.connect() as connection:
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


def test_an_error_of_the_stopgap_does_not_hang_up(gap: loopback.LoopbackServer) -> None:
    with gap.connect() as connection:
        pid = connection.client_id()
        connection.set("text", "x")
        for words in (("LPUSH", "text", "y"), ("EVALSHA", "0" * 40, 0), ("NOSUCH",)):
            with pytest.raises(redis.ResponseError):
                connection.execute_command(*words)
        assert connection.client_id() == pid
        with pytest.raises(redis.exceptions.NoScriptError):
            connection.evalsha("0" * 40, 0)


def test_subscribers_of_the_stopgap_hear(gap: loopback.LoopbackServer) -> None:
    with gap.connect() as connection, connection.pubsub() as subscription:
        subscription.subscribe("news")
        assert subscription.get_message(timeout=5)["type"] == "subscribe"
        connection.publish("news", "one")
        assert subscription.get_message(timeout=5)["data"] == b"one"


def test_the_stopgap_is_warned_about(gap: loopback.LoopbackServer) -> None:
    with gap.connect() as connection:
        (warning,) = health(connection)
    assert "this is the stopgap server" in warning


def test_a_client_of_the_stopgap_must_speak_its_protocol(gap: loopback.LoopbackServer) -> None:
    with pytest.raises(ServerUnavailable, match=r"add \?protocol=2 to the URL"):
        connect(gap.url.partition("?")[0])


# --- its parts ---


def test_a_lock_is_shared_or_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = (portable.try_lock(path, shared=True) for _ in range(2))
    assert first is not None
    assert second is not None
    assert portable.try_lock(path) is None
    first.release()
    second.release()
    alone = portable.try_lock(path)
    assert alone is not None
    assert portable.try_lock(path, shared=True) is None
    alone.release()
    with pytest.raises(OSError, match="unable to open"):
        portable.try_lock(tmp_path / "gone" / "lock")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"port": 1}', json.dumps({"port": 1, "a": 2})])
def test_a_broken_address_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "address").write_text(text)
    assert portable.read_address(tmp_path) is None


def test_it_is_chosen_by_what_the_platform_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedded.has_unix_sockets() == hasattr(os, "posix_spawn")
    monkeypatch.delattr(embedded.socket, "AF_UNIX", raising=False)
    assert not embedded.has_unix_sockets()


def test_the_address_that_a_newer_version_has_left_is_read(tmp_path: Path) -> None:
    address = portable.make_address(4711)
    portable.write_address(tmp_path, address)
    path = tmp_path / portable.ADDRESS
    path.write_text(json.dumps({**json.loads(path.read_text()), "nice": 0}))
    assert portable.read_address(tmp_path) == address
