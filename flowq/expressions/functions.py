"""The functions of expressions: each as a function, `len(x)`, and as a filter, `x | len`.

They take plain data, except for values that they only pass on. The engine has paid for the size of
the arguments; a function that could make a large value from small ones checks the size first.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from inspect import Parameter, Signature
from inspect import signature as signature_of
from pathlib import PurePath
from typing import Any

from flowq.expressions.limits import check_size
from flowq.expressions.operators import bring_together, check_exact, refuse_mixed
from flowq.expressions.plain import (
    as_json,
    as_text,
    enter,
    find_fields,
    is_true,
    read_field,
    simplify,
)
from flowq.expressions.refusals import Refused
from flowq.nearest import did_you_mean
from flowq.patterns import PatternRefused, check_pattern, is_match
from flowq.problems import BAD_EXPRESSION, BAD_VALUE, EXPRESSION_TOO_LARGE

_MAX_DIGITS = 100
_MAX_ALIKE = 100
"""How many values with the same hash `unique` compares."""

_NOT_GIVEN: Any = object()
"""The default of an argument that may be None."""


def _range(first: int, last: Any = _NOT_GIVEN, step: int = 1, /) -> list[int]:
    _refuse_flags(first, last, step)
    numbers = range(first) if last is _NOT_GIVEN else range(first, last, step)
    # len() of a long range does not fit into a C integer and raises OverflowError.
    check_size(items=max(0, (numbers.stop - numbers.start) // numbers.step))
    return list(numbers)


def _zip(*lists: Sequence[Any]) -> list[list[Any]]:
    lengths = {len(one) for one in lists}
    if len(lengths) > 1:
        told = " and ".join(str(len(one)) for one in lists)
        raise Refused(BAD_VALUE, f"zip needs lists of the same length, not of {told}")
    return [list(items) for items in zip(*lists, strict=True)]


def _refuse_flags(*counts: Any) -> None:
    """Refuse true and false, which Python would count as 1 and 0. Errors: TypeError."""
    if bool in map(type, counts):
        raise TypeError("a number is needed, not a flag")


def _chunks(items: Sequence[Any], size: int) -> list[Any]:
    _refuse_flags(size)
    if size < 1:
        raise Refused(BAD_VALUE, f"chunks needs a size of at least 1, not {size}")
    return [items[first : first + size] for first in range(0, len(items), size)]


_ENCODER = json.JSONEncoder(ensure_ascii=False)  # making one takes longer than a short text


def _json(value: Any) -> str:
    return _ENCODER.encode(as_json(value))


def _basename(path: str) -> str:
    return PurePath(path).name


def _stem(path: str) -> str:
    return PurePath(path).stem


def _join(items: Sequence[Any], separator: str = "") -> str:
    check_size(characters=len(separator) * len(items))
    return separator.join(map(as_text, items))


def _replace(text: str, old: str, new: str) -> str:
    check_size(characters=len(text) + text.count(old) * len(new))
    return text.replace(old, new)


def _split(text: str, separator: str | None = None) -> list[str]:
    check_size(items=len(text) // 2 if separator is None else text.count(separator))
    return text.split(separator)


def _list(value: Any) -> list[Any]:
    check_size(items=len(value))
    return list(value)


def _first(items: Sequence[Any]) -> Any:
    return _only_items(items)[0]


def _last(items: Sequence[Any]) -> Any:
    return _only_items(items)[-1]


def _only_items(value: Any) -> Any:
    if not isinstance(value, list | tuple | str | bytes):
        raise TypeError(f"a list is needed, not {type(value).__name__}")
    return value


def _reverse(items: Any) -> Any:
    return _only_items(items)[::-1]


def _sort(items: Sequence[Any], reverse: bool = False) -> list[Any]:
    refuse_mixed(items, "sort")
    return sorted(items, reverse=reverse)


def _max(first: Any, /, *others: Any) -> Any:
    refuse_mixed((first, *others), "max")
    return max(first, *others)


def _min(first: Any, /, *others: Any) -> Any:
    refuse_mixed((first, *others), "min")
    return min(first, *others)


def _unique(items: Sequence[Any]) -> list[Any]:
    kept: list[Any] = []
    alike_by_hash: dict[int, list[Any]] = {}  # a dict of the items takes long where hashes collide
    for item in items:
        alike = alike_by_hash.setdefault(hash(item), [])
        if item not in alike:
            if len(alike) == _MAX_ALIKE:
                message = f"more than {_MAX_ALIKE} of these values are the same to a hash table"
                raise Refused(EXPRESSION_TOO_LARGE, message, "do this in a job's function instead")
            alike.append(item)
            kept.append(item)
    return kept


def _round(number: float, digits: int = 0) -> float:
    _refuse_flags(number, digits)
    if abs(digits) > _MAX_DIGITS:
        raise Refused(BAD_VALUE, f"round takes at most {_MAX_DIGITS} digits")
    check_exact(number)
    return round(number, digits) if digits else round(number)


def _int(value: Any) -> int:
    check_exact(value)
    return int(value)


def _float(value: Any) -> float:
    return float(value)


def _sum(numbers: Sequence[Any]) -> Any:
    refuse_mixed(numbers, "sum")
    start = datetime.timedelta() if datetime.timedelta in set(map(type, numbers)) else 0
    return sum(numbers, start)


def _keys(value: Mapping[str, Any]) -> list[str]:
    return list(_only_map(value))


def _values(value: Mapping[str, Any]) -> list[Any]:
    return list(_only_map(value).values())


def _items(value: Mapping[str, Any]) -> list[list[Any]]:
    return [[key, item] for key, item in _only_map(value).items()]


def _only_map(value: Any) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"a map is needed, not {type(value).__name__}")
    return value


def _matches(text: str, pattern: str) -> bool:
    try:
        return is_match(_only_text(pattern), _only_text(text))
    except PatternRefused as refused:
        raise refuse_pattern(refused) from None


def refuse_pattern(refused: PatternRefused) -> Refused:
    """Return why a pattern cannot be matched, as a refusal of the expression."""
    return Refused(BAD_VALUE, f"the pattern of matches is refused: {refused}", refused.hint)


def find_bad_pattern(pattern: Any) -> Refused | None:
    """Return why a pattern can never be matched, or None."""
    try:
        check_pattern(_only_text(pattern))
    except PatternRefused as refused:
        return refuse_pattern(refused)
    except TypeError as error:
        return Refused(BAD_VALUE, f"the pattern of matches must be a text: {error}")
    return None


def _trim(text: str) -> str:
    return text.strip()


def _startswith(text: str, beginning: str) -> bool:
    return _only_text(text).startswith(_only_text(beginning))


def _endswith(text: str, end: str) -> bool:
    return _only_text(text).endswith(_only_text(end))


def _only_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is needed, not {type(value).__name__}")
    return value


def _compact(items: Sequence[Any]) -> list[Any]:
    return [item for item in _only_list(items) if item is not None]


def _map(items: Sequence[Any], key: str) -> list[Any]:
    return [_part_of(item, key) for item in _only_list(items)]


def _select(items: Sequence[Any], key: str | None = None, value: Any = _NOT_GIVEN) -> list[Any]:
    return [item for item in _only_list(items) if _is_wanted(item, key, value)]


def _reject(items: Sequence[Any], key: str | None = None, value: Any = _NOT_GIVEN) -> list[Any]:
    return [item for item in _only_list(items) if not _is_wanted(item, key, value)]


def _is_wanted(item: Any, key: str | None, value: Any) -> bool:
    """Whether a part of an item equals `value`, or is true; a missing part is none."""
    part = enter(item) if key is None else _part_of(item, key, is_optional=True)
    if value is _NOT_GIVEN:
        return is_true(part)
    if part is None or value is None:
        return part is value
    part, wanted = bring_together(simplify(part), simplify(value))
    return isinstance(part, bool) is isinstance(wanted, bool) and bool(part == wanted)


def _part_of(item: Any, key: str, *, is_optional: bool = False) -> Any:
    """Return the value of a key, or of a declared field; dots separate nested keys."""
    for name in _only_text(key).split("."):
        item = enter(item)
        is_map = issubclass(type(item), dict)
        if is_map and dict.__contains__(item, name):
            item = dict.__getitem__(item, name)
        elif not is_map and name in find_fields(item):
            item = read_field(item, name, "an item")
        elif is_optional:
            return None
        else:
            names = map(str, dict.__iter__(item)) if is_map else find_fields(item)
            raise Refused(BAD_VALUE, f"an item has no {name!r}", did_you_mean(name, names))
    return enter(item)


def _only_list(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise TypeError(f"a list is needed, not {type(value).__name__}")
    return value


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "basename": _basename,
    "chunks": _chunks,
    "compact": _compact,
    "endswith": _endswith,
    "first": _first,
    "float": _float,
    "int": _int,
    "items": _items,
    "join": _join,
    "json": _json,
    "keys": _keys,
    "last": _last,
    "len": len,
    "length": len,
    "list": _list,
    "lower": str.lower,
    "map": _map,
    "matches": _matches,
    "max": _max,
    "min": _min,
    "range": _range,
    "reject": _reject,
    "replace": _replace,
    "reverse": _reverse,
    "round": _round,
    "select": _select,
    "sort": _sort,
    "split": _split,
    "startswith": _startswith,
    "stem": _stem,
    "sum": _sum,
    "title": str.title,
    "trim": _trim,
    "unique": _unique,
    "upper": str.upper,
    "values": _values,
    "zip": _zip,
}
"""By name. The engine itself implements `str` and `default`."""


def find_wrong_arguments(name: str, count: int, keywords: Sequence[str]) -> Refused | None:
    """Return why a function cannot be called with these numbers and names of arguments."""
    signature = _signature_of(name)
    try:
        signature.bind(*[None] * count, **dict.fromkeys(keywords))
    except TypeError:
        parameters = list(signature.parameters.values())
    else:
        return None
    by_name = [each.name for each in parameters if each.kind is Parameter.POSITIONAL_OR_KEYWORD]
    unknown = [keyword for keyword in keywords if keyword not in by_name]
    fixed = [each for each in parameters if each.kind is not Parameter.VAR_POSITIONAL]
    least, most = sum(each.default is Parameter.empty for each in fixed), len(fixed)
    given = count + len(keywords)
    if unknown:
        message = f"{name} has no argument {unknown[0]!r}"
    elif least == most:
        more = "at least " if most < len(parameters) else ""
        message = f"{name} takes {more}{most} argument{'' if most == 1 else 's'}, not {given}"
    else:
        message = f"{name} takes {least} to {most} arguments, not {given}"
    shown = [_WORD_BY_PARAMETER.get(each.name, each.name) for each in fixed]
    rest = ["…"] if len(fixed) < len(parameters) else []
    return Refused(BAD_EXPRESSION, message, f"write {name}({', '.join([*shown, *rest])})")


@lru_cache(maxsize=64)
def _signature_of(name: str) -> Signature:
    if name == "default":
        names = ("value", "fallback")
        return Signature([Parameter(each, Parameter.POSITIONAL_ONLY) for each in names])
    return signature_of(FUNCTIONS.get(name, as_text))


_WORD_BY_PARAMETER = {"self": "text", "obj": "list", "x": "number"}
"""Names in hints for the parameters of Python's own functions."""

QUICK = frozenset({"len", "length", "first", "last"})
"""Functions that take constant time, so that their argument may have any size."""

_OF_LISTS_OF_MAPS = {"compact", "map", "reject", "select"}
PASSING = QUICK | _OF_LISTS_OF_MAPS | {"chunks", "items", "join", "json", "keys", "list", "reverse"}
PASSING |= {"values", "zip"}
"""Functions that do not compute with the contents of their arguments, which may be any objects."""


def _is_number(value: Any) -> bool:
    kind = type(value)
    return kind is not bool and issubclass(kind, (int, float, Decimal, Fraction))


TESTS: Mapping[str, Callable[[Any], bool]] = {
    "none": lambda value: value is None,
    "boolean": lambda value: type(value) is bool,
    "number": _is_number,
    "string": lambda value: issubclass(type(value), str),
    "mapping": lambda value: issubclass(type(value), dict),
    "sequence": lambda value: issubclass(type(value), (list, tuple)),
}
"""The words after `is`. The engine itself implements `defined`."""
