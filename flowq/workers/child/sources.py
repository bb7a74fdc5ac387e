"""In a reused child: detects changes to the source files of imported modules.

Otherwise the child would continue with old code, next to children with new code. Python itself and
installed packages are not checked: restart the workers after upgrading a package.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from importlib.machinery import SourceFileLoader

LOOK_S = 0.5
"""The interval of checks in a busy child."""

SHARE = 100
"""After a check, the pause is at least this many times as long as the check took."""

_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_PYTHON = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib"))

_Stamp = tuple[int, int]


class Sources:
    """The source files of the modules that this process imports from now on.

    Modules that are imported already do not count: a replacement of this process may inherit them
    from the same parent, so replacing it would not help.
    """

    def __init__(self) -> None:
        self._seen = set(sys.modules)
        self._stamp_by_file: dict[str, _Stamp] = {}
        self._looked_at_ns = time.time_ns()
        self._due_at = time.monotonic() + LOOK_S

    def find_changed(self) -> str:
        """Return a file that was changed or removed since its import; empty if there is none.

        Checks every `LOOK_S` seconds at most, and takes at most 1 % of the time.
        """
        began = time.monotonic()
        if began < self._due_at:
            return ""
        changed = next(
            (file for file, old in self._stamp_by_file.items() if _stamp(file) != old), ""
        )
        changed = self._add_new() or changed
        now = time.monotonic()
        self._due_at = now + max(LOOK_S, (now - began) * SHARE)
        return changed

    def _add_new(self) -> str:
        """Note the modules imported since the last check; return a file that was written since.

        It is unknown whether the file was written before or after its import.
        """
        changed, now_ns = "", time.time_ns()
        names = set(sys.modules)
        for name in names - self._seen:
            file = find_source(name)
            stamp = _stamp(file) if file else None
            if stamp is not None:
                self._stamp_by_file[file] = stamp
                is_old = not self._looked_at_ns < stamp[0] <= now_ns
            else:  # removed, or never a file: in an archive, or made by a program
                is_old = not file or not _was_file(name)
            changed = changed if is_old else file
        self._seen = names
        self._looked_at_ns = now_ns
        return changed


def find_source(name: str) -> str:
    """Return the path of a user module's file; empty for any other module."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if not isinstance(file, str):
        return ""
    path = os.path.abspath(file)  # noqa: PTH100 - without following links, which may be changed
    is_foreign = path.startswith(_PYTHON) or any(part in path for part in _INSTALLED)
    return "" if is_foreign else path


def _was_file(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    loader = getattr(spec, "loader", None)
    loader = getattr(loader, "loader", loader)  # ddtrace wraps each loader
    return isinstance(loader, SourceFileLoader)


def _stamp(file: str) -> _Stamp | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - this runs for every file, again and again
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
