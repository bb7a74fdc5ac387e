"""Shapes of values, and vocabularies: tables of keys with shapes.

A shape reads its value from a node, writes it for the exports, and has its JSON Schema. `keys`,
`job_shapes`, `input_shapes` and `matrices` consist of these. A shape checks one value;
`flowq.checks` checks the expressions in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from itertools import chain
from typing import Any

from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode, is_empty, is_text, say
from flowq.declare.problems import Problems
from flowq.durations import MAX_S, parse_duration, write_duration
from flowq.expressions import as_source, tidy
from flowq.expressions.templates import has_live_expression
from flowq.nearest import did_you_mean
from flowq.problems import BAD_DURATION, FOREIGN_WORD, UNKNOWN_KEY, WRONG_SHAPE

FREE = "x-"
"""The prefix of keys that users may add to any map with fixed keys."""

MAX_NUMBER = 1_000_000_000
"""The limit of every count, because the scripts and RQ calculate with them."""

_SURELY = 0.8
"""The similarity, from 0 to 1, from which on an unknown key is read as a known one."""

Reader = Callable[[str, Node, Problems], Any]
Writer = Callable[[Any], Any]
Schema = Mapping[str, Any]


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Shape:
    """How a value is read and written. Shape: `schema` is JSON Schema, draft 2020-12.

    `read` gets the key (for its messages), the node, and the problems so far; it returns None if it
    could not read the value. `write` turns the result of `read` into plain data that reads the
    same.
    """

    read: Reader
    schema: Schema = field(default_factory=dict)
    write: Writer = _as_it_is


@dataclass(frozen=True, slots=True)
class Unsettled:
    """The value of a setting that is written as an expression: its template."""

    template: str


@dataclass(frozen=True, slots=True)
class Key:
    """A key: its shape, its meaning in one sentence, and examples of values.

    Shape: `attribute` is the place of the value in the spec, such as `timeout_s` or `run.shell`;
    several alternatives are separated by spaces, and it is empty for keys that `document` handles.
    If `needs` has keys, one of them must be present. None of the keys in `not_for` may be; it maps
    them to hints. `not_shared` says why the key is not allowed in `defaults`; empty if it is.
    """

    shape: Shape
    description: str
    examples: tuple[Any, ...] = ()
    attribute: str = ""
    needs: tuple[str, ...] = ()
    not_for: Mapping[str, str] = field(default_factory=dict)
    not_shared: str = ""

    def find_in(self, spec: Any) -> Any:
        """Return the value of the key in a spec, or None for the default."""
        found = [_find_said(spec, attribute) for attribute in self.attribute.split()]
        return next((each for each in found if each is not None), None)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the key's value."""
        shown = {"description": self.description, **self.shape.schema}
        return {**shown, "examples": list(self.examples)} if self.examples else shown


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The keys of one kind of map.

    Shape: `what` names the kind; `foreign` has hints for words of other tools, and for keys of
    other kinds of maps; messages add `of` to the name of a key.
    """

    what: str
    keys: Mapping[str, Key]
    foreign: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    of: str = ""

    def read(self, label: str, node: Node, problems: Problems) -> dict[str, Any] | None:
        """Return the values by key; leaves out keys that are missing or have a problem."""
        if is_empty(node):
            return None
        if not isinstance(node, MapNode):
            hint = f"its keys are {', '.join(self.keys)}"
            problems.add(WRONG_SHAPE, node, f"{label} must be a map, not {say(node)}", hint)
            return None
        for name in [*node.node_by_key]:
            if name in self.keys or is_free(name):
                continue
            key_node = node.key_by_key[name]
            if name in self.foreign:
                message = f"{self.what} has no key {name!r}"
                problems.add(FOREIGN_WORD, key_node, message, self.foreign[name])
                continue
            hint = did_you_mean(name, self.keys)
            problems.add(UNKNOWN_KEY, key_node, f"unknown key {name!r} in {self.what}", hint)
            # If it is certainly a misspelt key, its value is read too.
            absent = [key for key in self.keys if key not in node.node_by_key]
            for meant in get_close_matches(name, absent, n=1, cutoff=_SURELY):
                node.node_by_key[meant] = node.node_by_key.pop(name)
                node.key_by_key[meant] = node.key_by_key.pop(name)
        values = {}
        for name, inner in node.node_by_key.items():
            key = self.keys.get(name)
            if key and (value := key.shape.read(name + self.of, inner, problems)) is not None:
                values[name] = value
        return values

    def to_fields(self, words: Mapping[str, Any]) -> dict[str, Any]:
        """Return values by attribute, from values by key."""
        return {self.keys[word].attribute: value for word, value in words.items()}

    def write(self, value: Any) -> dict[str, Any]:
        """Return a part of a spec as values by key, without defaults."""
        said = {}
        for word, key in self.keys.items():
            found = key.find_in(value)
            if found is not None:
                said[word] = key.shape.write(found)
        return said

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of such a map."""
        properties = {name: key.schema() for name, key in self.keys.items()}
        schema = {
            "type": "object",
            "properties": properties,
            "patternProperties": {f"^{FREE}": {}},
            "additionalProperties": False,
        }
        return {**schema, "required": list(self.required)} if self.required else schema


