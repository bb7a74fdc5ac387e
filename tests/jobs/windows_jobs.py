"""A user's jobs, and what of POSIX they find."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

NAMES = {
    os: "fork wait wait4 killpg getpgid setpgrp setsid posix_spawn WIFSIGNALED EX_OK",
    signal: "SIGALRM SIGKILL SIGRTMIN SIGHUP",
    socket: "AF_UNIX",
}


def find_posix() -> list[str]:
    """Return what is here that Windows does not have."""
    found = [
        name for module, names in NAMES.items() for name in names.split() if hasattr(module, name)
    ]
    for module in ("resource", "pwd", "fcntl"):
        try:
            found.append(importlib.import_module(module).__name__)
        except ImportError:
            continue
    return found + [name for name in multiprocessing.get_all_start_methods() if name != "spawn"]


def find_posix_inside() -> list[str]:
    """Return what the modules of flowq and RQ find that Windows does not have."""
    return [
        f"{place}: {mine}.{name}"
        for place, module in list(sys.modules.items())
        if place.partition(".")[0] in ("flowq", "rq")
        for mine in vars(module).keys() & {"os", "signal", "socket"}
        for name in _names_of(mine)
        if hasattr(getattr(module, mine), name)
    ]


def _names_of(module: str) -> list[str]:
    return next(names.split() for known, names in NAMES.items() if known.__name__ == module)


def describe() -> str:
    """Return what Python says about the platform."""
    return f"{os.name} {sys.platform}"


def wait_for_interrupt(began: str) -> None:
    """Say that it has begun, and take long."""
    Path(began).touch()
    time.sleep(60)


def shout(word: str) -> str:
    """Print what a console for western languages cannot show."""
    print(f"→ {word} ✓", flush=True)
    return word.upper()
