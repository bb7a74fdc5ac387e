"""What the tests of the embedded server do with its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from flowq import server


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


def run_python(text: str, *words: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", text, *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )


def guardian_of(running: server.Server) -> int:
    return int((running.state / "guardian.lock").read_text().split()[1])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
