"""Starting and killing programs where Windows differs from other platforms.

Commands of jobs, workers and the embedded server start processes; the differences stand here once.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import Any


def detached() -> dict[str, Any]:
    """Return the options of Popen that keep Ctrl-C in the terminal away from the process."""
    if hasattr(os, "setsid"):
        return {"start_new_session": True}
    names = ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW")
    return {"creationflags": sum(getattr(subprocess, name, 0) for name in names)}


def kill_tree(pid: int) -> None:
    """Kill a process and those that it started: its group or, on Windows, its descendants.

    Does nothing if it is gone, or does not lead a group. Blocks on Windows.
    """
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):  # the latter for zombies of macOS
            os.killpg(pid, signal.SIGKILL)
        return
    command = ["taskkill", "/F", "/T", "/PID", str(pid)]
    with suppress(FileNotFoundError):
        subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - fixed words
