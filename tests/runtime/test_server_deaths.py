"""kill -9 of the server, of its guardian and of those who start them, at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from flowq import server
from flowq.errors import ServerUnavailable
from flowq.server import embedded
from flowq.server.endpoint import endpoint_of
from flowq.server.state import open_state
from tests.runtime.server_processes import (
    guardian_of,
    is_alive,
    kill,
    on_both_endpoints,
    pid_of,
)

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the tests need Unix"),
    on_both_endpoints,
]

WaitUntil = Callable[..., None]


@pytest.fixture
def started(each_endpoint: str, tmp_path: Path) -> Iterator[server.Server]:
    """A running server that keeps one key; it ends with the test."""
    running = server.ensure(tmp_path)
    with running.connect() as connection:
        connection.set("key", "value")
    yield running
    running.stop()


def value_in(running: server.Server) -> bytes | None:
    with running.connect() as connection:
        value = connection.get("key")
        assert value is None or isinstance(value, bytes)
        return value


def kill_both(running: server.Server) -> None:
    """Kill the guardian first: it would start the server again."""
    pids = (guardian_of(running), pid_of(running))
    for pid in pids:
        kill(pid)


def again(running: server.Server) -> server.Server:
    return server.ensure(Path((running.state / "belongs-to").read_text().strip()))


def test_a_killed_server_comes_back_by_itself_with_its_data(
    started: server.Server, wait_until: WaitUntil
) -> None:
    pid = pid_of(started)
    kill(pid)

    def is_back() -> bool:
        try:
            return value_in(started) == b"value"
        except ServerUnavailable:
            return False

    wait_until(is_back)
    assert pid_of(started) != pid
    assert again(started) == started


def test_a_client_that_saw_the_death_can_go_on(
    started: server.Server, wait_until: WaitUntil
) -> None:
    with started.connect() as connection:
        kill(int(connection.info("server")["process_id"]))

        def answers() -> bool:
            try:
                return bool(connection.ping())
            except redis.ConnectionError:
                return False

        wait_until(answers)
        assert connection.get("key") == b"value"


def test_a_command_right_after_the_death_of_the_server_gets_one(started: server.Server) -> None:
    kill(pid_of(started))
    assert value_in(again(started)) == b"value"


def test_a_server_whose_guardian_was_killed_is_adopted(started: server.Server) -> None:
    server_pid, guardian_pid = pid_of(started), guardian_of(started)
    kill(guardian_pid)
    assert value_in(started) == b"value"
    assert pid_of(again(started)) == server_pid
    assert guardian_of(started) != guardian_pid


def test_a_server_whose_guardian_was_killed_is_adopted_and_ends_when_nobody_uses_it(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    running = server.ensure(tmp_path, idle_s=0.5)
    pid, killed = pid_of(running), guardian_of(running)
    kill(killed)
    wait_until(lambda: guardian_of(running) not in (0, killed))
    kill(guardian_of(running))  # and so has the next one
    wait_until(lambda: not is_alive(pid))
    assert not running.is_running


def test_a_temporary_server_whose_guardian_was_killed_ends_with_its_parent(
    wait_until: WaitUntil,
) -> None:
    with server.temporary() as running:
        pid, killed = pid_of(running), guardian_of(running)
        kill(killed)
        wait_until(lambda: guardian_of(running) not in (0, killed))
        with running.connect() as connection:
            assert connection.ping()
    wait_until(lambda: not is_alive(pid))
    assert not running.state.exists()


def test_a_guardian_that_dies_with_its_server_is_not_followed_by_another(
    started: server.Server, wait_until: WaitUntil
) -> None:
    guardian_pid, pid = guardian_of(started), pid_of(started)
    os.kill(guardian_pid, signal.SIGSTOP)  # so that it does not start the server again
    kill(pid)
    kill(guardian_pid)
    wait_until(lambda: endpoint_of(started.state).is_free())
    assert value_in(again(started)) == b"value"


def test_an_adopted_server_is_guarded_like_any_other(
    started: server.Server, wait_until: WaitUntil
) -> None:
    kill(guardian_of(started))
    pid = pid_of(again(started))
    kill(pid)
    assert value_in(again(started)) == b"value"
    assert pid_of(started) != pid
    started.stop()
    assert not started.is_running


def test_after_the_death_of_both_the_next_command_starts_with_the_data(
    started: server.Server,
) -> None:
    kill_both(started)
    assert started.socket.exists()
    assert value_in(again(started)) == b"value"


def test_a_half_written_command_at_the_end_of_the_file_is_cut_off(started: server.Server) -> None:
    kill_both(started)
    with append_only_file(started).open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$3\r\nke")
    assert value_in(again(started)) == b"value"


def test_damaged_data_are_an_error_that_says_where_to_look(started: server.Server) -> None:
    kill_both(started)
    path = append_only_file(started)
    path.write_bytes(b"garbage\r\n" + path.read_bytes())
    with pytest.raises(
        ServerUnavailable, match=r"(?s)did not start: .*Bad file format.*server.log"
    ):
        again(started)


def append_only_file(running: server.Server) -> Path:
    return next((running.state / "data" / "appendonlydir").glob("*.incr.aof"))


def test_a_guardian_killed_while_it_closed_the_door_locks_nobody_out(
    started: server.Server,
) -> None:
    pid, guardian_pid = pid_of(started), guardian_of(started)
    os.kill(guardian_pid, signal.SIGSTOP)
    started.socket.rename(f"{started.socket}~")
    kill(guardian_pid)
    assert pid_of(again(started)) == pid


def test_a_removed_socket_is_made_again(started: server.Server) -> None:
    started.socket.unlink()
    assert value_in(again(started)) == b"value"


def test_a_server_told_to_end_stays_down_until_it_is_wanted(
    started: server.Server, wait_until: WaitUntil
) -> None:
    guardian_pid = guardian_of(started)
    with started.connect() as connection:
        connection.shutdown(nosave=True)
    wait_until(lambda: "told to end" in started.log.read_text())
    assert not started.is_running
    assert value_in(again(started)) == b"value"
    assert guardian_of(started) != guardian_pid


def test_a_server_that_is_only_slow_is_left_alone(
    started: server.Server, wait_until: WaitUntil
) -> None:
    pid = pid_of(started)
    with started.connect() as connection:
        connection.config_set("busy-reply-threshold", 1)
        connection.client_kill_filter(_type="normal")  # the guardian loses its connection
        connection.eval(
            "local now = function() local t = redis.call('TIME') return t[1] * 1e6 + t[2] end "
            "local start = now() while now() < start + 1500000 do end",
            0,
        )
    wait_until(lambda: embedded.find_ready(started.state) is not None)
    assert pid_of(started) == pid


@pytest.mark.parametrize("after_ms", [0, 10, 25, 35, 45, 60, 75, 100])
def test_a_guardian_killed_at_any_moment_of_the_start_is_no_obstacle(
    tmp_path: Path, after_ms: int, wait_until: WaitUntil
) -> None:
    state = open_state(tmp_path).path
    moment = time.monotonic() + after_ms / 1000
    with spawn_guardian(state, parent_pid=None) as guardian:
        wait_until(lambda: time.monotonic() > moment)
        with suppress(ProcessLookupError):
            os.killpg(guardian.pid, signal.SIGKILL)  # it, or what it has forked
    try:
        running = server.ensure(tmp_path)
        assert running.is_running
        assert pid_of(running) == pid_of(server.ensure(tmp_path))
    finally:
        embedded.server_of(state).stop()


def test_a_starter_killed_before_it_has_heard_of_the_server_is_no_obstacle(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    state = open_state(tmp_path).path
    with spawn_guardian(state, parent_pid=None) as guardian:
        assert guardian.stdout is not None
        guardian.stdout.close()  # as the kernel does for the dead
    wait_until(lambda: embedded.find_ready(state) is not None)
    try:
        assert server.ensure(tmp_path).is_running
    finally:
        embedded.server_of(state).stop()


def spawn_guardian(state: Path, parent_pid: int | None) -> subprocess.Popen[bytes]:
    return embedded._spawn_guardian(state, idle_s=60, parent_pid=parent_pid)


def test_a_server_that_dies_again_and_again_is_given_up(
    started: server.Server, wait_until: WaitUntil
) -> None:
    def kill_once_more() -> bool:
        with suppress(ServerUnavailable, redis.ConnectionError, ProcessLookupError):
            kill(pid_of(started))
        return "giving up" in started.log.read_text()

    wait_until(kill_once_more)
    assert value_in(again(started)) == b"value"
