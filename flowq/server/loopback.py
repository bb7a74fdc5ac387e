"""The embedded server where there are no Unix sockets: a real one, on loopback, with a password.

It wants a server program on the PATH (`redis-server`, `valkey-server`, `memurai`). It is used on
Windows, and wherever else Python has no Unix sockets.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from flowq.errors import ServerUnavailable
from flowq.runtime import keys
from flowq.server import portable
from flowq.server.connection import connect
from flowq.server.portable import ADDRESS, DOOR_LOCK, KEEPER_LOCK, LOG, Address
from flowq.server.resp import PROBE, Refused, Wire, is_guarded

START_S = 60.0
STOP_S = 15.0
PAUSE_S = 0.02
STARTER = Path(__file__).with_name("__main__.py")


@dataclass(frozen=True, slots=True)
class LoopbackServer:
    """A private server that listens on 127.0.0.1, with its state folder."""

    state: Path
    url: str

    @property
    def log(self) -> Path:
        """What the server and its keeper have to say."""
        return self.state / LOG

    @property
    def is_running(self) -> bool:
        """Whether the server answers, and is this folder's."""
        wire = _open(portable.read_address(self.state))
        if wire is None:
            return False
        wire.close()
        return True

    @property
    def other_host(self) -> str:
        """Which process of which other machine has the server: that is not known here."""
        return ""

    def connect(self) -> redis.Redis:
        """Return a new connection to the server. Errors: ServerUnavailable."""
        return connect(self.url)

    def stop(self) -> None:
        """End the server, whoever uses it; its data stay, and `ensure` starts it again. Idempotent.

        Blocks: until its keeper has gone. Errors: ServerUnavailable.
        """
        deadline = time.monotonic() + STOP_S
        self._shut_down()
        while not _is_free(self.state):
            if time.monotonic() > deadline:
                raise ServerUnavailable(str(self.state), "it does not end; see " + str(self.log))
            time.sleep(PAUSE_S)
            self._shut_down()  # its keeper may just have started it again

    def _shut_down(self) -> None:
        wire = _open(portable.read_address(self.state))
        if wire is None:
            return
        with suppress(OSError):  # on Windows, while somebody reads it
            (self.state / ADDRESS).unlink()
        with suppress(OSError, Refused):  # it hangs up instead of answering
            wire.ask("SHUTDOWN", "NOSAVE")
        wire.close()


def ensure(state: Path, binary: Path | None, idle_s: float) -> LoopbackServer:
    """Return the server of a state folder, started if it does not run. `binary` None: the stopgap.

    Atomic: any number of callers at once get the same server. Errors: ServerUnavailable, OSError.
    """
    deadline = time.monotonic() + START_S
    while (server := _look(state)) is None:
        if time.monotonic() > deadline:
            reason = f"its server does not get ready; see {state / LOG}"
            raise ServerUnavailable(str(state), reason)
        if _send_keeper(state, binary, idle_s) != "ready":
            time.sleep(PAUSE_S)
    return server


def find(state: Path) -> LoopbackServer:
    """Return the server of a state folder, running or not."""
    address = portable.read_address(state)
    return LoopbackServer(state, address.url if address else "")


@contextmanager
def temporary(binary: Path | None) -> Iterator[LoopbackServer]:
    """Run a private server in a temporary folder for as long as the block; it keeps nothing."""
    state = Path(tempfile.mkdtemp(prefix="flowq-test-")).resolve()
    try:
        with _keeper(state, binary, None) as keeper:  # leaving closes the pipe, and waits
            _read_report(keeper, state)
            address = portable.read_address(state)
            if address is None:
                raise ServerUnavailable(str(state), "its keeper was killed at the start")
            yield LoopbackServer(state, address.url)
    finally:
        shutil.rmtree(state, ignore_errors=True)


# Looking -----------------------------------------------------------------------------------------


def _open(address: Address | None) -> Wire | None:
    if address is None:
        return None
    try:
        return address.call()
    except (OSError, Refused):
        return None


def _look(state: Path) -> LoopbackServer | None:
    """Return the server if it is ready, kept and not about to end; else a keeper helps."""
    door = portable.try_lock(state / DOOR_LOCK, shared=True)
    if door is None:
        return None
    try:
        address = portable.read_address(state)
        wire = _open(address)
        if address is None or wire is None:
            return None
        try:
            wire.ask(PROBE)
            return LoopbackServer(state, address.url) if is_guarded(wire) else None
        except (OSError, Refused):
            return None
        finally:
            wire.close()
    finally:
        door.release()


def _is_free(state: Path) -> bool:
    try:
        lock = portable.try_lock(state / KEEPER_LOCK)
    except OSError:
        return True  # the folder is gone
    if lock is None:
        return False
    lock.release()
    return True


# Starting ----------------------------------------------------------------------------------------


def _keeper(state: Path, binary: Path | None, idle_s: float | None) -> subprocess.Popen[bytes]:
    values = [state, binary or "", "" if idle_s is None else idle_s, keys.RUNS, keys.ENDED]
    command = [sys.executable, "-P", str(STARTER), "keeper", *map(str, values)]
    with portable.open_log(state) as log:
        return subprocess.Popen(  # noqa: S603 - our own file and words
            command,
            stdin=subprocess.PIPE if idle_s is None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            **(_detached() if idle_s is not None else {}),
        )


def _send_keeper(state: Path, binary: Path | None, idle_s: float) -> str:
    keeper = _keeper(state, binary, idle_s)  # not in a `with`, which would wait for its end
    assert keeper.stdout is not None
    with keeper.stdout:
        return _read_report(keeper, state)


def _detached() -> dict[str, Any]:
    """Ctrl-C in the terminal is not meant for it."""
    if hasattr(os, "setsid"):
        return {"start_new_session": True}
    names = ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW")
    return {"creationflags": sum(getattr(subprocess, name, 0) for name in names)}


def _read_report(keeper: subprocess.Popen[bytes], state: Path) -> str:
    """Return what the keeper says: "ready", "busy", or "" when it was killed before that."""
    said: list[bytes] = []
    stdout = keeper.stdout
    assert stdout is not None
    # A thread, because not everywhere can one wait for a pipe.
    reader = threading.Thread(target=lambda: said.append(stdout.readline()), daemon=True)
    reader.start()
    reader.join(START_S)
    text = said[0].decode(errors="replace").strip() if said else ""
    if text.startswith("error "):
        raise ServerUnavailable(str(state), text.removeprefix("error "))
    return text
