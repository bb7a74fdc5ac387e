"""The private server writes through no link, and removes nothing that is not its own."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from flowq import server
from flowq.cli import own_workers
from flowq.errors import ServerUnavailable, StateUnusable
from flowq.server import embedded, endpoint, private, state
from flowq.workers.launch import start

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the embedded server needs Unix")

FILES = [
    *("guardian.lock", "server.lock", "door.lock", "server.log", "belongs-to", "server.sock"),
    *("data", "data/appendonlydir", "data/appendonlydir/appendonly.aof.manifest"),
]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_a_link_is_refused_with_one_sentence(
    project: Path, victim: Path, name: str
) -> None:
    place = state.open_state().path / name
    private.make_folder(place.parent)
    place.unlink(missing_ok=True)
    place.symlink_to(victim)
    with pytest.raises(ServerUnavailable, match=r"symbolic link|is not a socket") as told:
        server.ensure()
    assert Path(name).name in str(told.value)
    assert "\n" not in str(told.value)
    assert place.is_symlink()
    place.unlink()


def test_links_in_a_folder_that_came_with_a_project_lead_nowhere(
    project: Path, victim: Path
) -> None:
    old = project / ".flowq"
    old.mkdir(mode=0o700)
    for name in ("guardian.lock", "server.log", "server.sock", "worker.log", ".gitignore"):
        (old / name).symlink_to(victim)
    (old / "logs").symlink_to(victim.parent)
    (old / "socket").write_text(f"{victim}\n")
    before = sorted(victim.parent.iterdir())
    server.ensure().stop()
    start(url="", log_folder=str(own_workers.find_folder())).wait()
    assert sorted(victim.parent.iterdir()) == before


@pytest.mark.parametrize("each_endpoint", ["tcp"], indirect=True)
@pytest.mark.parametrize("name", ["guardian.lock", "door.lock", "server.log", "data"])
def test_a_file_that_is_a_link_is_refused_where_there_are_no_sockets_too(
    each_endpoint: str, project: Path, victim: Path, name: str
) -> None:
    place = state.open_state().path
    (place / name).symlink_to(victim)
    with pytest.raises(ServerUnavailable, match=f"{name} is a symbolic link"):
        server.ensure()
    (place / name).unlink()


def test_what_is_written_as_a_whole_replaces_a_link(project: Path, victim: Path) -> None:
    place = state.open_state().path
    for name in ("address", "server.conf", "socket"):
        (place / name).symlink_to(victim)
        private.write_whole(place / name, b"ours")
        assert private.read(place / name) == b"ours"
        assert not (place / name).is_symlink()
    assert endpoint.UnixEndpoint(place).path == str(place / "server.sock")


def test_logs_are_not_written_through_links(project: Path, victim: Path, tmp_path: Path) -> None:
    place = own_workers.find_folder()
    assert place is not None
    (place / "worker.log").symlink_to(victim)
    with pytest.raises(private.Untrusted, match=r"worker\.log is a symbolic link"):
        start(url="", log_folder=str(place))
    with pytest.raises(StateUnusable, match=r"\.log is a symbolic link"):
        own_workers.find_folder()
    shutil.rmtree(place)
    place.symlink_to(tmp_path)
    with pytest.raises(StateUnusable, match="logs is a symbolic link"):
        own_workers.find_folder()


@pytest.mark.parametrize("link", ["flowq", "state"])
def test_a_folder_that_is_a_link_is_refused(
    project: Path, home: Path, tmp_path: Path, link: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    place = home / "flowq" if link == "flowq" else state.find().path
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere)
    for look in (server.ensure, server.is_used):
        with pytest.raises(StateUnusable, match="is a symbolic link, which is not followed"):
            look()
    assert list(elsewhere.iterdir()) == []
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755
    place.unlink()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_in_the_place_of_a_file_does_not_hang(
    project: Path, make: Callable[[Path], None]
) -> None:
    place = state.open_state().path
    for name in ("door.lock", "server.log"):
        make(place / name)
        with pytest.raises(StateUnusable, match=f"{name} is not a regular file"):
            server.ensure()
        (place / name).rename(place / f"{name}.away")


def test_nothing_but_a_socket_of_ours_is_removed_wherever_it_is_said_to_be(
    project: Path, victim: Path, tmp_path: Path
) -> None:
    place = state.open_state().path
    inside = tmp_path / "flowq-socket-1"
    inside.mkdir(mode=0o700)
    (inside / "server.sock").write_text("text")
    for path in (victim, inside / "server.sock"):
        private.write_whole(place / "socket", f"{path}\n".encode())
        found = endpoint.UnixEndpoint(place)
        found.discard()
        found.path = str(path)
        found.discard()
    assert (inside / "server.sock").read_text() == "text"
    with pytest.raises(private.Untrusted, match="is not a socket"):
        private.remove_socket(victim)


def test_a_foreign_server_at_the_place_of_the_socket_is_not_used(project: Path) -> None:
    with server.temporary() as foreign:
        place = state.open_state().path
        (place / "server.sock").symlink_to(foreign.socket)
        found = server.find()
        assert found is not None
        assert not found.is_running
        with pytest.raises(ServerUnavailable, match=r"server\.sock is not a socket of flowq's"):
            server.ensure()
        assert foreign.is_running
        (place / "server.sock").unlink()


def test_a_reset_removes_what_flowq_has_made_and_nothing_else(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not embedded.reset()
    started = server.ensure()
    own_workers.find_folder()
    embedded.reset()
    assert not started.state.exists()
    monkeypatch.setenv("FLOWQ_STATE", str(project / "state"))
    place = state.open_state().path
    private.make_draft(place / "address", b"left by a command that was killed")
    mine = {"server.py", "sockets", "address.txt", ".gitignore"}
    for name in mine:
        (place / name).write_text("mine")
    embedded.reset()
    assert {path.name for path in place.iterdir()} == mine
