"""Reads pickles from Redis in a worker that may execute only some code (`flowq.allowed`).

Arguments of jobs, their `meta`, items of groups and results of earlier jobs are pickles. A pickle
names classes and functions, which are called while it is read. Here it may name the types in
`PLAIN` (plain types, and those that flowq and RQ write themselves), and classes that the worker
admits. Any other name is refused before a module is imported for it. docs/security.md lists the
types for users.

`_Scan` checks how a pickle uses names, before the first name is looked up. A pickle must not change
a class, function or enum member, which would stay changed for the next job of a kept child. (Cached
objects that an admitted class or function returns cannot be distinguished from new ones.) It may
call plain types only with arguments that their own pickles have: `bytearray(2**40)` is a short
pickle, and takes all memory.
"""

from __future__ import annotations

import builtins
import enum
import io
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    "flowq.runtime.waiting": frozenset({"Pause", "Wait"}),
    "rq.job": frozenset({"Retry"}),
}
"""Types that execute no user code when they are read, by module."""

_ALIASES = {"pathlib._local": "pathlib"}
"""Modules in which other versions of Python define these types."""

_PARTS_OF_PLANS = ("flowq.plan", "flowq.spec")
"""Versions up to 0.1 stored objects of these modules in Redis."""


class Reader(pickle.Unpickler):
    """Reads a pickle, and refuses names that are not admitted. `load` raises NotAllowed."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._data = data
        self._changed: frozenset[str] | None = None

    def find_class(self, module: str, name: str) -> Any:
        """Return the object with a name. Errors: NotAllowed; UnpicklingError for a refused use."""
        if self._changed is None:  # most pickles have no names, and are not scanned
            self._changed = _Scan(self._data).find_changed()
        module = _ALIASES.get(module, module)
        found = self._find(module, name)
        # All jobs of the process share the members of an enum.
        if isinstance(found, enum.EnumMeta) and f"{module}.{name}" in self._changed:
            raise _refuse(f"changes a member of {module}.{name}")
        return found

    def _find(self, module: str, name: str) -> Any:
        if name in PLAIN.get(module, ()):
            return getattr(import_module(module), name)
        if module == "builtins":
            if name == "getattr":
                return _get_zone_reader
            found = getattr(builtins, name, None)
            if isinstance(found, type) and issubclass(found, BaseException):
                return found
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
            raise here.refuse(name, "it is not a class")
        return found


def restrict(allows: allowed.Allowed) -> None:
    """Limit this process, including RQ's code in it, to what is allowed."""
    allowed.restrict(allows)
    PickleSerializer.loads = staticmethod(read)


def read(data: bytes) -> Any:
    """Return the content of a pickle. Raises: NotAllowed; UnpicklingError."""
    return Reader(data).load()


def read_own(data: bytes, serializer: Any) -> Any:
    """Return the content of bytes that this process has written itself, without a check."""
    return pickle.loads(data) if serializer is PickleSerializer else serializer.loads(data)  # noqa: S301


