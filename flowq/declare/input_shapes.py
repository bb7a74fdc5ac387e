"""The shapes of inputs, of a workflow or an approval: their types, and defaults of these types.

`document` and `job_shapes` read inputs with it, and the exports write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode, is_empty, say
from flowq.declare.problems import Problems
from flowq.declare.shapes import (
    DESCRIPTION,
    FLAG,
    TEXT,
    Key,
    Shape,
    Vocabulary,
    find_meant,
    read_node,
    read_text,
    to_data,
)
from flowq.inputs import TEXT_TYPES, convert
from flowq.nearest import find_nearest
from flowq.patterns import PatternRefused, check_pattern
from flowq.problems import BAD_DEFAULT, BAD_NAME, MISSING_KEY, WRONG_SHAPE
from flowq.spec import Input, InputType


def _read_choices(label: str, node: Node, problems: Problems) -> tuple[str, ...] | None:
    items = node.items if isinstance(node, ListNode) else []
    hint = 'as in ["small", "large"]'
    for item in items:
        if not isinstance(item, ScalarNode) or not item.text or item.typed:
            told = say(item) if isinstance(item, ScalarNode) and item.text else "a list or nothing"
            message = f"{label} must be a list of texts, and one of them is {told}"
            problems.add(WRONG_SHAPE, item, message, hint)
            return None
    if not items:
        problems.add(WRONG_SHAPE, node, f"{label} must be a list of texts, not {say(node)}", hint)
        return None
    return tuple(item.text for item in items if isinstance(item, ScalarNode))


def _read_pattern(label: str, node: Node, problems: Problems) -> str | None:
    text = read_text(label, node, problems)
    try:
        check_pattern(text or "")
    except PatternRefused as refused:
        message = f"{label} cannot be used: {refused}"
        hint = refused.hint or "the whole text must match it, as in [a-z]+"
        problems.add(WRONG_SHAPE, node, message, hint)
        return None
    return text


_FOREIGN: Mapping[str, str] = {
    "options": "write `choices`",
    "enum": "write `type: enum` and `choices`",
    "regex": "write `pattern`",
}

INPUT = Vocabulary(
    "an input",
    {
        "type": Key(
            Shape(read_node, {"enum": [*get_args(InputType)]}),
            "The type of its values (default: str).",
        ),
        "choices": Key(
            Shape(
                _read_choices,
                {
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": ["string", "number", "boolean"], "not": {"const": ""}},
                },
            ),
            "The allowed values of an enum.",
        ),
        "pattern": Key(
            Shape(_read_pattern, TEXT.schema),
            "A regular expression that the whole text must match.",
            ("[0-9]{4}-[0-9]{2}",),
        ),
        "default": Key(
            Shape(read_node), "The value if a run gives none; an input without it is required."
        ),
        "required": Key(FLAG, "Whether a run has to give a value."),
        "description": Key(DESCRIPTION, "A description for people."),
    },
    foreign=_FOREIGN,
)


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TYPES: tuple[InputType, ...] = get_args(InputType)
_FOREIGN_TYPES: Mapping[str, InputType] = {
    "string": "str",
    "text": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "choice": "enum",
    "array": "list",
    "object": "json",
    "dict": "json",
    "map": "json",
    "file": "path",
    "folder": "path",
}
TYPE_WORDS = frozenset({*_TYPES, *_FOREIGN_TYPES})
"""Names of types, here or in other languages, which are therefore no defaults by themselves."""

NAME_PATTERN = f"^{_NAME.pattern}$"


def read_inputs(node: Node, problems: Problems) -> Iterator[Input]:
    """Yield the declared inputs; an input without a `default` is required."""
    if is_empty(node):
        return
    if not isinstance(node, MapNode):
        hint = "write NAME: {type: str}, one per line"
        problems.add(WRONG_SHAPE, node, f"inputs must be a map of names, not {say(node)}", hint)
        return
    for name, inner in node.node_by_key.items():
        fitting = name  # or a similar valid name, if it is invalid
        if not _NAME.fullmatch(name):
            fitting = re.sub(r"\W", "_", name, flags=re.ASCII)
            hint = f"letters, digits and _ only, no digit first, as in {fitting or 'NAME'}"
            message = f"{name!r} cannot be the name of an input"
            problems.add(BAD_NAME, node.key_by_key[name], message, hint)
        yield _read_input(fitting, inner, problems)


def write_input(declared: Input) -> dict[str, Any]:
    """Return an input in the words of the language."""
    said: dict[str, Any] = {"type": declared.type}
    if declared.choices:
        said["choices"] = list(declared.choices)
    if declared.pattern is not None:
        said["pattern"] = declared.pattern
    if not declared.required:
        said["default"] = declared.default
    if declared.description:
        said["description"] = declared.description
    return said


def _read_input(name: str, node: Node, problems: Problems) -> Input:
    if not isinstance(node, MapNode):
        return _read_short(name, node, problems)
    words = INPUT.read(f"input {name}", node, problems) or {}
    declared = Input(
        name=name,
        type=_read_type(words, node, problems),
        required=words.get("required", "default" not in words) and "default" not in words,
        description=words.get("description", ""),
        choices=words.get("choices", ()),
        pattern=words.get("pattern"),
    )
    _check_choices(declared, node, problems)
    _check_pattern(declared, node, problems)
    if "default" not in words:
        return declared
    if words.get("required"):
        hint = "remove one of them: an input with a default may be left out"
        problems.add(WRONG_SHAPE, node, f"input {name} is required and has a default", hint)
    return _with_default(declared, words["default"], problems)


def _read_short(name: str, node: ScalarNode | ListNode, problems: Problems) -> Input:
    """Read an input that is only a default, or nothing; its type is the default's."""
    if is_empty(node):
        return Input(name)
    text = node.text if isinstance(node, ScalarNode) else ""
    kind = _FOREIGN_TYPES.get(text, text)
    if kind in _TYPES:
        hint = f"write {name}: {{type: {kind}}}; for the text, {name}: {{default: {text}}}"
        problems.add(WRONG_SHAPE, node, f"input {name} is given the name of a type", hint)
        return Input(name, kind, required=False)
    value: object = node.value if isinstance(node, ScalarNode) else []
    return _with_default(Input(name, _TYPE_BY_CLASS[type(value)]), node, problems)


