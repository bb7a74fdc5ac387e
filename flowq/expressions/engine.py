"""Evaluating parsed expressions. Values come from inputs and results only.

The tree is walked, never compiled. A dot looks up an item of a map or a declared field of an
object, nothing else: `inputs.items` is an input, and no code of an object can be reached. There are
no methods. Operators work on plain data only (see `plain`), and `limits` bounds time and size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any, cast

from jinja2 import nodes

from flowq.expressions.functions import FUNCTIONS, PASSING, QUICK, TESTS
from flowq.expressions.grammar import find_reference
from flowq.expressions.operators import (
    BINARY,
    COMPARISONS,
    CONTEXT,
    WORD_BY_COMPARISON,
    bring_together,
    check_numbers,
    show,
    sign,
)
from flowq.expressions.plain import (
    SETS,
    describe,
    enter,
    find_fields,
    hint_at,
    in_order,
    is_true,
    read_field,
    show_number,
    simplify,
    simplify_top,
)
from flowq.expressions.references import ERROR_PARTS, Values
from flowq.expressions.refusals import Missing, Refused
from flowq.expressions.templates import to_text
from flowq.nearest import did_you_mean
from flowq.patterns import PatternRefused, count_steps
from flowq.problems import BAD_VALUE, EXPRESSION_TOO_LARGE

_NUMBERS = frozenset({int, float, Decimal, Fraction, timedelta})
_FAILURES = (
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    MemoryError,
)


class _Evaluation:
    """One evaluation of one expression, with its budget."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.budget = values.budget

    def value(self, node: nodes.Node) -> Any:
        """Return the value of a node. Errors: Refused, which names the part without a value."""
        reference = find_reference(node)
        if reference is not None:
            return self.values.get(reference)
        return _METHODS[type(node)](self, node)

    def is_true(self, node: nodes.Node) -> bool:
        """Whether the value of a node is true."""
        return is_true(self.value(node))

    def constant(self, node: nodes.Const) -> Any:
        return node.value

    def items(self, node: nodes.List | nodes.Tuple) -> list[Any]:
        return [self.value(item) for item in node.items]

    def mapping(self, node: nodes.Dict) -> dict[str, Any]:
        pairs = [
            (simplify_top(self.value(pair.key)), self.value(pair.value)) for pair in node.items
        ]
        if not all(type(key) is str for key, _ in pairs):
            raise Refused(BAD_VALUE, "the keys of a map must be texts", "put them in quotes")
        return dict(pairs)

    def attribute(self, node: nodes.Getattr) -> Any:
        return self.item_of(node.node, node.attr)

    def item(self, node: nodes.Getitem) -> Any:
        if isinstance(node.arg, nodes.Slice):
            return self.part_of(node.node, node.arg)
        return self.item_of(node.node, self.value(node.arg))

    def item_of(self, node: nodes.Node, key: Any) -> Any:
        """Return one item of a map, a list or a text, or a declared field of an object."""
        value, key = self.value(node), simplify_top(key)
        kind = type(value)
        of = find_reference(node) if value is None and key in ERROR_PARTS else None
        if of is not None and (of.root, of.attribute) == ("jobs", "error"):
            return None  # the job has no error; conditions need not test for that first
        if issubclass(kind, dict):
            return enter(self.entry(node, value, key))
        if type(key) is str and (find_fields(value) or issubclass(kind, tuple)):
            return read_field(value, key, show(node))
        if not issubclass(kind, (list, tuple, str, bytes)):
            raise _unreadable(show(node), value, key)
        if type(key) is not int:
            raise Missing(f"{show(node)} is {describe(value)}, and that has no {_show_key(key)}")
        value = simplify_top(value)
        if not -len(value) <= key < len(value):
            raise Missing(f"{show(node)} is {describe(value)}, and has no item {show_number(key)}")
        return enter(value[key])

    def entry(self, node: nodes.Node, value: dict[Any, Any], key: Any) -> Any:
        """Return one item of a map, without calling a `__missing__` of its class."""
        tried: list[Any] = [key] if type(key) is str or key is None else []
        if isinstance(key, int | float):
            tried = [key, to_text(key, self.budget)]  # by_key[3.11]: the keys of data are texts
        for each in tried:
            if dict.__contains__(value, each):
                return dict.__getitem__(value, each)
        if not tried:
            raise Missing(f"{show(node)} is a map, and {describe(key)} is not a key of it")
        names = [name for name in dict.__iter__(value) if type(name) is str]
        raise Missing(f"{show(node)} has no {tried[-1]!r}", did_you_mean(str(key), names))

    def part_of(self, node: nodes.Node, bounds: nodes.Slice) -> Any:
        value = self.value(node)
        if not issubclass(type(value), (list, tuple, str, bytes)):
            raise Refused(BAD_VALUE, f"{show(node)} is {describe(value)}, which cannot be sliced")
        said = [bounds.start, bounds.stop, bounds.step]
        limits = [None if limit is None else simplify_top(self.value(limit)) for limit in said]
        try:
            if bool in map(type, limits):
                raise TypeError("a flag is not the number of an item")
            part = simplify_top(value)[slice(*limits)]
        except _FAILURES:
            message = "a slice needs whole numbers, and a step that is not 0"
            raise Refused(BAD_VALUE, message) from None
        self.budget.spend(part)
        return part

    def both(self, node: nodes.And) -> Any:
        return self.value(node.right) if self.is_true(node.left) else self.value(node.left)

    def either(self, node: nodes.Or) -> Any:
        return self.value(node.left) if self.is_true(node.left) else self.value(node.right)

    def opposite(self, node: nodes.Not) -> bool:
        return not self.is_true(node.node)

    def choice(self, node: nodes.CondExpr) -> Any:
        if self.is_true(node.test):
            return self.value(node.expr1)
        return None if node.expr2 is None else self.value(node.expr2)

    def text(self, node: nodes.Concat) -> str:
        parts = [to_text(self.value(part), self.budget) for part in node.nodes]
        self.budget.spend(parts)
        return "".join(parts)

    def negative(self, node: nodes.Neg) -> Any:
        return -self.number(node.node)

    def positive(self, node: nodes.Pos) -> Any:
        return +self.number(node.node)

    def number(self, node: nodes.Node) -> Any:
        value = simplify_top(self.value(node))
        if type(value) not in _NUMBERS:
            shown = "it" if isinstance(node, nodes.Const) else show(node)
            raise Refused(BAD_VALUE, f"{shown} is {describe(value)}, not a number")
        return value

    def operation(self, node: nodes.BinExpr) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        check_numbers(left, right)
        return self.apply(BINARY[type(node)], sign(node), left, right)

    def comparison(self, node: nodes.Compare) -> bool:
        left = self.value(node.expr)
        for operand in node.ops:
            right = self.value(operand.expr)
            word = WORD_BY_COMPARISON[operand.op]
            if not self.apply(COMPARISONS[operand.op], word, left, right):
                return False
            left = right
        return True

    def apply(self, operator: Callable[[Any, Any], Any], word: str, left: Any, right: Any) -> Any:
        if word in ("==", "!=") and (left is None or right is None):
            return (left is right) is (word == "==")  # whatever the other one is
        left, right = bring_together(simplify(left), simplify(right))
        self.budget.spend(left, right)
        try:
            made = operator(left, right)
        except ZeroDivisionError:
            raise Refused(BAD_VALUE, "this divides by zero") from None
        except _FAILURES:
            message = f"{word} does not work with {describe(left)} and {describe(right)}"
            is_text = word == "+" and str in (type(left), type(right))
            hint = "join texts with ~" if is_text else ""
            raise Refused(BAD_VALUE, message, hint) from None
        self.budget.spend(made)
        return made

    def filtered(self, node: nodes.Filter) -> Any:
        assert node.node is not None
        return self.call(node.name, [node.node, *node.args], node.kwargs)

    def called(self, node: nodes.Call) -> Any:
        return self.call(cast(nodes.Name, node.node).name, node.args, node.kwargs)

    def call(self, name: str, args: list[nodes.Expr], kwargs: Sequence[Any]) -> Any:
        if name == "default":
            return self.first_there(args)
        values = [self.value(arg) for arg in args]
        if name == "str" and len(values) == 1 and not kwargs:
            return to_text(values[0], self.budget)
        values = [self.argument(name, value) for value in values]
        options = {one.key: self.argument(name, self.value(one.value)) for one in kwargs}
        if name == "matches":
            self.budget.take(_price_match(*values, *options.values()))
        if name not in QUICK:
            self.budget.spend(*values, *options.values())
        made = _call(name, values, options)
        if name not in QUICK:
            self.budget.spend(made)
        return enter(made)

    def argument(self, name: str, value: Any) -> Any:
        """Return a value as that function takes it."""
        if name == "json":
            return value
        value = simplify_top(value) if name in PASSING else simplify(value)
        return in_order(value) if type(value) in SETS and name not in QUICK else value

    def first_there(self, args: list[nodes.Expr]) -> Any:
        try:
            return self.value(args[0])
        except Missing:
            return self.value(args[1])

    def tested(self, node: nodes.Test) -> bool:
        if node.name != "defined":
            return TESTS[node.name](self.value(node.node))
        try:
            self.value(node.node)
        except Missing:
            return False
        return True


