"""The `matrix` of a job, with its `include` and `exclude`.

`keys` has its shapes, `document` builds the matrix of a job, and `flowq.matrix` makes the
combinations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flowq.declare.job_shapes import VARIABLE
from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode, is_empty, say
from flowq.declare.problems import Problems
from flowq.declare.shapes import Shape, check_keys, either, read_expression, to_template
from flowq.expressions import as_source, as_template
from flowq.problems import BAD_NAME, WRONG_SHAPE
from flowq.spec import Matrix

_BESIDE = ("include", "exclude")


def build_matrix(job: MapNode, stop_when: str | None) -> Matrix | None:
    """Return the matrix of a job whose keys have been read, or None if it has no matrix."""
    node = job.node_by_key.get("matrix")
    inside = node.node_by_key if isinstance(node, MapNode) else {}
    if node is None and "include" not in job.node_by_key:
        return None
    axes = {name: axis for name, axis in inside.items() if name not in _BESIDE}
    as_text = {name for name, axis in axes.items() if _holds_versions(axis)}
    values = {name: _values(axis, name in as_text) for name, axis in axes.items()}
    include, exclude = (
        tuple(
            {key: _value(inner, key in as_text) for key, inner in combination.node_by_key.items()}
            for place in (inside, job.node_by_key)
            for combination in _items_of(place.get(key))
            if isinstance(combination, MapNode)
        )
        for key in _BESIDE
    )
    return Matrix(values, include, exclude, stop_when)


def _values(axis: Node, as_text: bool) -> Any:
    if isinstance(axis, ListNode):
        return [_value(item, as_text) for item in axis.items]
    if isinstance(axis, ScalarNode) and "${{" in axis.text:
        return as_template(as_source(axis.text))
    return []


def _value(node: Node, as_text: bool) -> Any:
    is_text = as_text and isinstance(node, ScalarNode) and not is_empty(node)
    return node.text if is_text and isinstance(node, ScalarNode) else to_template(node)


def _holds_versions(axis: Node) -> bool:
    """Whether a value changes if it is read as a number: then all values of the axis are texts.

    `[3.9, 3.10]` are versions: as numbers, the second would be 3.1.
    """
    return any(
        isinstance(item, ScalarNode)
        and item.is_plain
        and re.fullmatch(r"[0-9]+(\.[0-9]+)?", item.text)
        and str(item.value) != item.text
        and not item.text.startswith("0.")
        for item in (axis.items if isinstance(axis, ListNode) else ())
    )


def _items_of(node: Node | None) -> list[Node]:
    if node is None:
        return []
    return node.items if isinstance(node, ListNode) else [node]


# Reading, which notes problems of shape.


def _read_matrix(label: str, node: Node, problems: Problems) -> Node | None:
    if not isinstance(node, MapNode):
        message = f"{label} must be a map of names to lists, not {say(node)}"
        problems.add(
            WRONG_SHAPE, node, message, "write {os: [linux, windows], python: [3.11, 3.12]}"
        )
        return None
    for name, inner in node.node_by_key.items():
        if name in _BESIDE:
            _read_combinations(name, inner, problems)
        elif not re.fullmatch(VARIABLE, name):
            hint = "letters, digits and _ only, no digit first"
            message = f"{name!r} cannot be the name of an axis"
            problems.add(BAD_NAME, node.key_by_key[name], message, hint)
        else:
            _read_axis(name, inner, problems)
    return node


def _read_axis(label: str, node: Node, problems: Problems) -> None:
    if isinstance(node, ListNode):
        check_keys(node, problems)
    elif isinstance(node, ScalarNode) and "${{" in node.text:
        read_expression(label, node, problems)
    else:
        told = node.text if isinstance(node, ScalarNode) and not node.is_null else ""
        message = f"{label} in a matrix must be a list, not {say(node)}"
        hint = f"write [{told}]" if re.fullmatch(r"[\w. /-]{1,40}", told) else "write [a, b, c]"
        problems.add(WRONG_SHAPE, node, message, hint)


def _read_combinations(label: str, node: Node, problems: Problems) -> Node | None:
    wrong = next((item for item in _items_of(node) if not isinstance(item, MapNode)), None)
    if wrong is not None:
        told = f"and one item is {say(wrong)}" if isinstance(node, ListNode) else f"not {say(node)}"
        message = f"{label} must be a list of maps, {told}"
        problems.add(WRONG_SHAPE, wrong, message, "write [{os: linux, python: 3.11}]")
        return None
    check_keys(node, problems)
    return node


_AXIS: Mapping[str, Any] = {"anyOf": [{"type": "array"}, {"type": "string", "pattern": r"\$\{\{"}]}
COMBINATIONS = either(
    _read_combinations,
    {"type": "array", "items": {"type": "object"}},
    {"type": "object"},
    write=lambda combinations: [dict(each) for each in combinations],
)
MATRIX = Shape(
    _read_matrix,
    {
        "type": "object",
        "properties": dict.fromkeys(_BESIDE, COMBINATIONS.schema),
        "patternProperties": {f"^(?!(?:include|exclude)$){VARIABLE}$": _AXIS},
        "additionalProperties": False,
    },
    dict,
)
