"""The keys of one kind of map: how each is read, what it means, and what an editor may offer.

One table serves the reader, the JSON Schema and the documentation, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from typing import Any

from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode
from flowq.declare.options import FREE, is_free
from flowq.declare.problems import Problems
from flowq.nearest import did_you_mean

_SURELY = 0.8
"""How like a key must be to one that is unknown, of 1, to be read in its place."""

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
        for name in [*node.node_by_key]:
            if name not in self.keys and not is_free(name):
                self._refuse(node.key_by_key[name], problems)
                self._correct(name, node)
        values = {}
        for name, inner in node.node_by_key.items():
            key = self.keys.get(name)
            if key and (value := key.shape.read(name, inner, problems)) is not None:
                values[name] = value
        return values

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

    def _refuse(self, key: ScalarNode, problems: Problems) -> None:
        word = key.text
        if word in self.foreign:
            message = f"{self.what} has no key {word!r}"
            problems.add("FQ108", key, message, self.foreign[word])
        else:
            hint = did_you_mean(word, self.keys)
            problems.add("FQ103", key, f"unknown key {word!r} in {self.what}", hint)

    def _correct(self, word: str, node: MapNode) -> None:
        """Go on with the key that a misspelt one surely means, so that its value is read too."""
        absent = [key for key in self.keys if key not in node.node_by_key]
        surely = get_close_matches(word, absent, n=1, cutoff=_SURELY)
        if surely and word not in self.foreign:
            node.node_by_key[surely[0]] = node.node_by_key.pop(word)
            node.key_by_key[surely[0]] = node.key_by_key.pop(word)


def find_meant(node: Node, kind: Vocabulary) -> frozenset[str]:
    """Return the keys that a map has not, but may mean by those that are unknown.

    Shape: those that are spelt nearly alike, and all where an unknown key is like none of them.
    """
    keys = node.node_by_key if isinstance(node, MapNode) else {}
    unknown = [
        key for key in keys if key not in kind.keys and key not in kind.foreign and not is_free(key)
    ]
    absent = [key for key in kind.keys if key not in keys]
    meant = [get_close_matches(key, absent) for key in unknown]
    return frozenset(chain.from_iterable(meant) if all(meant) else absent)


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
