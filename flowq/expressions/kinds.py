"""Values and parts of expressions, said in words: the halves of every message of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import nodes

from flowq.expressions.refusals import Refused

_PLAIN = (type(None), bool, int, float, str, list, tuple, dict)
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


def describe(value: Any) -> str:
    """Return a value in a few words: `the text 'abc'`, `a list of 3`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 40 else f"a text of {len(value)} characters"
    if isinstance(value, int) and value.bit_length() > 128:
        return "a very large number"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return f"a map of {len(value)}"
    return f"a {type(value).__name__}"


def need_plain(*values: Any) -> None:
    """Refuse what is not plain data: its operators would be code that somebody wrote."""
    for value in values:
        if not isinstance(value, _PLAIN):
            hint = "pass it as a whole, or let its job return plain data"
            raise Refused("FQ305", f"nothing can be computed with {describe(value)}", hint)


def show(node: nodes.Node) -> str:
    """Return a part of an expression as it may have been written."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Const):
        return repr(node.value)
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
    """Return how an operator is written."""
    return _SIGN_BY_NODE[type(node)]