def _call(name: str, values: list[Any], options: dict[str, Any]) -> Any:
    try:
        return FUNCTIONS[name](*values, **options)
    except _FAILURES:
        *others, last = [*map(describe, values)] or ["nothing"]
        given = f"{', '.join(others)} and {last}" if others else last
        message = f"{name} does not work with {given}"
        if values and isinstance(values[0], list) and dict in map(type, values[0]):
            hint = f"of a list of maps take one key first: | map('KEY') | {name}"
            raise Refused(BAD_VALUE, f"{message} maps", hint) from None
        raise Refused(BAD_VALUE, message) from None


_STEPS_PER_UNIT = 500


def _price_match(*values: Any) -> int:
    if len(values) != 2 or not all(type(value) is str for value in values):
        return 0
    try:
        return count_steps(values[1], values[0]) // _STEPS_PER_UNIT
    except PatternRefused:
        return 0


def _show_key(key: Any) -> str:
    if type(key) is int:
        return show_number(key)
    return f"{key!r:.60}" if type(key) is str else describe(key)


def _unreadable(shown: str, value: Any, key: Any) -> Refused:
    if value is None or issubclass(type(value), (int, float, *_NUMBERS)):
        return Missing(f"{shown} is {describe(value)}, and that has no {_show_key(key)}")
    message = f"{shown} is {describe(value)}, of which nothing can be read here"
    return Refused(BAD_VALUE, message, hint_at(value))


