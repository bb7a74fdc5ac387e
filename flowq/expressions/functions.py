"""What an expression may call: each as a function, `len(x)`, and as a filter, `x | len`.

They take plain data, but for what they only pass on. The engine has paid for the size of the
arguments; a function that could make much out of little looks first.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any

from flowq.expressions.limits import check_size
from flowq.expressions.operators import check_exact, refuse_mixed
from flowq.expressions.plain import as_json, as_text
from flowq.expressions.refusals import Refused

_MAX_DIGITS = 100


def _range(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    # len() of a long range does not fit into a C integer and raises OverflowError.
    check_size(items=max(0, (numbers.stop - numbers.start) // numbers.step))
    return list(numbers)


def _zip(*lists: Sequence[Any]) -> list[list[Any]]:
    lengths = {len(one) for one in lists}
    if len(lengths) > 1:
        told = " and ".join(str(len(one)) for one in lists)
        raise Refused("FQ305", f"zip needs lists of the same length, not of {told}")
    return [list(items) for items in zip(*lists, strict=True)]


def _chunks(items: Sequence[Any], size: int) -> list[Any]:
    if size < 1:
        raise Refused("FQ305", f"chunks needs a size of at least 1, not {size}")
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


def _max(*values: Any) -> Any:
    refuse_mixed(values, "max")
    return max(*values)


def _min(*values: Any) -> Any:
    refuse_mixed(values, "min")
    return min(*values)


def _unique(items: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(items))


def _round(number: float, digits: int = 0) -> float:
    if abs(digits) > _MAX_DIGITS:
        raise Refused("FQ305", f"round takes at most {_MAX_DIGITS} digits")
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
    return list(value)


def _values(value: Mapping[str, Any]) -> list[Any]:
    return list(value.values())


def _items(value: Mapping[str, Any]) -> list[list[Any]]:
    return [[key, item] for key, item in value.items()]


def _trim(text: str) -> str:
    return text.strip()


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "basename": _basename,
    "chunks": _chunks,
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
    "max": _max,
    "min": _min,
    "range": _range,
    "replace": _replace,
    "reverse": _reverse,
    "round": _round,
    "sort": _sort,
    "split": _split,
    "stem": _stem,
    "sum": _sum,
    "title": str.title,
    "trim": _trim,
    "unique": _unique,
    "upper": str.upper,
    "values": _values,
    "zip": _zip,
}
"""By name. `str` and `default` are the engine's own: the one turns to text, the other catches."""

QUICK = frozenset({"len", "length", "first", "last"})
"""Functions whose work does not grow with their argument: it may be of any size."""

PASSING = QUICK | {"chunks", "items", "join", "json", "keys", "list", "reverse", "values", "zip"}
"""Functions that compute with nothing that is in their arguments: it may be no plain data."""


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
"""What may follow `is`; `defined` is the engine's own."""
