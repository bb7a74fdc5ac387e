"""Commands in a folder below the one in which `flowq run` was called."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flowq import server
from flowq.server import state
from tests.cli.commands import Flowq, Said

Call = Callable[..., Said]

WHERE = """\
name: where
jobs:
  say:
    run: pwd; test -e ready
"""


@pytest.fixture
def below(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder two levels below one that may have a private server; the current one."""
    path = folder / "src" / "package"
    path.mkdir(parents=True)
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def used(folder: Path) -> Path:
    """The folder above, as if its private server had kept data."""
    state.open_state(folder).data.mkdir()
    return folder


def test_commands_about_runs_find_the_server_of_a_folder_above(
    flowq: Flowq, folder: Path, below: Path
) -> None:
    (folder / "where.yaml").write_text(WHERE)
    assert flowq("run", "where.yaml", "-q").returncode == 1
    inside = Flowq(below, flowq.env)
    run_id = inside("runs").stdout.splitlines()[1].split()[0]
    assert inside("status", "last").returncode == 0
    (folder / "ready").touch()
    again = inside("retry", run_id, "-v")
    assert again.returncode == 0, again.stderr
    assert f"say | {folder}\n" in again.stdout
    others = [inside("cancel", "none"), inside("release", "none"), inside("approve", "none", "say")]
    for changing in (again, *others):
        assert f"flowq: using the private server of {folder}\n" in changing.stderr
    assert inside("graph", "--run", "last", "-o", "drawn.svg").returncode == 0
    assert (below / "drawn.svg").exists()
    assert not server.is_used(below)


def test_run_uses_the_current_folder_and_hides_the_one_above(
    flowq: Flowq, used: Path, below: Path
) -> None:
    (below / "where.yaml").write_text(WHERE)
    (below / "ready").touch()
    inside = Flowq(below, flowq.env)
    assert inside("runs").stdout == "no runs\n"
    assert inside("run", "where.yaml", "-q").returncode == 0
    assert server.is_used(below)
    assert len(inside("runs").stdout.splitlines()) == 2
    server.ensure(below).stop()


def test_a_worker_executes_no_jobs_of_a_folder_above(
    call: Call, used: Path, below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(below)
    assert server.find_used_above() == used
    assert f"there are no runs in {below}" in call("worker", "--burst").err
    assert call("worker").code == 5
    assert f"above    {used}; commands about existing runs use it here\n" in (
        call("server", "status").out
    )


def test_the_search_ends_at_the_home_folder_and_with_a_named_state(
    used: Path, below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for home, found in ((used.parent, used), (used, None), (used / "src", None)):
        monkeypatch.setenv("HOME", str(home))
        assert server.find_used_above() == found, home
    monkeypatch.setenv("HOME", str(used.parent))
    monkeypatch.setenv("FLOWQ_STATE", str(used / "state"))
    assert server.find_used_above() is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("owned", ["src", ""])
def test_the_search_ends_at_a_folder_of_another_user(used: Path, below: Path, owned: str) -> None:
    os.chown(used / owned, 65534, -1)
    assert server.find_used_above() is None


def test_a_state_above_that_nothing_proves_is_not_used(
    used: Path, below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(used / "src")
    state.open_state(used / "src").data.mkdir()
    monkeypatch.chdir(below)
    (state.find(used / "src").path / state.BELONGS_TO).write_text("/elsewhere\n")
    assert server.find_used_above() == used
    (state.find(used).path / state.BELONGS_TO).write_text("/elsewhere\n")
    assert server.find_used_above() is None


def test_what_came_with_a_folder_above_blocks_no_command(
    call: Call, folder: Path, below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(below)
    (folder / ".flowq" / "data").mkdir(parents=True)
    assert server.find_used_above() is None
    for words in (["runs"], ["wip"], ["workers"], ["doctor"], ["server", "status"]):
        done = call(*words)
        assert (done.code, ".flowq" in done.err) == (0, False), words
    assert f"there are no runs in {below}" in call("status", "last").err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no user numbers without a name")
def test_a_user_without_a_home_folder_finds_the_folder_above(
    call: Call, used: Path, below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def have_no_entry(number: int) -> None:
        raise KeyError(number)

    monkeypatch.chdir(below)
    monkeypatch.setenv("XDG_STATE_HOME", str(state.find(used).path.parent.parent))
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", have_no_entry)
    assert server.find_used_above() == used
    state.find(used).data.rmdir()
    assert server.find_used_above() is None
    assert call("runs").out == "no runs\n"


def test_uninstall_never_means_a_folder_above(
    call: Call, used: Path, below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(below)
    assert call("doctor", "--uninstall", "--yes").out == "nothing to remove\n"
    found = server.find(used)
    assert found is not None
    assert not found.is_running
