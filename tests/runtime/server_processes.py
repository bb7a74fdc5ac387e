"""What the tests of the embedded server do with its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from flowq import server
from flowq.server import endpoint
from flowq.server.resp import is_guarded

on_both_endpoints = pytest.mark.usefixtures("each_endpoint")
"""For tests of what a server does however it is reached; see the fixture."""

only_unix = pytest.mark.parametrize("each_endpoint", ["unix"], indirect=True)


def end(place: Path) -> None:
    """End the server of a folder, which may have none."""
    found = server.find(place)
    if found is not None:
        found.stop()


def pid_of(started: server.Server) -> int:
    with started.connect() as connection:
        return int(connection.info("server")["process_id"])


def is_alive(pid: int) -> bool:
    """Whether there is such a process. It may end at any moment, also between two looks at it."""
    try:
        os.kill(pid, 0)
        # A process that ended as nobody's child may stay as a zombie in a container without an init
        stat = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()
    return stat.rpartition(")")[2].split()[0] != "Z"


def kill_guards(running: server.Server) -> None:
    """Kill whatever looks after the server: its guardian, and what would start another one."""
    for path in Path("/proc").iterdir():
        with suppress(OSError):
            if path.name.isdigit() and (path / "cwd").resolve(strict=True) == running.state:
                kill(int(path.name))


def run_python(text: str, *words: str, **variables: str) -> subprocess.Popen[str]:
    """Run a program in another process, where servers are reached as in this one."""
    if not endpoint.has_unix_sockets():
        text = f"from flowq.server import endpoint\nendpoint.has_unix_sockets = bool\n{text}"
    return subprocess.Popen(
        [sys.executable, "-c", text, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )


def guardian_of(running: server.Server) -> int:
    """Return the process that looks after the server; 0 or the last one while there is none."""
    if endpoint.has_unix_sockets():
        return int((running.state / "guardian.lock").read_text().split()[1])
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    guards = [pid for pid in found if _guards(pid, running.state)]
    # A new one is connected when it has its standby.
    connection = endpoint.endpoint_of(running.state).find()
    if not guards or connection is None:
        return 0
    with closing(connection):
        return max(guards) if is_guarded(connection) else 0


def _guards(pid: int, state: Path) -> bool:
    try:
        is_there = Path(f"/proc/{pid}/cwd").resolve(strict=True) == state
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return False
    return is_there and any(word.endswith("server/__main__.py") for word in words[:6])


def kill(pid: int) -> None:
    """Kill a process, and wait until its locks and connections are gone with it."""
    assert pid > 0  # 0 would be all of us
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.001)
