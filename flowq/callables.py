"""Find functions by name, and names of functions.

Checks, workers and decorators share it, so they all accept the same functions.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

from flowq.allowed import restriction
from flowq.errors import UsageError

CALL = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
"""The name of a function or method: `package.module:function`, `package.module:Class.method`."""

_MAIN_MODULES = ("__main__", "__mp_main__")
"""The second is `multiprocessing`'s name for the first in a spawned child."""


class NameMissing(AttributeError):
    """A module was imported, but does not have that name."""


class NotCallable(TypeError):
    """The object of that name is not callable. `kind` is the name of its type."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(f"{name} is of type {kind}, which cannot be called")
        self.kind = kind


# From a name to a function -----------------------------------------------------------------------


def find_callable(name: str) -> Callable[..., Any]:
    """Return the callable of a name: `package.module:path`, or `package.module.path` as in RQ.

    The path leads through classes and objects. Without a colon, the module is the longest possible
    prefix, and a name without a dot is a builtin.
    Errors: NameMissing, NotCallable, and any error from importing the module; in a process that may
    run only some functions (`flowq.allowed`), NotAllowed before anything is imported.
    """
    allowed = restriction()
    dotted = allowed.check_name(name) if allowed is not None else name
    module, colon, path = name.partition(":")
    if colon:
        found: Any = importlib.import_module(module)
        parts = path.split(".")
    else:
        found, parts = _find_module(name.split("."))
    for part in parts:
        try:
            found = getattr(found, part)
        except AttributeError as error:
            text = _explain_path(".".join(parts)) or (str(error), "")
            raise NameMissing(": ".join(filter(None, text)), name=part, obj=found) from None
        if allowed is not None:
            allowed.check_step(dotted, found)
    if not callable(found):
        raise NotCallable(name, type(found).__name__)
    if allowed is not None:
        allowed.check_found(dotted, found)
    return found  # type: ignore[no-any-return]


def find_method(owner: Any, name: str) -> Any:
    """Return the method of an object that a job calls. Errors: AttributeError; NotAllowed."""
    allowed = restriction()
    if allowed is None:
        return getattr(owner, name)
    dotted = allowed.check_name(f"{type(owner).__module__}.{type(owner).__qualname__}.{name}")
    found = getattr(owner, name)
    allowed.check_found(dotted, found)
    return found


def _find_module(names: list[str]) -> tuple[ModuleType, list[str]]:
    """Import the longest prefix that is a module; return it, and the remaining names."""
    for count in range(len(names) - 1, 0, -1):
        module = ".".join(names[:count])
        try:
            return importlib.import_module(module), names[count:]
        except ModuleNotFoundError as error:
            is_shorter = error.name is not None and f"{module}.".startswith(f"{error.name}.")
            if count == 1 or not is_shorter:  # otherwise the module itself misses another one
                raise
    return builtins, names


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Whether calling the function only makes a generator."""
    is_plain = inspect.isroutine(function) or isinstance(function, functools.partial)
    body = function if is_plain else getattr(function, "__call__", None)  # noqa: B004 - the method
    return inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body)


# From a function to its name ---------------------------------------------------------------------


def name_call(function: Any) -> str:
    """Return the name under which workers import a function: `package.module:function`.

    For an object without a name, the name of its class; `explain_unimportable` reports it.
    """
    owner = getattr(function, "__self__", None)
    if inspect.ismethod(function) and isinstance(owner, type):  # not the base class's name
        return f"{_name_module(owner)}:{owner.__qualname__}.{function.__name__}"
    path = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{_name_module(function)}:{path}"


def refer(function: Any) -> str:
    """Return the name of a function that is enqueued, as RQ stores it: `package.module.function`.

    Errors: UsageError if workers cannot import it, or would enqueue it again by doing so.
    """
    name = name_call(function)
    if unimportable := explain_unimportable(function):
        called = getattr(function, "__name__", repr(function))
        raise UsageError(f"{called} cannot be enqueued: {'; '.join(unimportable)}")
    if is_of_script(function):
        from flowq import own_script  # noqa: PLC0415 - no child needs it

        own_script.refuse_unguarded([name])
    return name.replace(":", ".")


def name_exception(kind: type[BaseException]) -> str:
    """Return the name of an exception class: `package.module:Class`, or `Class` of a builtin."""
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{_name_module(kind)}:{kind.__qualname__}"


def _name_module(named: Any) -> str:
    """Return the module from which workers import a function or class, also one of the script."""
    module: str = named.__module__
    if is_of_script(named) and hasattr(named, "__qualname__"):
        from flowq import own_script  # noqa: PLC0415 - no child needs it

        return own_script.find_name(named) or module
    return module


def is_of_script(named: Any) -> bool:
    """Whether a function or class is defined in the script that was started, or in a notebook."""
    return getattr(named, "__module__", None) in _MAIN_MODULES


def names_of_exception(kind: type[BaseException]) -> Iterator[str]:
    """Yield the names of a class, that of its definition first.

    The others are those of outer packages that export it: `redis:ConnectionError`. These packages
    have been imported before the class, so nothing is imported here.
    """
    yield name_exception(kind)
    package = kind.__module__.rpartition(".")[0]
    while package:
        passed_on = None
        with suppress(Exception):  # a package may have a `__getattr__` that raises
            passed_on = getattr(sys.modules.get(package), kind.__name__, None)
        if passed_on is kind:
            yield f"{package}:{kind.__name__}"
        package = package.rpartition(".")[0]


def explain_unimportable(function: Any) -> tuple[str, str] | None:
    """Return why workers cannot import a function, with a hint; None if they can.

    Examines only its name; whether the module has that name is known when it is imported.
    """
    module = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", None)
    if module is None or path is None:
        return f"{function!r} has no name in a module", _DEFINE
    if inspect.ismethod(function) and not isinstance(function.__self__, type):
        reason = f"{path} belongs to one object, which workers do not have"
        return reason, "write a function that makes the object, or a class method"
    if unusable := _explain_path(path):
        return unusable
    if module in _MAIN_MODULES:
        from flowq import own_script  # noqa: PLC0415 - no child needs it

        return own_script.explain(function)
    return None


def _explain_path(path: str) -> tuple[str, str] | None:
    if path.endswith("<lambda>"):
        return "a lambda has no name that workers could import", _DEFINE
    if "<locals>" in path:
        outer, _, inner = path.rpartition(".<locals>.")
        return f"{inner} is defined inside {outer}, where workers cannot import it", _DEFINE
    return None


_DEFINE = "write it with `def` at the top level of a module"
