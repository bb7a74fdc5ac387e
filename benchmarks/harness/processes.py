"""Worker processes: started, watched, and ended with everything that they have started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

END_S = 1.5


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker for as long as the block; what it says goes to the log."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and make it if it does not; no process of its tree is left."""
    tree = find_tree(process.pid)
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
    finally:  # whoever interrupts us wants the rest to end all the more
        for pid in tree[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def find_tree(pid: int) -> list[int]:
    """Return the process and everything below it; where there is no /proc, the process."""
    children: dict[int, list[int]] = {}
    for each in _pids():
        with suppress(OSError):
            children.setdefault(int(_stat(each)[1]), []).append(each)
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def cpu_s(pid: int) -> float | None:
    """Return what a process, its tree and its ended children have used; None without /proc."""
    if not Path("/proc/self/stat").exists():
        return None
    ticks = 0
    for each in find_tree(pid):
        with suppress(OSError):
            ticks += sum(map(int, _stat(each)[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def last_line(log: Path) -> str:
    """Return the last thing that a worker said."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip()[:200] if lines else "it said nothing"


def _pids() -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    return []


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third one on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