_TYPE_BY_CLASS: Mapping[type, InputType] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    list: "list",
}


def _read_type(words: dict[str, Any], declared: Node, problems: Problems) -> InputType:
    if "type" not in words and "type" in find_meant(declared, INPUT):
        return "json"
    if "type" not in words:
        return "enum" if _has_choices(declared) else "str"
    node = words["type"]
    text = node.text if isinstance(node, ScalarNode) else ""
    for known in _TYPES:
        if text == known:
            return known
    nearest = _FOREIGN_TYPES.get(text) or find_nearest(text, _TYPES)
    message = f"type must be one of {', '.join(_TYPES)}, not {say(node)}"
    problems.add(WRONG_SHAPE, node, message, f"write {nearest}" if nearest else "")
    return "json"  # it accepts any default, so that no second problem follows


def _has_choices(node: Node) -> bool:
    return isinstance(node, MapNode) and "choices" in node.node_by_key


def _check_choices(declared: Input, node: Node, problems: Problems) -> None:
    if (
        declared.type == "enum"
        and not _has_choices(node)
        and "choices" not in find_meant(node, INPUT)
    ):
        message = f"input {declared.name} is an enum without choices"
        problems.add(MISSING_KEY, node, message, "add choices: [red, green]")
    elif declared.type not in ("enum", "json") and _has_choices(node):
        message = f"input {declared.name} has choices, but its type is {declared.type}"
        problems.add(WRONG_SHAPE, node, message, "write type: enum")


def _check_pattern(declared: Input, node: Node, problems: Problems) -> None:
    if declared.pattern is not None and declared.type not in ("str", "path", "json"):
        message = f"input {declared.name} has a pattern, but its type is {declared.type}"
        problems.add(WRONG_SHAPE, node, message, "a pattern is for text: write type: str")


def _with_default(declared: Input, node: Node, problems: Problems) -> Input:
    value = _read_default(declared, node, problems)
    return replace(declared, default=value, required=False)


def _read_default(declared: Input, node: Node, problems: Problems) -> Any:
    if is_empty(node):
        return None
    if _holds_expression(node):
        hint = "expressions are filled in only under `with`"
        problems.add(BAD_DEFAULT, node, "a default must be plain data, without ${{ }}", hint)
        return None
    data = to_data(node)
    if declared.type == "json":
        return data
    if isinstance(node, ScalarNode) and declared.type in TEXT_TYPES and not node.typed:
        data = node.text
    try:
        return convert(declared, data)
    except ValueError as error:
        if declared.type != "enum" or declared.choices:
            hint = "" if declared.pattern is None else "change the default or the pattern"
            problems.add(BAD_DEFAULT, node, f"the default of {declared.name} {error}", hint)
        return None


def _holds_expression(node: Node) -> bool:
    if isinstance(node, ScalarNode):
        return "${{" in node.text
    nodes = node.items if not isinstance(node, MapNode) else node.node_by_key.values()
    return any(_holds_expression(inner) for inner in nodes)
