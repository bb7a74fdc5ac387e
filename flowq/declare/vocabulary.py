"""The keys of one kind of map: how each is read, what it means, and what an editor may offer.

One table serves the reader, the JSON Schema and the documentation, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode
from flowq.declare.problems import Problems
from flowq.nearest import did_you_mean

Reader = Callable[[str, Node, Problems], Any]
Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a value looks like. Shape: `schema` is JSON Schema, draft 2020-12.

    `read` gets the key that it reads for (for its messages), the node, and the problems so far; it
    returns None for what it could not read.
    """

    read: Reader
    schema: Schema = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Key:
    """A key: its shape, what it means in one sentence, and values that one may write."""

    shape: Shape
    description: str
    examples: tuple[Any, ...] = ()

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the key's value."""
        shown = {"description": self.description, **self.shape.schema}
        return {**shown, "examples": list(self.examples)} if self.examples else shown


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The keys of one kind of map.

    Shape: `what` names the kind; `foreign` has advice by word of another tool.
    """

    what: str
    keys: Mapping[str, Key]
    foreign: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    def read(self, label: str, node: Node, problems: Problems) -> dict[str, Any] | None:
        """Return the values by key, without those that are missing or wrong."""
        if is_empty(node):
            return None
        if not isinstance(node, MapNode):
            hint = f"its keys are {', '.join(self.keys)}"
            problems.add("FQ105", node, f"{label} must be a map, not {say(node)}", hint)
            return None
        values = {}
        for name, inner in node.node_by_key.items():
            key = self.keys.get(name)
            if key is None:
                self._refuse(node.key_by_key[name], problems)
            elif (value := key.shape.read(name, inner, problems)) is not None:
                values[name] = value
        return values

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of such a map."""
        properties = {name: key.schema() for name, key in self.keys.items()}
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {**schema, "required": list(self.required)} if self.required else schema

    def _refuse(self, key: ScalarNode, problems: Problems) -> None:
        word = key.text
        if word in self.foreign:
            message = f"{self.what} has no key {word!r}"
            problems.add("FQ108", key, message, self.foreign[word])
        else:
            hint = did_you_mean(word, self.keys)
            problems.add("FQ103", key, f"unknown key {word!r} in {self.what}", hint)


def is_misspelt(node: Node, kind: Vocabulary) -> bool:
    """Whether a map has keys that mean nothing: then nothing can be said to be missing from it."""
    keys = node.node_by_key if isinstance(node, MapNode) else ()
    return any(key not in kind.keys and key not in kind.foreign for key in keys)


def is_empty(node: Node) -> bool:
    """Whether nothing, or null, was written."""
    return isinstance(node, ScalarNode) and node.is_null


def say(node: Node) -> str:
    """Return what a node is, in a few words."""
    if isinstance(node, ListNode):
        return "a list"
    if isinstance(node, MapNode):
        return "a map"
    value = node.value
    if value is None:
        return "nothing"
    if isinstance(value, bool | int | float):
        return f"{node.text:.40}"
    return f"{value!r}" if len(value) <= 40 else f"{value[:39]!r}…"
