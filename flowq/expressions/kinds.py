"""Parts of expressions, said in words."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import nodes

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
