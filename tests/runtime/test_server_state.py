"""Whose state it is: where it lives, what proves that it is ours, and what is never followed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowq import Queue, server
from flowq.cli import own_workers
from flowq.errors import ServerUnavailable, StateUnusable
from flowq.server import adopting, embedded, endpoint, locks, private, process, state
from flowq.workers.launch import start
from tests.runtime.server_processes import end

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the embedded server needs Unix")

NOBODY = 65534
only_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)


def commit_state(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a state into a folder, with a queued job that must never run."""
    monkeypatch.setenv("FLOWQ_STATE", str(place / ".flowq"))
    made = server.ensure()
    with made.connect() as connection:
        Queue(connection=connection).enqueue(os.system, "touch PWNED", job_id="hostile")
    made.stop()
    monkeypatch.delenv("FLOWQ_STATE")


def git(*words: str, cwd: Path | None = None) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    subprocess.run(["git", *who, *words], cwd=cwd, check=True, capture_output=True)


def has_job(place: Path | None = None) -> bool:
    with server.ensure(place).connect() as connection:
        return bool(connection.exists("rq:job:hostile"))


def modes(place: Path) -> set[int]:
    return {stat.S_IMODE(path.lstat().st_mode) for path in (place, *place.rglob("*"))}


# --- where it lives ---


def test_a_folder_has_its_state_in_the_folder_of_the_user_and_nothing_in_itself(
    project: Path, home: Path
) -> None:
    found = state.open_state()
    assert found == state.open_state(project)
    assert found.path.parent == home / "flowq"
    assert (found.path / "belongs-to").read_text() == f"{project}\n"
    assert list(project.iterdir()) == []


def test_looking_makes_nothing_and_claims_no_empty_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWQ_STATE", str(project))
    project.chmod(0o755)
    assert not server.is_used()
    assert server.find() is None
    assert list(project.iterdir()) == []
    assert stat.S_IMODE(project.stat().st_mode) == 0o755