_METHODS: Mapping[type[nodes.Node], Callable[[_Evaluation, Any], Any]] = {
    nodes.Const: _Evaluation.constant,
    nodes.List: _Evaluation.items,
    nodes.Tuple: _Evaluation.items,
    nodes.Dict: _Evaluation.mapping,
    nodes.Getattr: _Evaluation.attribute,
    nodes.Getitem: _Evaluation.item,
    nodes.And: _Evaluation.both,
    nodes.Or: _Evaluation.either,
    nodes.Not: _Evaluation.opposite,
    nodes.CondExpr: _Evaluation.choice,
    nodes.Concat: _Evaluation.text,
    nodes.Neg: _Evaluation.negative,
    nodes.Pos: _Evaluation.positive,
    nodes.Compare: _Evaluation.comparison,
    nodes.Filter: _Evaluation.filtered,
    nodes.Call: _Evaluation.called,
    nodes.Test: _Evaluation.tested,
    **dict.fromkeys(BINARY, _Evaluation.operation),
}


def evaluate_tree(tree: nodes.Node, values: Values) -> Any:
    """Return the value of an expression. Errors: Refused."""
    try:
        with localcontext(CONTEXT):
            return _Evaluation(values).value(tree)
    except RecursionError:
        raise Refused(
            EXPRESSION_TOO_LARGE, "it is nested too deeply", "do this in a function"
        ) from None