def is_free(key: str) -> bool:
    """Whether a key is free for users, for example for values with an anchor."""
    return key.startswith(FREE)


def _find_said(owner: Any, attribute: str) -> Any:
    """Return the value at `attribute` (`run.shell`) of a spec, or None for the default."""
    *outer, name = attribute.split(".")
    for each in outer:
        owner = getattr(owner, each)
        if owner is None:
            return None
    value = getattr(owner, name)
    spec: type = type(owner)
    return None if value == _defaults_of(spec).get(name, MISSING) else value


@cache
def _defaults_of(spec: type) -> Mapping[str, Any]:
    return {
        each.name: each.default if each.default_factory is MISSING else each.default_factory()
        for each in fields(spec)
    }


def find_meant(node: Node, kind: Vocabulary) -> frozenset[str]:
    """Return the absent keys that the unknown keys of a map may mean.

    Shape: keys with a similar spelling, or all if an unknown key is similar to none.
    """
    keys = node.node_by_key if isinstance(node, MapNode) else {}
    unknown = [
        key for key in keys if key not in kind.keys and key not in kind.foreign and not is_free(key)
    ]
    if not unknown:
        return frozenset()
    absent = [key for key in kind.keys if key not in keys]
    meant = [get_close_matches(key, absent) for key in unknown]
    return frozenset(chain.from_iterable(meant) if all(meant) else absent)


_SCALAR = ["string", "number", "boolean"]
_TEXT = {"type": _SCALAR, "not": {"const": ""}}
_NO_EXPRESSION = {"not": {"type": "string", "pattern": r"\$\{\{"}}
_WITH_EXPRESSION = {"type": "string", "pattern": r"\$\{\{"}
_UNESCAPED = re.compile(r"(?<!\$)\$\{\{")
_DURATION_TEXT = r"^\s*[0-9]{1,15}(\.[0-9]{1,9})?\s*(ms|s|m|h|d)?\s*$"


def read_node(label: str, node: Node, problems: Problems) -> Node:
    """Return the node itself, for values that are read when more is known."""
    return node


def read_text(label: str, node: Node, problems: Problems) -> str | None:
    """Read a text; a number or a word in a file keeps its spelling: `3.10`, `on`."""
    if not isinstance(node, ScalarNode) or not is_text(node):
        hint = "put a text that begins with [ or { in quotes"
        if isinstance(node, ScalarNode) and node.typed:
            hint = "write a str: values in Python have types"
        elif isinstance(node, ScalarNode):
            hint = 'write a text, or leave the key out; if "null" is the text, put it in quotes'
        problems.add(WRONG_SHAPE, node, f"{label} must be text, not {say(node)}", hint)
        return None
    if not node.text:
        problems.add(
            WRONG_SHAPE, node, f"{label} must not be empty", "write a text, or leave it out"
        )
        return None
    return node.text


