"""How a function is named in a spec and on the queue, and which functions cannot be named."""

from __future__ import annotations

import re
from typing import Any

CALL = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
"""How a function is named: `package.module:function`, with a class before the dot if it has one."""

_MAIN_MODULES = ("__main__", "__mp_main__")
"""The second is what `multiprocessing` calls the first in a spawned child."""


def name_call(function: Any) -> str:
    """Return the name under which workers import a function: `package.module:function`."""
    return f"{function.__module__}:{function.__qualname__}"


def explain_unimportable(function: Any) -> tuple[str, str] | None:
    """Return why workers could not import a function, and what to do; None when they can.

    Only its name is looked at; whether the module has it is seen when it is imported.
    """
    module = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", None)
    if module is None or path is None:
        return f"{function!r} has no name in a module", _DEFINE
    if path.endswith("<lambda>"):
        return "a lambda has no name that workers could import", _DEFINE
    if "<locals>" in path:
        outer, _, inner = path.rpartition(".<locals>.")
        return f"{inner} is defined inside of {outer}, where workers cannot import it", _DEFINE
    if module in _MAIN_MODULES:
        reason = f"{path} is defined in the script that was started, and workers would look for it"
        return f"{reason} in their own", "move it to a module beside the script and import it"
    return None


_DEFINE = "write it with `def` at the top level of a module"
