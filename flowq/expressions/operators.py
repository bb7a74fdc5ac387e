"""The operators of expressions: on plain data only, and within the limits."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from fractions import Fraction
from typing import Any

from jinja2 import nodes

from flowq.expressions.limits import MAX_BITS, check_size
from flowq.expressions.plain import EXACT, describe
from flowq.expressions.refusals import Refused
from flowq.problems import BAD_VALUE

Operator = Callable[[Any, Any], Any]

CONTEXT = Context(prec=28, traps=[DivisionByZero, InvalidOperation, Overflow])
"""The context for decimals, independent of the one that a job's code may set."""

_COLLECTIONS = frozenset({list, tuple, dict, set, frozenset})
_MAX_EXPONENT = 1_200
_BITS_PER_BYTE = 8


def bring_together(left: Any, right: Any) -> tuple[Any, Any]:
    """Return two values as compatible operands.

    Errors: Refused for an exact number and a float, for instants with and without a time zone, and
    for exact numbers that are too large.
    """
    kinds = {type(left), type(right)}
    if not kinds.isdisjoint(EXACT):
        if float in kinds:
            raise _mixed(f"{describe(left)} and {describe(right)}")
        check_exact(left, right)
        if kinds == {Decimal, Fraction}:
            for number in (left, right):
                if type(number) is Decimal and not number.is_finite():
                    raise Refused(BAD_VALUE, f"{describe(number)} is not a fraction")
            return Fraction(left), Fraction(right)
    elif not kinds.isdisjoint(_COLLECTIONS):
        ours, theirs = find_kinds([left]), find_kinds([right])
        if any(
            float in one and not other.isdisjoint(EXACT)
            for one, other in ((ours, theirs), (theirs, ours))
        ):
            raise _mixed(f"numbers in {describe(left)} and in {describe(right)}")
    elif datetime in kinds:
        _check_instants(left, right)
    return left, right


def check_numbers(*numbers: Any) -> None:
    """Refuse a whole number that is too large for computations; it can still be compared."""
    for number in numbers:
        if type(number) is int:
            check_size(bits=number.bit_length())


def refuse_mixed(values: Iterable[Any], word: str) -> None:
    """Refuse a mixture of exact numbers and floats, for functions that add or sort them."""
    kinds = find_kinds(values)
    if float in kinds and not kinds.isdisjoint(EXACT):
        raise _mixed(f"the numbers that {word} was given")


def check_exact(*numbers: Any) -> None:
    """Refuse exact numbers that are too large for computations."""
    bits = 0
    for number in numbers:
        if type(number) is int:
            bits += number.bit_length()
        elif type(number) is Fraction:
            bits += number.numerator.bit_length() + number.denominator.bit_length()
        elif type(number) is Decimal:
            is_wide = number.is_finite() and number and abs(number.adjusted()) > _MAX_EXPONENT
            bits += MAX_BITS + 1 if is_wide else number.__sizeof__() * _BITS_PER_BYTE // 2
    check_size(bits=bits)


def find_kinds(values: Iterable[Any]) -> set[type]:
    """Return the types of all parts of plain values."""
    kinds: set[type] = set()
    waiting: list[Iterable[Any]] = [values]
    while waiting:
        level = waiting.pop()
        found = set(map(type, level))
        kinds |= found
        if not found.isdisjoint(_COLLECTIONS):
            inside = [part for part in level if type(part) in _COLLECTIONS]
            waiting += [part.values() if type(part) is dict else part for part in inside]
    return kinds


def _mixed(what: str) -> Refused:
    hint = "write float(…) around the exact one, or let its job return a float"
    return Refused(BAD_VALUE, f"{what} do not mix: a float is not exact", hint)


def _check_instants(left: Any, right: Any) -> None:
    if type(left) is datetime and type(right) is datetime:
        if (left.tzinfo is None) != (right.tzinfo is None):
            message = "one of these instants has a time zone, and the other has none"
            raise Refused(BAD_VALUE, message, "let both jobs return instants with a time zone")
    elif date in (type(left), type(right)):
        raise Refused(
            BAD_VALUE, "an instant and a date do not mix", "let both jobs return the same"
        )


def _multiply(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        check_size(bits=left.bit_length() + right.bit_length())
    for value, count in ((left, right), (right, left)):
        if isinstance(value, str | bytes | list | tuple) and isinstance(count, bool):
            raise TypeError("a flag is not a count")
        if isinstance(value, str | bytes) and isinstance(count, int):
            check_size(characters=len(value) * count)
        if isinstance(value, list | tuple) and isinstance(count, int):
            check_size(items=len(value) * count)
    return left * right


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int):
        check_size(bits=base.bit_length() * min(abs(exponent), MAX_BITS + 1))
    if Fraction in (type(base), type(exponent)):
        if not isinstance(exponent, int):
            raise Refused(BAD_VALUE, "the exponent of a fraction must be a whole number")
        bits = base.numerator.bit_length() + base.denominator.bit_length()
        check_size(bits=bits * min(abs(exponent), MAX_BITS + 1))
    power = base**exponent
    if isinstance(power, complex):
        raise Refused(BAD_VALUE, "a negative number has no real root")
    return power


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, str | bytes):
        raise Refused(BAD_VALUE, "% does not format texts", "join texts with ~")
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


_SIGN_BY_NODE: Mapping[type[nodes.Node], str] = {
    nodes.Add: "+",
    nodes.Sub: "-",
    nodes.Mul: "*",
    nodes.Div: "/",
    nodes.FloorDiv: "//",
    nodes.Mod: "%",
    nodes.Pow: "**",
    nodes.And: "and",
    nodes.Or: "or",
}


def show(node: nodes.Node) -> str:
    """Return the source of a part of an expression, approximately."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Const):
        is_word = node.value is None or isinstance(node.value, bool)
        return str(node.value).lower() if is_word else repr(node.value)
    if isinstance(node, nodes.Getattr):
        return f"{show(node.node)}.{node.attr}"
    if isinstance(node, nodes.Getitem):
        return f"{show(node.node)}[{show(node.arg)}]"
    if isinstance(node, nodes.Call):
        return f"{show(node.node)}({', '.join(map(show, node.args))})"
    if isinstance(node, nodes.Filter) and node.node is not None:
        return f"{show(node.node)} | {node.name}"
    if isinstance(node, nodes.BinExpr):
        return f"{show(node.left)} {_SIGN_BY_NODE[type(node)]} {show(node.right)}"
    return "…"


def sign(node: nodes.BinExpr) -> str:
    """Return the sign of an operator."""
    return _SIGN_BY_NODE[type(node)]