def read_fixed_text(label: str, node: Node, problems: Problems) -> str | None:
    """Read a text that may not contain expressions."""
    text = read_text(label, node, problems)
    if text is not None and "${{" in text:
        hint = "expressions are filled in where values are, such as under `with`"
        problems.add(WRONG_SHAPE, node, f"{label} must be fixed text, without ${{{{ }}}}", hint)
        return None
    return text


def read_template(label: str, node: Node, problems: Problems) -> str | None:
    """Read a text that may contain expressions."""
    text = read_text(label, node, problems)
    return None if text is None or not isinstance(node, ScalarNode) else template_of(node)


def read_expression(label: str, node: Node, problems: Problems) -> str | None:
    """Read one expression, with braces or without; return it without.

    True and false are expressions too.
    """
    if isinstance(node, ScalarNode) and isinstance(node.value, bool):
        return "true" if node.value else "false"
    text = read_text(label, node, problems)
    if text is None:
        return None
    source = as_source(text)
    if "${{" in source:
        hint = "omit the braces; `and`, `or` and ~ join several expressions"
        problems.add(WRONG_SHAPE, node, f"{label} must be one expression, not {say(node)}", hint)
        return None
    return source


def read_description(label: str, node: Node, problems: Problems) -> str | None:
    """Read a text that may be empty, and may quote expressions.

    Handles are refused, because they stand for values, and nothing is filled in here.
    """
    if isinstance(node, ScalarNode) and (not node.text or node.is_null):
        return ""
    if isinstance(node, ScalarNode) and _UNESCAPED.search(node.escaped or ""):
        problems.add(
            WRONG_SHAPE, node, f"{label} must be fixed text, without handles, not {say(node)}"
        )
        return None
    return read_text(label, node, problems)


def read_message(label: str, node: Node, problems: Problems) -> str | None:
    """Read a text that may be empty, and may contain expressions."""
    is_nothing = isinstance(node, ScalarNode) and (not node.text or node.is_null)
    return "" if is_nothing else read_template(label, node, problems)


def read_flag(label: str, node: Node, problems: Problems) -> bool | None:
    """Read true or false, the only spellings in YAML 1.2."""
    value = node.value if isinstance(node, ScalarNode) else None
    if isinstance(value, bool):
        return value
    message = f"{label} must be true or false, not {say(node)}"
    problems.add(WRONG_SHAPE, node, message, "only these two words, without quotes")
    return None


def read_duration(label: str, node: Node, problems: Problems) -> float | None:
    """Read a duration. Units: seconds."""
    try:
        seconds = parse_duration(node.value if isinstance(node, ScalarNode) else None)
    except ValueError:
        message = f"{label} must be a duration, not {say(node)}"
        problems.add(
            BAD_DURATION, node, message, "write it as 500ms, 30s, 10m, 2h, 1d, or in seconds"
        )
        return None
    if seconds > MAX_S:
        problems.add(BAD_DURATION, node, f"{label} must be at most 3650d, not {say(node)}")
        return None
    return seconds


def read_timeout(label: str, node: Node, problems: Problems) -> float | None:
    """Read a duration that is not zero. Units: seconds."""
    return _read_some_time(label, node, problems, "leave it out for no limit of its own")


def read_interval(label: str, node: Node, problems: Problems) -> float | None:
    """Read how long a pause is, which is not zero. Units: seconds."""
    return _read_some_time(label, node, problems, "leave it out for the default")


