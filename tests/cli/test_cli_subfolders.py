"""Commands in a folder below the one in which `flowq run` was called."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flowq import server
from flowq.errors import StateUnusable
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


def test_a_state_above_that_nothing_proves_is_refused(used: Path, below: Path) -> None:
    (state.find(used).path / state.BELONGS_TO).write_text("/elsewhere\n")
    with pytest.raises(StateUnusable, match="flowq has not made it at this place"):
        server.find_used_above()


def test_a_state_that_came_with_a_folder_above_is_refused(folder: Path, below: Path) -> None:
    (folder / ".flowq" / "data").mkdir(parents=True)
    with pytest.raises(StateUnusable, match="it may have come with this folder"):
        server.find_used_above()
