"""Reading values of results in expressions: the fields of objects, and plain data to compute with.

No code of an object's class is executed: no property, no method, no operator. So this module uses
`type(value)`, never `isinstance`, which reads an object's `__class__`, and accesses subclasses of
`list`, `dict` and so on through the methods of these base classes.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from flowq.expressions.limits import MAX_ITEMS, check_size
from flowq.expressions.refusals import Missing, NoResult, Refused
from flowq.nearest import did_you_mean
from flowq.problems import BAD_VALUE, EXPRESSION_TOO_LARGE

EXACT = (Decimal, Fraction)
SETS = (set, frozenset)
_OF_JSON = frozenset({str, int, float, bool, type(None)})
_AS_THEY_ARE = _OF_JSON | {bytes, Decimal, Fraction, datetime.date, datetime.timedelta}
"""Types whose values need no conversion."""

_INSTANTS = frozenset({datetime.datetime, datetime.time})
_TIME_ZONES = frozenset({type(None), datetime.timezone, ZoneInfo})
"""Time zones of Python itself: computing with an instant executes code of its zone."""

_AS_TEXT = frozenset({UUID, PosixPath, PurePosixPath, WindowsPath, PureWindowsPath})
_COLLECTIONS = frozenset({list, tuple, dict, set, frozenset})
_ALL = slice(None)
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, lambda value: bytes.__getitem__(value, _ALL)),
    (list, list.copy),
    (tuple, lambda value: tuple.__getitem__(value, _ALL)),
    (OrderedDict, lambda value: dict(OrderedDict.items(value))),
    (dict, lambda value: dict(dict.items(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
)
"""How to convert a value of a subclass to its base class."""

_get_mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_get_names: Callable[[type], Mapping[str, Any]] = type.__dict__["__dict__"].__get__
_NOTHING = object()
_MAX_FIELDS = 8
"""The maximum number of fields in a message."""

_BITS_SHOWN = 128
"""The size of the largest whole number that a message shows."""


# Entering ----------------------------------------------------------------------------------------


def enter(value: Any) -> Any:
    """Return a value as expressions see it: numpy's scalars become Python values.

    This does not import numpy: if it is not imported, there are no such values. Errors: Missing for
    the result of an item that did not succeed.
    """
    kind = type(value)
    if kind in _AS_THEY_ARE or kind in _COLLECTIONS:
        return value
    if kind is NoResult:
        raise Missing(value.reason)
    if (numpy := sys.modules.get("numpy")) is None:
        return value
    generic = getattr(numpy, "generic", None)
    if generic is None or not issubclass(kind, generic):
        return value
    item = generic.item(value)  # of the base class, because a subclass may override it
    # A datetime64 in nanoseconds becomes an int, and a longdouble remains one.
    is_changed = type(item) is int and issubclass(kind, (numpy.datetime64, numpy.timedelta64))
    is_known = type(item) in _AS_THEY_ARE or type(item) in _INSTANTS
    return item if is_known and not is_changed else value


def simplify(value: Any) -> Any:
    """Return a value to compute with: plain data of exactly Python's own types.

    Shape: members of `IntEnum` and `StrEnum`, and of other subclasses of plain types, become that
    type, paths and UUIDs texts, a range a list. Plain data is returned unchanged.
    Errors: Refused for a value that is not, or does not consist of, plain data.
    """
    return _Walk().simplify(value)


def simplify_top(value: Any) -> Any:
    """Do the same as `simplify`, but not for the parts of a value."""
    value = enter(value)
    kind = type(value)
    if kind in _AS_THEY_ARE or kind in _COLLECTIONS:
        return value
    if kind in _AS_TEXT:
        return str(value)
    if kind in _INSTANTS and type(value.tzinfo) in _TIME_ZONES:
        return value
    if kind is range:
        check_size(items=_length(value))
        return list(value)
    for base, convert in _BASES:
        if issubclass(kind, base):
            return convert(value)
    raise Refused(BAD_VALUE, f"nothing can be computed with {describe(value)}", hint_at(value))


def is_true(value: Any) -> bool:
    """Whether a value is true. Errors: Refused for a value that is not plain data."""
    try:
        return bool(simplify_top(value))
    except Refused:
        message = f"{describe(value)} is neither true nor false"
        raise Refused(BAD_VALUE, message, f"{hint_at(value)}; `is none` can be asked") from None


def refuse_several(value: Any) -> None:
    """Refuse a value that cannot be one argument of a program: none, and collections.

    Errors: Refused.
    """
    value = enter(value)
    kind = type(value)
    if value is None:
        hint = 'write ${{ … or "" }} for an empty one'
        raise Refused(BAD_VALUE, "it is none, and cannot be an argument", hint)
    is_member = issubclass(kind, enum.Enum)
    is_several = issubclass(kind, (list, tuple, dict, *SETS)) or kind is range
    if is_several or (not is_member and find_fields(value)):
        hint = 'each item of `run` is one argument: write | join(" ") or | json for one text, …[0] '
        raise Refused(BAD_VALUE, f"{describe(value)} cannot be one argument", f"{hint}for a part")


def in_order(value: Iterable[Any]) -> list[Any]:
    """Return the items of a set in an order that is the same in every process.

    Errors: Refused for items without an order.
    """
    try:
        return sorted(value, key=simplify)
    except (TypeError, Refused):
        hint = "let its job return a list"
        raise Refused(BAD_VALUE, "the items of this set have no order", hint) from None


# Reading fields ----------------------------------------------------------------------------------


def find_fields(value: Any) -> tuple[str, ...]:
    """Return the names of the fields that the class of a value declares."""
    kind = type(value)
    if kind in _AS_THEY_ARE or kind in _COLLECTIONS:
        return ()
    if issubclass(kind, enum.Enum):
        return ("name", "value")
    if issubclass(kind, tuple):
        names = _find(kind, "_fields")
        return names if type(names) is tuple and all(type(each) is str for each in names) else ()
    declared = _find(kind, "__dataclass_fields__")
    if type(declared) is dict:
        ordinary = dataclasses._FIELD  # type: ignore[attr-defined]  # not ClassVar, not InitVar
        return tuple(
            name
            for name, it in declared.items()
            if type(name) is str
            and type(it) is dataclasses.Field  # of anything else it would run code
            and it._field_type is ordinary  # type: ignore[attr-defined]
        )
    for name in ("__pydantic_fields__", "model_fields", "__fields__"):  # of several versions
        declared = _find(kind, name)
        if type(declared) is dict:
            return tuple(name for name in declared if type(name) is str)
    return ()


def read_field(value: Any, name: str, shown: str) -> Any:
    """Return the value of a declared field; `shown` is the name of the object in messages.

    Errors: Missing for an undeclared name, and for a field that code would compute.
    """
    fields = find_fields(value)
    kind = type(value)
    if name not in fields:
        message = f"{shown} is {describe(value)}, which declares no field {name!r:.60}"
        raise Missing(message, did_you_mean(name, fields) or _name_fields(fields))
    if issubclass(kind, tuple):
        at = fields.index(name)
        held = tuple.__getitem__(value, at) if at < tuple.__len__(value) else _NOTHING
    else:
        held = _read(value, f"_{name}_" if issubclass(kind, enum.Enum) else name)
    if held is _NOTHING:
        message = f"{shown} is {describe(value)}, which holds nothing in its field {name!r}"
        raise Missing(message, "what code computes cannot be read")
    return enter(held)


def _find(kind: type, name: str) -> Any:
    """Return the raw attribute of a class or one of its bases, or None."""
    for base in _get_mro(kind):
        names = _get_names(base)
        if name in names:
            return names[name]
    return None


def _read(value: Any, name: str) -> Any:
    """Return the attribute of an object, or `_NOTHING`. Executes no code except that of slots.

    An attribute of the class is a default.
    """
    standing = _find(type(value), name)
    if type(standing) is types.MemberDescriptorType:
        try:
            return standing.__get__(value)
        except AttributeError:
            return _NOTHING
    if standing is not None and _find(type(standing), "__set__") is not None:
        return _NOTHING  # a property takes precedence over an attribute of the same name
    attributes = _find(type(value), "__dict__")
    if type(attributes) is types.GetSetDescriptorType:
        held = attributes.__get__(value)
        if name in held:
            return held[name]
    is_code = standing is None or _find(type(standing), "__get__") is not None
    return _NOTHING if is_code else standing


# Describing values -------------------------------------------------------------------------------


def describe(value: Any) -> str:
    """Return a short description of a value: `the text 'abc'`, `a list of 3`."""
    kind = type(value)
    if value is None:
        return "none"
    if kind is bool:
        return str(value).lower()
    if kind is str:
        return f"the text {value!r}" if len(value) <= 40 else f"a text of {len(value)} characters"
    if kind is int:
        large = value.bit_length() > _BITS_SHOWN
        return "a very large number" if large else f"the number {value}"
    if kind is float:
        return f"the number {value}"
    if kind is list or kind is tuple:
        return f"a list of {len(value)}"
    if kind is dict:
        return f"a map of {len(value)}"
    if kind is Decimal and value.__sizeof__() < 150:
        return f"the Decimal {value}"
    if kind is datetime.date or kind is datetime.timedelta:
        return f"the {kind.__name__} {value}"
    if issubclass(kind, enum.Enum):
        return _name_member(value)
    name = kind.__name__
    is_vowel = name.lower().startswith(("a", "e", "i", "o", "u", "ndarray"))  # as pronounced
    return f"an {name}" if is_vowel else f"a {name}"


def show_number(number: int) -> str:
    """Return a whole number for a message, unless it is too long."""
    return str(number) if number.bit_length() <= _BITS_SHOWN else "of so many digits"


def hint_at(value: Any) -> str:
    """Return a hint what to do with an object instead of computing with it."""
    kind = type(value)
    if issubclass(kind, enum.Enum):
        return "write .value or .name"
    if fields := find_fields(value):
        return f"{_name_fields(fields)}; or pass it as a whole"
    if str(kind.__module__).partition(".")[0] in ("numpy", "pandas"):
        return "pass it as a whole, or let its job return plain data, as .tolist() or .to_dict() do"
    return "pass it as a whole, or let its job return plain data"


def _name_fields(fields: tuple[str, ...]) -> str:
    shown = ", ".join(map(str, fields[:_MAX_FIELDS]))
    return f"its fields are {shown}" + (", …" if len(fields) > _MAX_FIELDS else "")


def _name_member(member: Any) -> str:
    name = _read(member, "_name_")
    return f"{type(member).__name__}.{name}" if type(name) is str else f"a {type(member).__name__}"


# Text and JSON -----------------------------------------------------------------------------------


def as_text(value: Any) -> str:
    """Return a value as part of a text: text unchanged, other data as JSON.

    Shape: exact numbers, instants, paths and UUIDs as Python writes them; a member of a plain
    enumeration as `Colour.RED`. Errors: Refused for a value without a text form.
    """
    try:
        data = as_json(value)
        if type(data) is str or type(data) is float:
            return str(data)
        return json.dumps(data, ensure_ascii=False)
    except (ValueError, OverflowError):
        hint = "pass it as a whole, or let its job return its text"
        raise Refused(
            EXPRESSION_TOO_LARGE, "a number of so many digits has no text", hint
        ) from None
    except RecursionError:
        raise Refused(
            EXPRESSION_TOO_LARGE, "it is nested too deeply", "let its job return its text"
        ) from None


def as_json(value: Any) -> Any:
    """Return a value that JSON can represent.

    Shape: objects become maps of their declared fields; other data without JSON becomes text, as in
    `as_text`. Errors: Refused for anything else.
    """
    return _Walk().as_json(value)


class _Walk:
    """A walk through all parts of one value, which must not have too many."""

    def __init__(self) -> None:
        self._items = 0

    def simplify(self, value: Any) -> Any:
        value = simplify_top(value)
        kind = type(value)
        if kind not in _COLLECTIONS:
            return value
        self._count(value)
        if kind is dict:
            if {*map(type, value), *map(type, value.values())} <= _AS_THEY_ARE:
                return value
            return {self.simplify(key): self.simplify(item) for key, item in value.items()}
        return value if set(map(type, value)) <= _AS_THEY_ARE else kind(map(self.simplify, value))

    def as_json(self, value: Any) -> Any:
        value = enter(value)
        kind = type(value)
        if kind in _OF_JSON:
            return value
        is_member = issubclass(kind, enum.Enum)
        if is_member and not issubclass(kind, (str, int, float)):
            return _name_member(value)
        if not is_member and not issubclass(kind, tuple) and (fields := find_fields(value)):
            self._count(fields)
            return {name: self.as_json(read_field(value, name, "it")) for name in fields}
        return self._as_json(simplify_top(value))

    def _as_json(self, value: Any) -> Any:
        kind = type(value)
        if kind is bytes:
            raise Refused(BAD_VALUE, "bytes are not text", "let its job return text: data.decode()")
        if kind not in _COLLECTIONS:
            return value if kind in _OF_JSON else str(value)
        self._count(value)
        if kind is dict:
            return {self._key(key): self.as_json(item) for key, item in value.items()}
        items = in_order(value) if kind in SETS else value
        return items if set(map(type, items)) <= _OF_JSON else list(map(self.as_json, items))

    def _key(self, key: Any) -> Any:
        simple = key if type(key) in _OF_JSON else self.as_json(key)
        if type(simple) not in _OF_JSON:
            raise Refused(BAD_VALUE, f"{describe(key)} cannot be a key in JSON")
        return simple

    def _count(self, items: Collection[Any]) -> None:
        self._items += len(items)
        check_size(items=self._items)


def _length(numbers: range) -> int:
    # len() of a long range does not fit into a C integer and raises OverflowError.
    return min(max(0, -((numbers.start - numbers.stop) // numbers.step)), MAX_ITEMS + 1)