def _read_some_time(label: str, node: Node, problems: Problems, hint: str) -> float | None:
    seconds = read_duration(label, node, problems)
    if seconds == 0:
        problems.add(BAD_DURATION, node, f"{label} must be more than zero", hint)
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
        problems.add(
            WRONG_SHAPE, node, f"{label} must be a whole number from {least}, not {say(node)}"
        )
        return None
    if value > MAX_NUMBER:
        problems.add(WRONG_SHAPE, node, f"{label} must be at most {MAX_NUMBER:,}, not {say(node)}")
        return None
    return value


def read_data(label: str, node: Node, problems: Problems) -> Any:
    """Read plain data, in which every text may contain expressions."""
    check_keys(node, problems)
    return to_template(node)


def read_arguments(label: str, node: Node, problems: Problems) -> dict[str, Any] | None:
    """Read a map of plain data by name, with expressions."""
    if is_empty(node):
        return {}
    if not isinstance(node, MapNode):
        message = f"{label} must be a map of names to values, not {say(node)}"
        problems.add(WRONG_SHAPE, node, message, "write name: value, one per line")
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


def template_of(node: ScalarNode) -> str:
    """Return the text of a scalar as a template, with uniform spaces in its expressions."""
    return tidy(node.text if node.escaped is None else node.escaped)


def to_template(node: Node) -> Any:
    """Return a node as plain data, with uniform spaces in its expressions."""
    if isinstance(node, ScalarNode):
        return template_of(node) if "${{" in node.text else node.value
    if isinstance(node, ListNode):
        return [to_template(item) for item in node.items]
    return {key: to_template(inner) for key, inner in node.node_by_key.items()}


def check_keys(node: Node, problems: Problems) -> None:
    """Note the keys in a value, however deep, that contain expressions."""
    if isinstance(node, ListNode):
        for item in node.items:
            check_keys(item, problems)
    elif isinstance(node, MapNode):
        for key, inner in node.node_by_key.items():
            if "${{" in key:
                hint = "expressions are filled in only in values"
                problems.add(WRONG_SHAPE, node.key_by_key[key], "a key cannot contain ${{ }}", hint)
            check_keys(inner, problems)


def choice(*words: str) -> Shape:
    """Return the shape of a value that is one of some words."""

    def read(label: str, node: Node, problems: Problems) -> str | None:
        if isinstance(node, ScalarNode) and node.value in words:
            return node.text
        message = f"{label} must be one of {', '.join(words)}, not {say(node)}"
        problems.add(WRONG_SHAPE, node, message)
        return None

    return Shape(read, {"enum": list(words)})


def either(read: Reader, *schemas: Any, write: Writer = _as_it_is) -> Shape:
    """Return the shape of a value that can be written in several ways."""
    return Shape(read, {"anyOf": list(schemas)}, write)


def or_expression(shape: Shape) -> Shape:
    """Return the shape of a setting: a value of this shape, or a text with an expression for one.

    Such a text is read as `Unsettled`; `flowq.settings` reads the value when it is known.
    """

    def read(label: str, node: Node, problems: Problems) -> Any:
        if isinstance(node, ScalarNode) and is_text(node) and "${{" in node.text:
            template = template_of(node)
            if has_live_expression(template):
                return Unsettled(template)
        return shape.read(label, node, problems)

    def write(value: Any) -> Any:
        return value.template if isinstance(value, Unsettled) else shape.write(value)

    schemas = shape.schema.get("anyOf", [shape.schema])
    return either(read, *schemas, _WITH_EXPRESSION, write=write)


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
    {"type": "number", "minimum": 0, "maximum": MAX_S},
    {"type": "string", "pattern": _DURATION_TEXT},
    write=write_duration,
)
_SOME_TIME = (
    {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_S},
    {"type": "string", "pattern": _DURATION_TEXT, "not": {"pattern": r"^[^1-9]*$"}},
)
TIMEOUT = either(read_timeout, *_SOME_TIME, write=write_duration)
INTERVAL = either(read_interval, *_SOME_TIME, write=write_duration)
DATA = Shape(read_data)
ARGUMENTS = Shape(read_arguments, {"type": ["object", "null"]}, dict)
