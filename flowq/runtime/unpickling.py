"""Reading pickles from Redis in a worker that may run only some code (`flowq.allowed`).

What jobs are given, their `meta`, items of groups and the results of the jobs before are pickles.
A pickle names classes and functions, and calls them while it is read. Here it may name the plain
types of `PLAIN`, what flowq and RQ themselves write, and classes that the worker admits: those that
are defined in a module of `shop.*`, or that are named as they are. Anything else is refused before
a module is imported for it. docs/security.md lists the types for users.
"""

from __future__ import annotations

import builtins
import io
import pickle
from importlib import import_module
from typing import Any

from rq.serializers import PickleSerializer

from flowq import allowed
from flowq.callables import find_callable

PLAIN = {
    "builtins": frozenset(
        {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list"}
        | {"object", "range", "set", "slice", "str", "tuple"}
    ),
    "collections": frozenset({"Counter", "OrderedDict", "defaultdict", "deque"}),
    "datetime": frozenset({"date", "datetime", "time", "timedelta", "timezone"}),
    "decimal": frozenset({"Decimal"}),
    "fractions": frozenset({"Fraction"}),
    "ipaddress": frozenset(
        f"IPv{version}{kind}" for version in (4, 6) for kind in ("Address", "Interface", "Network")
    ),
    "pathlib": frozenset(
        {"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"}
    ),
    "types": frozenset({"SimpleNamespace"}),
    "uuid": frozenset({"SafeUUID", "UUID"}),
    "zoneinfo": frozenset({"ZoneInfo"}),
    # What flowq and RQ write themselves.
    "flowq.runtime.waiting": frozenset({"Wait"}),
    "rq.job": frozenset({"Retry"}),
}
"""Types that run no code of anybody's when they are read, by their modules."""

_ALIASES = {"pathlib._local": "pathlib"}
"""Where other versions of Python define them."""

_PARTS_OF_PLANS = ("flowq.plan", "flowq.spec")
"""Versions up to 0.1 kept classes of these modules in Redis."""


class Reader(pickle.Unpickler):
    """Reads a pickle that names nothing but what is admitted. Errors of `load`: NotAllowed."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names. Errors: NotAllowed."""
        module = _ALIASES.get(module, module)
        if name in PLAIN.get(module, ()):
            return getattr(import_module(module), name)
        if module == "builtins":
            if name == "getattr":
                return _get_zone_reader
            if _is_exception(getattr(builtins, name, None)):
                return getattr(builtins, name)
        if module in _PARTS_OF_PLANS and "." not in name:
            found = getattr(import_module(module), name, None)
            if isinstance(found, type) and found.__module__ == module:
                return found
        return self._find_admitted(f"{module}.{name}")

    def _find_admitted(self, name: str) -> Any:
        here = allowed.restriction()
        if here is None:
            raise pickle.UnpicklingError("this process reads pickles without a limit")
        found = find_callable(name)
        if not isinstance(found, type) and not here.names(name):
            raise here.refuse(name, "it is no class")
        return found


def restrict(allows: allowed.Allowed) -> None:
    """Let this process, and all that RQ does in it, find and read nothing else from now on."""
    allowed.restrict(allows)
    PickleSerializer.loads = staticmethod(read)


def read(data: bytes) -> Any:
    """Return what a pickle holds. Errors: NotAllowed; pickle's, for what is no pickle."""
    return Reader(io.BytesIO(data)).load()


def read_own(data: bytes, serializer: Any) -> Any:
    """Return what a serializer has written in this worker: that needs no check."""
    return pickle.loads(data) if serializer is PickleSerializer else serializer.loads(data)  # noqa: S301


def _get_zone_reader(owner: Any, name: str) -> Any:
    """Stand for `getattr` in a pickle: a time zone is read by a method of its class."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - few jobs have one

    if owner is ZoneInfo and name == "_unpickle":
        return ZoneInfo._unpickle  # type: ignore[attr-defined]
    raise pickle.UnpicklingError(f"a pickle asks for the attribute {name!r:.60}")


def _is_exception(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, BaseException)
