"""Starting and killing programs where Windows differs from other platforms.

Commands of jobs, workers and the embedded server start processes; the differences stand here once.
So does what a Python process that is started must be told of this one's `sys.path`.
"""

from __future__ import annotations

import os
import signal
import site
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Any

_OF_PYTHON = ("stdlib", "platstdlib", "purelib", "platlib")


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


def list_own_paths() -> list[str]:
    """Return the folders and archives of `sys.path`, without those that this Python always has.

    Another process of this Python needs no others, and a program of another Python, which a job may
    start, must not get the standard library and the packages of this one.
    """
    known = [sysconfig.get_path(name) for name in _OF_PYTHON]
    known += [*site.getsitepackages(), site.getusersitepackages()]
    roots = tuple(os.path.realpath(path) + os.sep for path in known)
    paths = dict.fromkeys(os.path.realpath(path) for path in sys.path)  # "" is the current folder
    return [path for path in paths if Path(path).exists() and not (path + os.sep).startswith(roots)]
