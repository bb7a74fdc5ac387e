"""The shapes that many keys share: texts, flags, numbers, durations, data with expressions.

Whether an expression can be read is not asked here: `flowq.checks` does, for both fronts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode
from flowq.declare.problems import Problems
from flowq.declare.vocabulary import Shape, is_empty, say
from flowq.durations import parse_duration
from flowq.expressions import as_source, tidy

MAX_DURATION_S = 3_650 * 86_400
MAX_NUMBER = 1_000_000_000
"""Of anything that is counted; the scripts and RQ calculate with it."""

_SCALAR = ["string", "number", "boolean"]
_TEXT = {"type": _SCALAR, "not": {"const": ""}}
_NO_EXPRESSION = {"not": {"type": "string", "pattern": r"\$\{\{"}}
_DURATION_TEXT = r"^\s*[0-9]{1,15}(\.[0-9]{1,9})?\s*(ms|s|m|h|d)?\s*$"


def read_node(label: str, node: Node, problems: Problems) -> Node:
    """Return the node itself, for what can be read only when more is known."""
    return node


def read_text(label: str, node: Node, problems: Problems) -> str | None:
    """Read a text; a number or a word keeps the text that was written: `3.10`, `on`."""
    if not isinstance(node, ScalarNode) or not node.text or node.is_null:
        problems.add("FQ105", node, f"{label} must be text, not {say(node)}")
        return None
    return node.text


def read_fixed_text(label: str, node: Node, problems: Problems) -> str | None:
    """Read a text in which nothing is filled in."""
    text = read_text(label, node, problems)
    if text is not None and "${{" in text:
        hint = "expressions are filled in where values are, such as under `with`"
        problems.add("FQ105", node, f"{label} must be fixed text, without ${{{{ }}}}", hint)
        return None
    return text


def read_template(label: str, node: Node, problems: Problems) -> str | None:
    """Read a text that may hold expressions."""
    text = read_text(label, node, problems)
    return None if text is None else tidy(text)


def read_expression(label: str, node: Node, problems: Problems) -> str | None:
    """Read one expression, with braces or without; return it without."""
    text = read_text(label, node, problems)
    if text is None:
        return None
    source = as_source(text)
    if "${{" in source:
        hint = "leave the braces away; `and`, `or` and ~ join what stands between several"
        problems.add("FQ105", node, f"{label} must be one expression, not {say(node)}", hint)
        return None
    return source


def read_description(label: str, node: Node, problems: Problems) -> str | None:
    """Read a text that may be empty; it may show what an expression looks like."""
    if isinstance(node, ScalarNode) and (not node.text or node.is_null):
        return ""
    return read_text(label, node, problems)


def read_message(label: str, node: Node, problems: Problems) -> str | None:
    """Read a text that may be empty, and may hold expressions."""
    text = read_description(label, node, problems)
    return None if text is None else tidy(text)


def read_flag(label: str, node: Node, problems: Problems) -> bool | None:
    """Read true or false, which YAML 1.2 spells in no other way."""
    value = node.value if isinstance(node, ScalarNode) else None
    if isinstance(value, bool):
        return value
    message = f"{label} must be true or false, not {say(node)}"
    problems.add("FQ105", node, message, "in YAML 1.2 these two words only, without quotes")
    return None


def read_duration(label: str, node: Node, problems: Problems) -> float | None:
    """Read a duration. Units: seconds."""
    try:
        seconds = parse_duration(node.value if isinstance(node, ScalarNode) else None)
    except ValueError:
        message = f"{label} must be a duration, not {say(node)}"
        problems.add("FQ110", node, message, "write it as 500ms, 30s, 10m, 2h, 1d, or in seconds")
        return None
    if seconds > MAX_DURATION_S:
        problems.add("FQ110", node, f"{label} must be at most 3650d, not {say(node)}")
        return None
    return seconds


def read_timeout(label: str, node: Node, problems: Problems) -> float | None:
    """Read a duration that is not zero. Units: seconds."""
    seconds = read_duration(label, node, problems)
    if seconds == 0:
        hint = "leave it out for no limit of its own"
        problems.add("FQ110", node, f"{label} must be more than nothing", hint)
        return None
    return seconds


def read_count(label: str, node: Node, problems: Problems) -> int | None:
    """Read a whole number from 0."""
    return _read_number(label, node, problems, 0)


def read_positive(label: str, node: Node, problems: Problems) -> int | None:
    """Read a whole number from 1."""
    return _read_number(label, node, problems, 1)


def _read_number(label: str, node: Node, problems: Problems, least: int) -> int | None:
    value = node.value if isinstance(node, ScalarNode) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        problems.add("FQ105", node, f"{label} must be a whole number from {least}, not {say(node)}")
        return None
    if value > MAX_NUMBER:
        problems.add("FQ105", node, f"{label} must be at most {MAX_NUMBER:,}, not {say(node)}")
        return None
    return value


def read_data(label: str, node: Node, problems: Problems) -> Any:
    """Read plain data, in which every text may hold expressions."""
    if isinstance(node, ScalarNode):
        return tidy(node.text) if "${{" in node.text else node.value
    if isinstance(node, ListNode):
        return [read_data(label, item, problems) for item in node.items]
    _check_keys(node, problems)
    return {key: read_data(label, inner, problems) for key, inner in node.node_by_key.items()}


def _check_keys(node: MapNode, problems: Problems) -> None:
    for key in node.node_by_key:
        if "${{" in key:
            hint = "expressions are filled in in values only"
            problems.add("FQ105", node.key_by_key[key], "a key cannot hold ${{ }}", hint)


def read_arguments(label: str, node: Node, problems: Problems) -> dict[str, Any] | None:
    """Read a map of plain data by name, with expressions."""
    if is_empty(node):
        return {}
    if not isinstance(node, MapNode):
        message = f"{label} must be a map of names to values, not {say(node)}"
        problems.add("FQ105", node, message, "write name: value, each on its line")
        return None
    data: dict[str, Any] = read_data(label, node, problems)
    return data


def to_data(node: Node) -> Any:
    """Return a node as plain data."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, ListNode):
        return [to_data(item) for item in node.items]
    return {key: to_data(inner) for key, inner in node.node_by_key.items()}


