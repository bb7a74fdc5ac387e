"""The life of an embedded server: many come at once, nobody comes any more, its parent dies."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from flowq import server
from flowq.errors import ServerUnavailable
from flowq.runtime import keys
from flowq.server import embedded, endpoint, guardian, resp
from flowq.server.endpoint import CannotStart, endpoint_of
from tests.runtime.server_processes import (
    end,
    guardian_of,
    is_alive,
    kill_guards,
    on_both_endpoints,
    only_unix,
    pid_of,
    run_python,
)

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the tests need Unix"),
    on_both_endpoints,
]

WaitUntil = Callable[..., None]


@pytest.fixture
def project(each_endpoint: str, tmp_path: Path) -> Iterator[Path]:
    """A folder whose server ends with the test."""
    place = tmp_path / "project"
    place.mkdir()
    yield place
    end(place)


# --- many at once ---


def test_two_commands_at_once_get_the_same_server(project: Path) -> None:
    text = (
        "import sys; from pathlib import Path; from flowq import server; "
        "print(server.ensure(Path(sys.argv[1])).connect().info('server')['run_id'])"
    )
    commands = [run_python(text, str(project)) for _ in range(2)]
    answers = [command.communicate(timeout=60)[0] for command in commands]
    assert len(answers[0].strip()) == 40
    assert answers[0] == answers[1]


def test_eight_starters_at_once_get_the_same_server(project: Path) -> None:
    barrier = threading.Barrier(8)
    pids: list[int] = []

    def start() -> None:
        barrier.wait()
        pids.append(pid_of(server.ensure(project)))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 8
    assert len(set(pids)) == 1


# --- when it ends ---


def test_an_unused_server_ends_and_the_next_command_finds_its_data(
    project: Path, wait_until: WaitUntil
) -> None:
    started = server.ensure(project, idle_s=0.2)
    pid = pid_of(started)
    with started.connect() as connection:
        connection.set("key", "value")
    wait_until(lambda: not is_alive(pid))
    wait_until(lambda: not started.socket.exists())
    with server.ensure(project).connect() as connection:
        assert connection.get("key") == b"value"


def test_a_server_with_a_client_does_not_end(tmp_path: Path, wait_until: WaitUntil) -> None:
    used, unused = (connect_in(tmp_path / name) for name in ("used", "unused"))
    try:
        unused_pid = int(unused.info("server")["process_id"])
        unused.close()
        wait_until(lambda: not is_alive(unused_pid))
        assert used.ping()  # as long without a command, but connected
    finally:
        used.close()
        end(tmp_path / "used")


def test_a_server_with_an_unfinished_run_does_not_end(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    unfinished, finished = (connect_in(tmp_path / name) for name in ("unfinished", "finished"))
    try:
        unfinished.zadd(keys.RUNS, {"run1": 1, "run2": 2})
        finished.zadd(keys.RUNS, {"run1": 1, "run2": 2})
        unfinished.zadd(keys.ENDED, {"run1": 1})
        finished.zadd(keys.ENDED, {"run1": 1, "run2": 2})
        finished_pid = int(finished.info("server")["process_id"])
        unfinished_pid = int(unfinished.info("server")["process_id"])
        unfinished.close()
        finished.close()
        wait_until(lambda: not is_alive(finished_pid))
        assert is_alive(unfinished_pid)
        unfinished.zadd(keys.ENDED, {"run2": 2})
        unfinished.close()
        wait_until(lambda: not is_alive(unfinished_pid))
    finally:
        end(tmp_path / "unfinished")


def connect_in(place: Path) -> redis.Redis:
    place.mkdir()
    return server.ensure(place, idle_s=0.4).connect()


def test_a_server_does_not_end_while_somebody_looks_for_it(
    project: Path, wait_until: WaitUntil
) -> None:
    started = server.ensure(project, idle_s=0.1)
    pid = pid_of(started)
    looking = endpoint_of(started.state).try_lock("door.lock", shared=True)
    assert looking is not None
    until = time.monotonic() + 0.5
    wait_until(lambda: time.monotonic() > until)
    assert is_alive(pid)
    looking.release()
    wait_until(lambda: not is_alive(pid))


def test_whoever_comes_while_the_door_is_closed_waits(project: Path) -> None:
    started = server.ensure(project)
    closing = endpoint_of(started.state).try_lock("door.lock")
    assert closing is not None
    found: list[server.Server] = []
    coming = threading.Thread(target=lambda: found.append(server.ensure(project)))
    coming.start()
    coming.join(0.3)
    assert found == []
    closing.release()
    coming.join(60)
    assert found == [started]


def test_whoever_comes_while_the_server_ends_gets_one_that_stays(
    project: Path, wait_until: WaitUntil
) -> None:
    idle_s = 0.1
    visits, pids = 0, set()
    came_at = time.monotonic()
    for round_ in itertools.count():  # around the very moment at which it ends
        if round_ >= 12 and len(pids) > 1:
            break
        wait_until(lambda at=came_at + idle_s + round_ / 250: time.monotonic() > at)
        started = server.ensure(project, idle_s=idle_s)
        came_at = time.monotonic()
        try:
            with started.connect() as connection:
                connection.incr("visits")
                pids.add(pid_of(started))
            visits += 1
        except (ServerUnavailable, redis.ConnectionError):
            assert time.monotonic() - came_at > idle_s  # only on a machine that stood still
    with server.ensure(project).connect() as connection:
        assert int(connection.get("visits")) >= visits > 0
    assert len(pids) > 1


def test_the_limit_can_be_set_by_a_variable(
    project: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setenv("FLOWQ_SERVER_IDLE", "0.2")
    pid = pid_of(server.ensure(project))
    wait_until(lambda: not is_alive(pid))
    for wrong in ("soon", "nan", "-1"):
        monkeypatch.setenv("FLOWQ_SERVER_IDLE", wrong)
        with pytest.raises(ServerUnavailable, match=f"FLOWQ_SERVER_IDLE is '{wrong}'"):
            server.ensure(project)


def test_a_server_whose_folder_is_removed_ends(project: Path, wait_until: WaitUntil) -> None:
    started = server.ensure(project)
    pid = pid_of(started)
    shutil.rmtree(started.state)
    fresh = server.ensure(project)
    assert pid_of(fresh) != pid
    wait_until(lambda: not is_alive(pid))
    assert fresh.is_running


def test_a_guardian_told_to_end_takes_the_server_along(
    project: Path, wait_until: WaitUntil
) -> None:
    started = server.ensure(project)
    pid = pid_of(started)
    os.kill(guardian_of(started), signal.SIGTERM)
    wait_until(lambda: not is_alive(pid))
    assert not started.is_running


@only_unix
def test_data_that_another_process_has_are_left_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = server.ensure(project)
    started.stop()
    lock = endpoint_of(started.state).try_lock("server.lock")
    assert lock is not None
    lock.note_holder(4711)
    with pytest.raises(CannotStart, match=r"process 4711 on .* has the data"):
        take_over(started.state, monkeypatch)
    lock.release()


@pytest.mark.parametrize("each_endpoint", ["tcp"], indirect=True)
def test_data_of_a_server_that_does_not_answer_are_left_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = server.ensure(project)
    started.stop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = endpoint.make_address()._replace(port=silent.getsockname()[1])
        endpoint.write_address(started.socket, address)
        monkeypatch.setattr(resp, "ANSWER_S", 0.05)
        with pytest.raises(CannotStart, match=r"what listens at 127.* has the data"):
            take_over(started.state, monkeypatch)
    started.socket.unlink()


def test_a_server_that_is_busy_is_neither_free_nor_forgotten(project: Path) -> None:
    started = server.ensure(project)
    pid = pid_of(started)
    with started.connect() as connection:
        connection.config_set("busy-reply-threshold", 1)
        script = "while redis.call('EXISTS', 'none') == 0 do end"
        thread = threading.Thread(target=run_until_killed, args=(started, script))
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while (refusal := refusal_of(started)) == "":
                assert time.monotonic() < deadline
            assert refusal.startswith("BUSY")
            kill_guards(started)
            before = started.socket.lstat()
            assert not endpoint_of(started.state).is_free()
            assert endpoint_of(started.state).try_data() is None
            assert started.socket.lstat().st_ino == before.st_ino
        finally:
            connection.script_kill()
            thread.join()
    assert pid_of(server.ensure(project)) == pid


def run_until_killed(started: server.Server, script: str) -> None:
    with started.connect() as connection, pytest.raises(redis.ResponseError):
        connection.eval(script, 0)


def test_a_server_that_is_full_is_neither_free_nor_forgotten(project: Path) -> None:
    started = server.ensure(project)
    with started.connect() as connection:
        pid = pid_of(started)
        kill_guards(started)
        connection.config_set("maxclients", 1)
        assert refusal_of(started).endswith("max number of clients reached")
        assert not endpoint_of(started.state).is_free()
        assert endpoint_of(started.state).try_data() is None
        assert started.socket.exists()
        connection.config_set("maxclients", 100)
    assert pid_of(server.ensure(project)) == pid


def test_a_guardian_that_gets_no_answer_leaves_the_way_to_the_server(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = server.ensure(project)
    with started.connect() as connection:
        pid = pid_of(started)
        kill_guards(started)
        connection.config_set("maxclients", 1)
        with monkeypatch.context() as patch:
            newcomer = make_guardian(started.state, patch)
            assert guardian.live(newcomer, can_start=True) == 1
            newcomer._lock.release()
        assert started.socket.exists()
        assert not endpoint_of(started.state).is_free()
        connection.config_set("maxclients", 100)
    assert pid_of(server.ensure(project)) == pid


def test_a_server_that_is_full_is_named_as_such_soon(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = server.ensure(project)
    monkeypatch.setattr(embedded, "FULL_S", 0.1)
    with started.connect() as connection:
        connection.config_set("maxclients", 1)
        with pytest.raises(ServerUnavailable, match="no room for another client"):
            server.ensure(project)
        connection.config_set("maxclients", 100)
    assert server.ensure(project).is_running


@pytest.mark.parametrize("is_guarded", [True, False])
def test_a_server_that_is_full_is_stopped_all_the_same(project: Path, is_guarded: bool) -> None:
    started = server.ensure(project)
    with started.connect() as connection:
        connection.set("kept", "yes")
        if not is_guarded:
            kill_guards(started)
        connection.config_set("maxclients", 1)
        assert started.is_running
        if "unix" not in started.url:  # there is no way in
            with pytest.raises(ServerUnavailable, match="no room for another client"):
                started.stop()
            connection.config_set("maxclients", 100)
        started.stop()
    assert endpoint_of(started.state).is_free()
    with server.ensure(project).connect() as connection:
        assert connection.get("kept") == b"yes"


@pytest.mark.parametrize("each_endpoint", ["unix"], indirect=True)
def test_a_server_that_is_busy_is_stopped_all_the_same(project: Path) -> None:
    started = server.ensure(project)
    with started.connect() as connection:
        connection.config_set("busy-reply-threshold", 1)
    script = "while redis.call('EXISTS', 'none') == 0 do end"
    thread = threading.Thread(target=run_until_ended, args=(started, script))
    thread.start()
    deadline = time.monotonic() + 60
    while not refusal_of(started).startswith("BUSY"):
        assert time.monotonic() < deadline
    assert started.is_running
    started.stop()
    thread.join()
    assert endpoint_of(started.state).is_free()


def run_until_ended(started: server.Server, script: str) -> None:
    with started.connect() as connection, pytest.raises(redis.RedisError):
        connection.eval(script, 0)


@pytest.mark.parametrize("each_endpoint", ["unix"], indirect=True)
def test_no_server_but_that_of_the_state_gets_a_signal(project: Path) -> None:
    started = server.ensure(project)
    lock = endpoint_of(started.state).at("server.lock")
    with started.connect() as connection:
        connection.config_set("maxclients", 1)
        Path(lock).write_bytes(b"process 1 on another-host\n")
        assert not endpoint_of(started.state).end_refusing()
        assert connection.ping()
        connection.config_set("maxclients", 100)


def refusal_of(started: server.Server) -> str:
    try:
        endpoint_of(started.state).call().close()
    except resp.Refused as error:
        return str(error)
    return ""


def test_a_stop_does_not_return_while_the_server_has_the_data(
    project: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    started = server.ensure(project)
    pid = pid_of(started)
    kill_guards(started)
    with started.connect() as connection:
        connection.execute_command("ACL", "SETUSER", "default", "-shutdown")
        with monkeypatch.context() as patch:
            patch.setattr(embedded, "STOP_S", 0.1)
            with pytest.raises(ServerUnavailable, match="does not end"):
                started.stop()
        connection.execute_command("ACL", "SETUSER", "default", "+shutdown")
    found = server.ensure(project)
    assert pid_of(found) == pid
    found.stop()
    wait_until(lambda: not is_alive(pid))
    assert not (found.state / "address").exists()
    assert not (found.state / "address~").exists()


def take_over(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newcomer = make_guardian(state, monkeypatch)
    try:
        newcomer.take_over()
    finally:
        assert newcomer._lock is not None
        newcomer._lock.release()


def make_guardian(state: Path, monkeypatch: pytest.MonkeyPatch) -> guardian.Guardian:
    """Make one that gives up soon, in the state folder, and reports to nobody."""
    monkeypatch.chdir(state)
    monkeypatch.setattr(guardian, "TAKE_OVER_S", 0.05)
    monkeypatch.setattr(guardian, "report", lambda _: None)
    return guardian.Guardian(["/bin/false"], endpoint_of(""), None, None, ("", ""))


# --- a temporary server ---


def test_a_temporary_server_leaves_nothing_behind() -> None:
    with server.temporary() as started:
        pid = pid_of(started)
        with started.connect() as connection:
            assert connection.config_get("appendonly")["appendonly"] == "no"
    assert not is_alive(pid)
    assert not started.state.exists()


def test_a_temporary_server_finds_a_place_though_the_temporary_folder_is_deep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path.joinpath(*["deep" * 10] * 3)
    deep.mkdir(parents=True)
    monkeypatch.setattr(embedded.tempfile, "tempdir", str(deep))
    monkeypatch.setenv("TMPDIR", str(deep))
    with server.temporary() as started:
        assert started.state.parent == deep
        with started.connect() as connection:
            assert connection.ping()
    assert not started.socket.parent.exists()
    assert list(deep.iterdir()) == []


def test_a_temporary_server_ends_with_the_process_that_wanted_it(wait_until: WaitUntil) -> None:
    text = (
        "import sys; from flowq import server\n"
        "with server.temporary() as started:\n"
        "    print(started.connect().info('server')['process_id'], started.state, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with run_python(text) as owner:
        assert owner.stdout is not None
        pid, _, state = owner.stdout.readline().strip().partition(" ")
        assert is_alive(int(pid))
        owner.kill()
    wait_until(lambda: not is_alive(int(pid)))
    wait_until(lambda: not Path(state).exists())


# --- how it is built ---


@only_unix
def test_the_package_can_be_imported_without_posix() -> None:
    text = (
        "import sys; sys.modules['fcntl'] = None\n"
        "import flowq.server.guardian\n"
        "from flowq.server import *\n"
        "print(ensure, connect)\n"
    )
    assert run_python(text).wait(timeout=30) == 0


@only_unix
def test_the_guardian_imports_little_because_the_first_command_waits_for_it() -> None:
    text = (
        "import sys; sys.path.append(sys.argv[1]); import flowq.server.guardian; "
        "print(*(sys.modules.keys() & {'redis', 'rq', 'subprocess', 'pathlib', 'dataclasses', "
        "'json', 'sqlite3'}))"
    )
    root = Path(embedded.__file__).parents[2]
    command = [sys.executable, "-I", "-S", "-c", text, str(root)]
    assert subprocess.check_output(command, text=True).strip() == ""
