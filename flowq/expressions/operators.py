"""What the signs of an expression do, with plain data only and within the limits."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import nodes

from flowq.expressions.limits import MAX_BITS, check_size
from flowq.expressions.refusals import Refused

Operator = Callable[[Any, Any], Any]


def _multiply(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        check_size(bits=left.bit_length() + right.bit_length())
    for value, count in ((left, right), (right, left)):
        if isinstance(value, str) and isinstance(count, int):
            check_size(characters=len(value) * count)
        if isinstance(value, list | tuple) and isinstance(count, int):
            check_size(items=len(value) * count)
    return left * right


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int):
        check_size(bits=base.bit_length() * min(abs(exponent), MAX_BITS + 1))
    power = base**exponent
    if isinstance(power, complex):
        raise Refused("FQ305", "a root of a negative number is no number")
    return power


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, str):
        raise Refused("FQ305", "% does not format texts", "join texts with ~")
    return left % right


BINARY: Mapping[type[nodes.Node], Operator] = {
    nodes.Add: operator.add,
    nodes.Sub: operator.sub,
    nodes.Mul: _multiply,
    nodes.Div: operator.truediv,
    nodes.FloorDiv: operator.floordiv,
    nodes.Mod: _modulo,
    nodes.Pow: _power,
}

COMPARISONS: Mapping[str, Operator] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda one, many: one in many,
    "notin": lambda one, many: one not in many,  # codespell:ignore notin
}

WORD_BY_COMPARISON: Mapping[str, str] = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "lteq": "<=",
    "gt": ">",
    "gteq": ">=",
    "in": "in",
    "notin": "not in",  # codespell:ignore notin
}
