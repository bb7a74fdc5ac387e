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
"""How often a busy child looks."""

SHARE = 100
"""A look that took long is followed by a pause so many times as long."""

_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_PYTHON = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib"))

_Stamp = tuple[int, int]


class Sources:
    """The source files of the modules that this process imports from now on.

    What is imported already is left alone: a process that takes the place of this one may have it
    from the same parent.
    """

    def __init__(self) -> None:
        self._seen = set(sys.modules)
        self._stamp_by_file: dict[str, _Stamp] = {}
        self._looked_at_ns = time.time_ns()
        self._due_at = time.monotonic() + LOOK_S

    def find_changed(self) -> str:
        """Return a file that was changed or removed since it was imported; empty for none.

        Looks at most every `LOOK_S` seconds, and takes a hundredth of the time at most.
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
        """Note what was imported since the last look; return a file that was written since then.

        Nobody can tell whether that was before or after its import.
        """
        changed, now_ns = "", time.time_ns()
        names = set(sys.modules)
        for name in names - self._seen:
            file = find_source(name)
            stamp = _stamp(file) if file else None
            if stamp is not None:
                self._stamp_by_file[file] = stamp
                is_old = not self._looked_at_ns < stamp[0] <= now_ns
            else:  # removed, or never there as a file: in an archive, made by a program
                is_old = not file or not _was_file(name)
            changed = changed if is_old else file
        self._seen = names
        self._looked_at_ns = now_ns
        return changed


def find_source(name: str) -> str:
    """Return the path of a module's file; empty when it is not one of the user's."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if not isinstance(file, str):
        return ""
    path = os.path.abspath(file)  # noqa: PTH100 - without following links, which may be changed
    is_foreign = path.startswith(_PYTHON) or any(part in path for part in _INSTALLED)
    return "" if is_foreign else path


def _was_file(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    loader = getattr(spec, "loader", None)
    loader = getattr(loader, "loader", loader)  # ddtrace puts one of its own around each
    return isinstance(loader, SourceFileLoader)


def _stamp(file: str) -> _Stamp | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - this runs for every file, again and again
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