def _get_zone_reader(owner: Any, name: str) -> Any:
    """Replace `getattr` in a pickle, by which a time zone calls a method of its class."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - few jobs have one

    if owner is ZoneInfo and name == "_unpickle":
        return ZoneInfo._unpickle  # type: ignore[attr-defined]
    raise _refuse(f"asks for the attribute {name!r:.60}")


def _refuse(what: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"a pickle {what}, which no pickle of data does")


# How a pickle uses names -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Name:
    """On the stack of a scan: a name in the pickle."""

    text: str


@dataclass(frozen=True, slots=True)
class _Made:
    """On the stack of a scan: the result of a call of a name."""

    by: str


_OTHER = object()
"""On the stack of a scan: a list, a map, a set."""

_ZONE_READER = "builtins.getattr"
_MADE_BY_ZONE_READER = _Made(_ZONE_READER)
_UNCALLED = frozenset(
    f"builtins.{name}" for name in ("bool", "bytes", "dict", "float", "int", "list", "str", "tuple")
)
"""Types that have opcodes of their own: pickles name them as values, or call them without
arguments."""

_CONTAINERS = frozenset(
    {"builtins.bytearray", "builtins.frozenset", "builtins.set"}
    | {f"collections.{name}" for name in PLAIN["collections"]}
)
_CHECKED = _UNCALLED | _CONTAINERS | {"fractions.Fraction"}
_PLAIN_FRACTION = re.compile(r"-?[0-9]+(/[0-9]+)?")

_OUTSIDE = ("EXT", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER")
"""Opcodes for objects outside of the pickle; `READONLY_BUFFER` replaces an object on the stack."""

_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_STOP, _MEMOIZE, _BINGET = pickle.STOP[0], pickle.MEMOIZE[0], pickle.BINGET[0]
_CALLS = frozenset({pickle.REDUCE[0], pickle.NEWOBJ[0]})
_EMPTY = {pickle.EMPTY_TUPLE[0]: (), pickle.EMPTY_DICT[0]: _OTHER, pickle.EMPTY_LIST[0]: _OTHER}
_CHANGES = {pickle.BUILD[0]: 1, pickle.APPEND[0]: 1, pickle.SETITEM[0]: 2}
"""Opcodes that change an object on the stack, and the number of objects they take above it."""

_CHANGES_BY_MARK = frozenset({pickle.APPENDS[0], pickle.SETITEMS[0], pickle.ADDITEMS[0]})
"""Those that take all objects above a mark."""

_CHANGES |= dict.fromkeys(_CHANGES_BY_MARK, 0)
_TUPLES = {pickle.TUPLE1[0]: 1, pickle.TUPLE2[0]: 2, pickle.TUPLE3[0]: 3}
_SHORT_TEXT = pickle.SHORT_BINUNICODE[0]
_SHORT = frozenset({_SHORT_TEXT, pickle.SHORT_BINBYTES[0]})
"""Opcodes of plain data with its length in one byte."""

_NUMBER = re.compile(rb"K.|M..|J.{4}|[N\x88\x89]|G.{8}", re.DOTALL)
_NUMBERS = re.compile(rb"(?:%b){1,1000}" % _NUMBER.pattern, re.DOTALL)
"""Opcodes of numbers, None, true and false, of which long lists have many in a row."""

_NUMBER_TRACES = {ord("K"): 0, ord("M"): 0, ord("J"): 0, ord("N"): _OTHER, ord("G"): _OTHER}
_NUMBER_TRACES |= {pickle.NEWTRUE[0]: _OTHER, pickle.NEWFALSE[0]: _OTHER}


class _Scan:
    """Executes the opcodes of a pickle on placeholders instead of objects.

    `pickletools` knows what each opcode takes from the stack and puts there. Only opcodes for names
    and calls need more than that.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._changed: set[str] = set()
        self._results: dict[str, _Made] = {}  # of names without a check of arguments

    def find_changed(self) -> frozenset[str]:
        """Return the names whose results get a state or items after the call.

        Raises:
            pickle.UnpicklingError: for a pickle that changes objects which it has not made, that
                calls a plain type with unusual arguments, or that cannot be followed.
        """
        try:
            self._follow()
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise pickle.UnpicklingError(f"this is not a pickle: {error}") from None
        return frozenset(self._changed)

    def _follow(self) -> None:
        """Execute all opcodes. The most frequent ones are handled first, for speed."""
        data, stack, memo = self._data, self._stack, self._memo
        stream = io.BytesIO(data)
        at = 0
        while (code := data[at]) != _STOP:
            if code == _MEMOIZE:
                memo[len(memo)] = stack[-1]
                at += 1
            elif code == _BINGET:
                stack.append(memo[data[at + 1]])
                at += 2
            elif code in _SHORT:
                start = at + 2
                at = start + data[at + 1]
                if at > len(data):
                    raise ValueError("it ends too early")
                is_text = code == _SHORT_TEXT
                stack.append(str(data[start:at], "utf-8", "surrogatepass") if is_text else _OTHER)
            elif code in _CALLS:
                arguments = stack.pop()
                stack[-1] = self._made(stack[-1], arguments)
                at += 1
            elif (empty := _EMPTY.get(code)) is not None:
                stack.append(empty)
                at += 1
            elif code in _CHANGES:
                start = self._marks.pop() if code in _CHANGES_BY_MARK else len(stack)
                del stack[start - _CHANGES[code] :]
                self._change(stack[-1:], None)
                at += 1
            elif size := _TUPLES.get(code):
                stack[-size:] = [tuple(stack[-size:])]
                at += 1
            elif numbers := _NUMBERS.match(data, at):
                stack += [_NUMBER_TRACES[each[0]] for each in _NUMBER.findall(numbers[0])]
                at = numbers.end()
            else:
                opcode = _OPCODES[code]
                argument = None
                at += 1
                if opcode.arg is not None:
                    stream.seek(at)
                    argument = opcode.arg.reader(stream)
                    at = stream.tell()
                self._step(opcode, argument)

    def _step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name, stack = opcode.name, self._stack
        if name == "MARK":
            self._marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP" and self._marks and self._marks[-1] == len(stack):
            self._marks.pop()
        else:
            taken = self._take(opcode)
            if handle := _HANDLERS.get(name):
                stack.append(handle(self, taken, argument))
            elif name.startswith(_OUTSIDE):
                raise _refuse("refers to something outside of itself")
            else:
                stack += (argument if argument is not None else _OTHER for _ in opcode.stack_after)

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[Any]:
        """Remove and return what an opcode takes from the stack, oldest first."""
        before = opcode.stack_before
        start = len(self._stack) - len(before)
        if pickletools.markobject in before:
            start = self._marks.pop() - before.index(pickletools.markobject)
        if start < 0:
            raise ValueError("it takes more from its stack than is there")
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _name(self, taken: list[Any], argument: Any) -> _Name:
        module, _, name = argument.partition(" ") if argument else (taken[0], "", taken[1])
        if not isinstance(module, str) or not isinstance(name, str):
            raise _refuse("names something by no text")
        return _Name(f"{_ALIASES.get(module, module)}.{name}")

    def _tuple(self, taken: list[Any], _argument: Any) -> tuple[Any, ...]:
        return tuple(taken)

    def _call(self, taken: list[Any], _argument: Any) -> _Made:
        called, arguments = taken[0], taken[1]
        keywords = taken[2] if len(taken) == 3 else ()
        return self._made(called, arguments, has_more=bool(keywords))

    def _call_object(self, taken: list[Any], _argument: Any) -> _Made:
        return self._made(taken[0], tuple(taken[1:]))

    def _call_instance(self, taken: list[Any], argument: Any) -> _Made:
        return self._made(self._name([], argument), tuple(taken))

    def _made(self, called: Any, arguments: Any, *, has_more: bool = False) -> _Made:
        """Check a call, and return the placeholder for its result."""
        if called == _MADE_BY_ZONE_READER:
            return _Made("zoneinfo.ZoneInfo")
        if not isinstance(called, _Name):
            raise _refuse("calls something that is not a class")
        name = called.text
        if name in self._results:
            return self._results[name]
        is_known = isinstance(arguments, tuple) and not has_more
        is_plain = True
        if name in _UNCALLED:
            is_plain = is_known and not arguments
        elif name in _CONTAINERS:
            is_plain = is_known and not any(isinstance(each, _Made) for each in arguments)
            is_sized = name == "builtins.bytearray" and any(
                isinstance(each, int) for each in arguments
            )
            is_plain = is_plain and not is_sized
        elif name == "fractions.Fraction":
            is_plain = is_known and all(
                isinstance(each, int)
                or (isinstance(each, str) and _PLAIN_FRACTION.fullmatch(each) is not None)
                for each in arguments
            )
        if not is_plain:
            raise _refuse(f"calls {name} in a way of its own")
        result = _Made(name)
        if name not in _CHECKED:
            self._results[name] = result
        return result

    def _change(self, taken: list[Any], _argument: Any) -> Any:
        target = taken[0]
        if isinstance(target, _Name):
            raise _refuse(f"changes {target.text}")
        if isinstance(target, _Made):
            if target.by == _ZONE_READER:
                raise _refuse("changes a function")
            self._changed.add(target.by)
        return target


_HANDLERS: Mapping[str, Callable[[_Scan, list[Any], Any], Any]] = {
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), _Scan._name),
    **dict.fromkeys(("TUPLE", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"), _Scan._tuple),
    **dict.fromkeys(("REDUCE", "NEWOBJ", "NEWOBJ_EX"), _Scan._call),
    **dict.fromkeys(
        ("BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"), _Scan._change
    ),
    "OBJ": _Scan._call_object,
    "INST": _Scan._call_instance,
}
"""The opcodes that handle names, tuples of arguments, and calls."""