def test_a_link_leads_to_the_state_of_its_folder_and_two_folders_have_two(
    project: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(project)
    paths = [state.find(place).path for place in (project, tmp_path / "link", tmp_path)]
    assert paths[0] == paths[1] != paths[2]


@pytest.mark.parametrize("how", ["copied", "renamed"])
def test_a_copied_or_renamed_folder_has_no_state_until_it_adopts_that_of_the_other(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with server.ensure(project).connect() as connection:
        connection.set("key", "value")
        connection.config_set("appendfsync", "always")
    other = tmp_path / how
    if how == "copied":
        shutil.copytree(project, other)
    else:
        project.rename(other)
    monkeypatch.chdir(other)
    assert not server.is_used()
    assert state.find_abandoned() == ([] if how == "copied" else [str(project)])
    adopting.adopt(adopting.find_adoptable(project))
    try:
        with server.ensure().connect() as connection:
            assert connection.get("key") == b"value"
    finally:
        end(other)


def test_the_variable_names_the_state_itself(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWQ_STATE", str(tmp_path / "a" / "b"))
    assert state.open_state().path == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b" / ".gitignore").read_text() == "*\n"
    assert state.open_state(tmp_path).path == tmp_path / "a" / "b"
    monkeypatch.delenv("FLOWQ_STATE")
    usual = state.open_state(project)
    monkeypatch.setenv("FLOWQ_STATE", str(usual.path))
    assert state.open_state(tmp_path).path == usual.path
    shutil.copytree(usual.path, tmp_path / usual.path.name)
    (tmp_path / usual.path.name / "data").mkdir()
    monkeypatch.setenv("FLOWQ_STATE", str(tmp_path / usual.path.name))
    with pytest.raises(StateUnusable, match="has not made it at this place"):
        state.open_state()
    monkeypatch.setenv("FLOWQ_STATE", "a/b")
    with pytest.raises(StateUnusable, match="must be an absolute path"):
        state.open_state()


@pytest.mark.parametrize(
    ("platform", "name", "expected"),
    [
        ("linux", "posix", ".local/state/flowq"),
        ("darwin", "posix", "Library/Application Support/flowq"),
    ],
)
def test_without_xdg_each_platform_has_its_usual_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, name: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", unset)
        assert state.find().path.parent == tmp_path / expected


def test_on_windows_it_is_where_programs_keep_what_is_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCALAPPDATA", r"C:\Users\me\AppData\Local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "name", "nt")
        assert state._usual_home() == r"C:\Users\me\AppData\Local"
        patch.delenv("LOCALAPPDATA")
        assert state._usual_home() == r"~\AppData\Local"


def test_a_usual_path_of_a_socket_fits() -> None:
    names = (
        "/Users/somebody.with.a.name/Library/Application Support",
        "/home/somebody/.local/state",
    )
    for name in names:
        path = f"{name}/flowq/{'0' * state.HASH_LENGTH}/server.sock~"
        assert len(path) < 103


# --- no place for it ---


def test_without_a_home_there_is_one_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # neither HOME nor an entry
    for look in (server.ensure, server.is_used, server.find):
        with pytest.raises(
            StateUnusable, match=r"no home folder is known.*set FLOWQ_STATE"
        ) as told:
            look()
        assert "\n" not in str(told.value)
    assert own_workers.find_folder() is None  # a run on a server with a URL goes on


def test_a_home_that_cannot_be_written_to_gives_one_sentence(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.geteuid() == 0:  # root may write anywhere but there
        closed = Path("/proc/self/closed")
    monkeypatch.setenv("XDG_STATE_HOME", str(closed))
    with pytest.raises(StateUnusable, match=r"set FLOWQ_STATE.*or pass --redis-url") as told:
        server.ensure()
    assert str(closed) in str(told.value)
    assert "\n" not in str(told.value)
    assert not server.is_used()
    assert own_workers.find_folder() is None


def test_a_file_in_the_place_of_a_folder_gives_one_sentence(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch, victim: Path
) -> None:
    for place in (home, home / "flowq", state.find().path):
        place.parent.mkdir(exist_ok=True)
        place.write_text("")
        with pytest.raises(StateUnusable, match="is not a folder"):
            server.ensure()
        place.unlink()
    monkeypatch.setenv("XDG_STATE_HOME", str(victim / "below"))
    with pytest.raises(StateUnusable, match="is not a folder"):
        server.ensure()


# --- modes ---


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_all_is_made_for_the_user_alone_under_every_umask(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    before = os.umask(umask)
    try:
        made = state.open_state()
        start(url="", log_folder=str(own_workers.find_folder())).wait()
        lock = locks.try_file_lock(made.path / "door.lock")
        other = locks.try_database_lock(made.path / "other.lock")
        monkeypatch.chdir(made.path)
        os.close(process.open_log())
        endpoint.write_address(made.path / "address", endpoint.make_address())
        private.make_folder(made.data)
    finally:
        os.umask(before)
    assert lock is not None
    assert other is not None
    lock.release()
    other.release()
    assert modes(home) == {0o700, 0o600}


def test_a_server_writes_for_the_user_alone_under_an_open_umask(project: Path, home: Path) -> None:
    before = os.umask(0)
    try:
        started = server.ensure()
        with started.connect() as connection:
            connection.set("key", "value")
        worker = start(url=started.url, log_folder=str(own_workers.find_folder()))
        worker.kill()
        worker.wait()
    finally:
        os.umask(before)
    assert (started.state / "logs" / "worker.log").exists()
    assert modes(home) == {0o700, 0o600}


def test_a_folder_that_others_can_look_into_is_closed_and_one_they_can_write_to_is_refused(
    project: Path, home: Path
) -> None:
    place = state.open_state().path
    place.chmod(0o755)
    state.open_state()
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    for open_to_others in (place, home / "flowq"):
        open_to_others.chmod(0o770)
        for look in (server.ensure, server.is_used):
            with pytest.raises(StateUnusable, match=r"other users can write to it.*chmod 700"):
                look()
        open_to_others.chmod(0o700)


# --- another user ---


@only_root
def test_a_folder_or_a_file_of_another_user_is_refused(project: Path, home: Path) -> None:
    place = state.open_state().path
    for theirs in (home / "flowq", place, place / "belongs-to", place / "server.log"):
        theirs.touch()
        os.chown(theirs, NOBODY, NOBODY)
        with pytest.raises(StateUnusable, match=f"{theirs} belongs to another user .id {NOBODY}"):
            server.ensure()
        os.chown(theirs, 0, 0)


def as_user(number: int, function: Callable[[], object], **variables: str) -> str:
    """Call a function as another user, with these variables alone; return its result as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.environ.clear()
            os.environ.update(variables)
            os.setgroups([])
            os.setgid(number)
            os.setuid(number)
            said = str(function())
        except BaseException as error:  # noqa: BLE001 - it is told
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@only_root
def test_a_second_user_neither_gets_at_a_state_nor_makes_us_use_theirs(
    project: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = state.open_state().path
    shared = world / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    said = as_user(NOBODY, state.open_state, XDG_STATE_HOME=str(world / "home"))
    assert said.startswith("StateUnusable: ")
    assert "Permission denied" in said
    assert as_user(NOBODY, lambda: list(place.iterdir())).startswith("PermissionError")
    as_user(NOBODY, lambda: (shared / "link").symlink_to(world))
    as_user(NOBODY, lambda: (shared / "folder").mkdir(mode=0o777))
    for name, why in (("link", "symbolic link"), ("folder", "another user")):
        monkeypatch.setenv("FLOWQ_STATE", str(shared / name))
        with pytest.raises(StateUnusable, match=why):
            server.ensure()
        monkeypatch.delenv("FLOWQ_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(shared))
    (shared / "folder").rename(shared / "flowq")
    with pytest.raises(StateUnusable, match="another user"):
        server.ensure()


@only_root
def test_a_user_number_without_home_and_name_gets_a_sentence_or_the_state_that_is_named(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd  # the child cannot import it perhaps

    with pytest.raises(KeyError):
        pwd.getpwuid(12345)
    monkeypatch.chdir(world)
    world.chmod(0o777)

    def find_path() -> Path:
        return state.open_state().path

    for variables in ({}, {"HOME": "/"}, {"HOME": "/nonexistent/x"}, {"HOME": "x"}):
        said = as_user(12345, find_path, **variables)
        assert said.startswith("StateUnusable: "), said
        assert "set FLOWQ_STATE" in said
        assert "\n" not in said
    named = str(world / "state")
    assert as_user(12345, find_path, FLOWQ_STATE=named) == named
    assert modes(world / "state") == {0o700, 0o600}
    assert "another user" in as_user(12346, find_path, FLOWQ_STATE=named)


# --- what comes with a folder ---


def test_a_state_that_came_with_a_clone_a_pull_or_a_cache_is_never_loaded(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_state(project, monkeypatch)
    clone = tmp_path / "clone"
    if shutil.which("git"):
        git("init", "-q")
        git("add", "-f", ".flowq")
        git("commit", "-q", "-m", "1")
        git("clone", "-q", str(project), str(clone))
    else:
        shutil.copytree(project, clone)
    monkeypatch.chdir(clone)
    for look in (server.ensure, server.is_used, server.find):
        with pytest.raises(StateUnusable, match=r"\.flowq is not used.*flowq server adopt") as told:
            look()
        assert "\n" not in str(told.value)
    monkeypatch.setenv("FLOWQ_STATE", str(clone / ".flowq"))
    with pytest.raises(StateUnusable, match=r"is not used: flowq has not made it at this place"):
        server.ensure()
    monkeypatch.delenv("FLOWQ_STATE")
    (clone / ".flowq").rename(clone / "away")
    try:
        assert not has_job()
        (clone / "away").rename(clone / ".flowq")  # a pull brings it back: ours is there by now
        assert not has_job()
    finally:
        end(clone)


def test_git_overwrites_what_is_ignored_so_a_state_in_a_folder_would_prove_nothing(
    project: Path, tmp_path: Path
) -> None:
    if shutil.which("git") is None:
        pytest.skip("there is no git")

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "1")
    mine = tmp_path / "mine"
    git("clone", "-q", str(project), str(mine))
    for place, text in ((mine, "mine"), (project, "hostile")):
        (place / ".flowq").mkdir()
        (place / ".flowq" / ".gitignore").write_text("*\n")
        (place / ".flowq" / "data").write_text(text)
    git("add", "-f", ".flowq/data")
    git("commit", "-q", "-m", "2")
    git("pull", "-q", cwd=mine)
    assert (mine / ".flowq" / "data").read_text() == "hostile"


def test_a_folder_with_other_files_is_not_taken_for_a_state(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "book.txt").write_text("mine")
    project.chmod(0o755)
    monkeypatch.setenv("FLOWQ_STATE", str(project))
    for look in (server.ensure, server.is_used, embedded.reset):
        with pytest.raises(StateUnusable, match="has not made it at this place"):
            look()
    assert [path.name for path in project.iterdir()] == ["book.txt"]
    assert stat.S_IMODE(project.stat().st_mode) == 0o755


def test_the_state_of_an_older_version_is_adopted_with_its_server_at_work(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWQ_STATE", str(project / ".flowq"))
    before = server.ensure()
    with before.connect() as connection:
        connection.set("rq:job:hostile", "it is mine")
        connection.config_set("appendfsync", "always")
    monkeypatch.delenv("FLOWQ_STATE")
    (before.state / "belongs-to").unlink()
    found = adopting.find_adoptable()
    assert (found.source, found.is_in_place) == (project / ".flowq", False)
    adopting.adopt(found)
    assert not before.is_running
    assert has_job()
    assert (project / ".flowq" / "data").is_dir()
    assert server.is_used()
    with pytest.raises(adopting.WrongState, match="flowq server reset"):
        adopting.find_adoptable()


def test_a_named_state_that_was_moved_is_adopted_where_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_state(project, monkeypatch)
    moved = (project / ".flowq").rename(project / "moved")
    monkeypatch.setenv("FLOWQ_STATE", str(moved))
    with pytest.raises(StateUnusable, match="flowq server adopt"):
        server.ensure()
    adopting.adopt(adopting.find_adoptable())
    kept = server.ensure()
    assert has_job()
    kept.stop()
    with pytest.raises(adopting.WrongState, match="is the state of this folder already"):
        adopting.find_adoptable()


def test_what_has_links_in_it_is_not_adopted(
    project: Path, monkeypatch: pytest.MonkeyPatch, victim: Path
) -> None:
    commit_state(project, monkeypatch)
    (project / ".flowq" / "data" / "more").symlink_to(victim)
    with pytest.raises(StateUnusable, match="more is a symbolic link"):
        adopting.find_adoptable()
    shutil.rmtree(project / ".flowq")
    (project / ".flowq").symlink_to(victim.parent)
    with pytest.raises(StateUnusable, match="flowq is not used"):
        server.ensure()
    with pytest.raises(StateUnusable, match="flowq is a symbolic link"):
        adopting.find_adoptable()
    (project / ".flowq").unlink()
    with pytest.raises(adopting.NotFound, match="there is nothing to adopt here"):
        adopting.find_adoptable()
    (project / "data").mkdir()  # of the project's own
    with pytest.raises(adopting.NotFound, match="is not a state of flowq's"):
        adopting.find_adoptable(project)


# --- two machines ---


def test_a_server_of_another_machine_on_a_shared_folder_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = state.open_state().path
    held = [locks.try_file_lock(place / name) for name in ("guardian.lock", "server.lock")]
    assert held[1] is not None
    monkeypatch.setattr(locks, "read_boot_id", lambda: "1-2-3")
    monkeypatch.setattr(locks.socket, "gethostname", lambda: "login1")
    held[1].note_holder(4711)
    assert locks.find_other_host(place / "server.lock") is None
    monkeypatch.setattr(locks.socket, "gethostname", lambda: "container")
    assert locks.find_other_host(place / "server.lock") is None  # another name of this machine
    monkeypatch.setattr(locks, "read_boot_id", lambda: "4-5-6")
    monkeypatch.setattr(embedded, "LOOK_AGAIN_S", 0.0)
    with pytest.raises(ServerUnavailable, match=r"process 4711 on login1 uses it: run flowq there"):
        server.ensure()
    found = server.find()
    assert found is not None
    assert found.other_host == "process 4711 on login1"
    for lock in held:
        assert lock is not None
        lock.release()


def test_a_bind_mount_is_a_folder_of_its_own(project: Path, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    text = "from flowq.server import state; print(state.find().path)"
    script = 'mount --bind "$1" "$2" && cd "$2" && exec "$3" -c "$4"'
    words = ["sh", "-c", script, "sh", str(project), str(mounted), sys.executable, text]
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    done = subprocess.run(
        ["unshare", "-m", *words], capture_output=True, text=True, check=False, timeout=30
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()[-100:]}")
    assert Path(done.stdout.strip()) == state.find(mounted).path != state.find(project).path