def to_template(node: Node) -> Any:
    """Return a node as plain data, in which all expressions are spelt alike."""
    if isinstance(node, ScalarNode):
        return tidy(node.text) if "${{" in node.text else node.value
    if isinstance(node, ListNode):
        return [to_template(item) for item in node.items]
    return {key: to_template(inner) for key, inner in node.node_by_key.items()}


def check_keys(node: Node, problems: Problems) -> None:
    """Note the keys in a value, however deep, that hold expressions."""
    if isinstance(node, ListNode):
        for item in node.items:
            check_keys(item, problems)
    elif isinstance(node, MapNode):
        _check_keys(node, problems)
        for inner in node.node_by_key.values():
            check_keys(inner, problems)


def choice(*words: str) -> Shape:
    """Return the shape of a value that is one of some words."""

    def read(label: str, node: Node, problems: Problems) -> str | None:
        if isinstance(node, ScalarNode) and node.value in words:
            return node.text
        message = f"{label} must be one of {', '.join(words)}, not {say(node)}"
        problems.add("FQ105", node, message)
        return None

    return Shape(read, {"enum": list(words)})


def either(read: Callable[[str, Node, Problems], Any], *schemas: Any) -> Shape:
    """Return the shape of a value that can be written in several ways."""
    return Shape(read, {"anyOf": list(schemas)})


TEXT = Shape(read_text, _TEXT)
FIXED_TEXT = Shape(read_fixed_text, {"allOf": [_TEXT, _NO_EXPRESSION]})
TEMPLATE = Shape(read_template, _TEXT)
EXPRESSION = Shape(read_expression, _TEXT)
DESCRIPTION = Shape(read_description, {"type": [*_SCALAR, "null"]})
MESSAGE = Shape(read_message, {"type": [*_SCALAR, "null"]})
FLAG = Shape(read_flag, {"type": "boolean"})
COUNT = Shape(read_count, {"type": "integer", "minimum": 0, "maximum": MAX_NUMBER})
POSITIVE = Shape(read_positive, {"type": "integer", "minimum": 1, "maximum": MAX_NUMBER})
DURATION = either(
    read_duration,
    {"type": "number", "minimum": 0, "maximum": MAX_DURATION_S},
    {"type": "string", "pattern": _DURATION_TEXT},
)
TIMEOUT = either(
    read_timeout,
    {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_DURATION_S},
    {"type": "string", "pattern": _DURATION_TEXT},
)
DATA = Shape(read_data)
ARGUMENTS = Shape(read_arguments, {"type": ["object", "null"]})
