"""`flowq server`: where the state of a folder is, and what becomes of it."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from flowq import server
from flowq.server import state
from flowq.server.state import find
from tests.cli.commands import Said

Call = Callable[..., Said]


@pytest.fixture(autouse=True)
def _alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody answers questions, and a server ends with the test."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    yield
    monkeypatch.undo()
    started = server.find(folder)
    if started is not None:
        started.stop()


def test_before_the_first_run_there_is_nothing_and_nothing_is_made(
    call: Call, folder: Path
) -> None:
    path = str(find(folder).path)
    assert call("server", "path").out == f"{path}\n"
    assert call("server", "path", str(folder)).out == f"{path}\n"
    done = call("server", "status")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[:2] == [
        "server   not running",
        (f"state    {path} (not created yet)"),
    ]
    assert call("server", "stop").out == "not running\n"
    assert call("server", "reset").out == "nothing to remove\n"
    done = call("server", "adopt")
    assert done.code == 5
    assert done.err.startswith("flowq: there is nothing to adopt here; ")
    assert not Path(path).exists()


def test_the_url_of_a_server_is_printed_once_it_can_be_used(call: Call, folder: Path) -> None:
    done = call("server", "url")
    assert (done.code, done.err) == (0, "")
    with closing(redis.from_url(done.out.strip())) as connection:
        assert connection.ping()
    assert call("server", "url", str(folder)).out == done.out


def test_a_server_is_shown_stopped_and_reset(call: Call, folder: Path) -> None:
    started = server.ensure(folder)
    facts = json.loads(call("server", "status", "--json").out)
    assert facts == {
        "v": 1,
        "kind": "server",
        "folder": str(folder),
        "state": str(started.state),
        "is_named": False,
        "exists": True,
        "is_running": True,
        "other_host": "",
        "size_bytes": facts["size_bytes"],
        "log": str(started.log),
    }
    assert facts["size_bytes"] > 0
    assert "server   running\n" in call("server", "status").out
    assert call("server", "stop").out == "stopped\n"
    assert call("server", "stop").out == "not running\n"
    assert "not running; the next command starts it" in call("server", "status").out
    done = call("server", "reset")  # with nobody to answer
    assert done.code == 2
    assert "nothing was removed; --yes does it without asking" in done.err
    assert call("server", "reset", "--yes").out == f"removed {started.state}\n"
    assert not started.state.exists()


def test_a_folder_that_is_gone_is_shown_and_its_state_adopted_or_removed(
    call: Call, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))  # others leave some, too
    gone = tmp_path.with_name(f"{tmp_path.name}-before")
    gone.mkdir()
    started = server.ensure(gone)
    started.stop()
    gone.rmdir()
    shown = call("server", "status").out
    assert f"(flowq server adopt FOLDER, or reset --gone for all):\n  {gone}\n" in shown
    said = f"if this folder was named {gone} before: flowq server adopt {shlex.quote(str(gone))}\n"
    assert call("runs").err.endswith(said)
    done = call("server", "adopt", str(gone))
    assert done.code == 2
    assert f"{started.state}: 3 files with 1 kB of runs and jobs" in done.err
    assert "so their author can run code as you" in done.err
    assert "nothing was adopted; --yes does it without asking" in done.err
    done = call("server", "adopt", str(gone), "--yes")
    assert done.out == f"adopted: {find(folder).path}\n{started.state} is not needed any more\n"
    assert call("runs").out == "no runs\n"
    assert call("server", "reset", str(gone), "--yes").code == 0
    assert str(gone) not in call("server", "status").out


def test_what_came_with_the_folder_is_refused_in_one_sentence_by_every_command(
    call: Call, folder: Path
) -> None:
    (folder / ".flowq" / "data" / "appendonlydir").mkdir(parents=True, mode=0o700)
    (folder / ".flowq").chmod(0o700)
    for words in ("run sandwich.yaml", "runs", "doctor", "status x", "worker --burst", "wip"):
        done = call(*words.split())
        assert (done.code, done.out) == (4, ""), words
        assert done.err.startswith(f"flowq: {folder / '.flowq'} is not used: ")
        assert done.err.endswith("flowq server adopt, else remove it\n")
        assert done.err.count("\n") == 1
    assert call("server", "path").code == 0
    assert call("check", "sandwich.yaml").code == 0
    assert call("server", "adopt", "--yes").code == 0
    assert call("runs").out == "no runs\n"


def test_a_named_state_is_for_all_folders(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLOWQ_STATE", str(tmp_path / "named"))
    done = call("server", "status")
    assert "named by FLOWQ_STATE" in done.out
    assert call("server", "path").out == f"{tmp_path / 'named'}\n"
    done = call("server", "reset", str(folder))
    assert done.code == 2
    assert "FLOWQ_STATE names one state for all folders" in done.err
    monkeypatch.setenv("FLOWQ_STATE", "relative")
    for words in ("server path", "server status", "runs", "run sandwich.yaml"):
        done = call(*words.split())
        assert done.code == 4
        assert done.err.startswith("flowq: FLOWQ_STATE is 'relative', but must be an absolute path")
        assert done.err.count("\n") == 1


def test_without_a_home_every_command_says_so_in_one_sentence(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    for words in ("run sandwich.yaml", "runs", "server status", "server path", "server adopt"):
        done = call(*words.split())
        assert done.code == 4, words
        assert "no home folder is known" in done.err
        assert done.err.count("\n") == 1


def test_a_file_that_is_rewritten_while_its_size_is_asked_for_is_passed_over(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = server.ensure(folder)
    started.stop()
    lstat = Path.lstat

    def remove_first(path: Path) -> os.stat_result:
        if path.suffix == ".aof":
            path.unlink(missing_ok=True)
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", remove_first)
    done = call("server", "status", "--json")
    assert (done.code, done.err) == (0, "")
    assert call("server", "reset", "--yes").code == 0


def test_a_state_that_is_nested_without_end_is_refused_in_one_sentence(
    call: Call, folder: Path
) -> None:
    place = folder / ".flowq" / "data" / "appendonlydir"
    for _ in range(100):
        place /= "a"
    place.mkdir(parents=True, mode=0o700)
    for each in (folder / ".flowq").rglob("*"):
        each.chmod(0o700)
    (folder / ".flowq").chmod(0o700)
    done = call("server", "adopt", "--yes")
    assert done.code == 4
    assert "is deeper than flowq makes a folder" in done.err
    assert done.err.count("\n") == 1
    shutil.rmtree(folder / ".flowq")


def test_the_states_of_all_folders_that_are_gone_are_counted_and_removed_at_once(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    kept = tmp_path / "kept"
    gone = [tmp_path / f"gone{number}" for number in range(5)]
    for each in (kept, *gone):
        each.mkdir()
        state.open_state(each).data.mkdir()
    for each in gone:
        each.rmdir()
    shown = call("server", "status").out
    assert "gone     5 states of folders no longer there (" in shown
    assert shown.count(f"{tmp_path}/gone") == 3
    assert shown.endswith("  and 2 more\n")
    refused = call("server", "reset", "--gone", str(kept))
    assert (refused.code, "leave out" in refused.err) == (2, True)
    asked = call("server", "reset", "--gone")
    assert asked.code == 2
    assert all(f"{each}\n" in asked.err for each in gone)
    assert len(state.find_owners()) == 6
    assert call("server", "reset", "--gone", "--yes").out == "removed 5\n"
    assert state.find_owners() == [str(kept)]
    assert call("server", "reset", "--gone").out == "nothing to remove\n"
