"""Declarations as a tree of nodes with positions.

`yaml_text` makes nodes from the text of a file, `values` from the values of a program, and
`document` reads them. This module must not import yaml, because every child that imports a workflow
in Python loads it.

The scalars are those of YAML 1.2: `on` and `NO` are text, `12:30` too, `0o777` is octal.
"""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Value = None | bool | int | float | str

MAX_DIGITS = 4_000

NULLS = frozenset({"", "~", "null", "Null", "NULL"})
"""Unquoted scalars that mean null."""

_CONSTANT_BY_TEXT: dict[str, Value] = {
    **dict.fromkeys(NULLS),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]{1,4000}")  # Python converts 4,300 digits, and no more

_OCTAL = re.compile(r"0o[0-7]{1,4000}")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,4000}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)")
_NOT_A_NUMBER = frozenset({".nan", ".NaN", ".NAN"})
_FIRST_OF_NUMBERS = frozenset("+-.0123456789")


def resolve(text: str) -> Value:
    """Return the value of an unquoted scalar; a number with too many digits stays text."""
    if text in _CONSTANT_BY_TEXT:
        return _CONSTANT_BY_TEXT[text]
    if text[0] not in _FIRST_OF_NUMBERS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text[2:], 16)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return float("nan") if text in _NOT_A_NUMBER else text


def write_scalar(value: Value) -> str:
    """Return the unquoted text that `resolve` reads as this value. Errors: TypeError for a text."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)  # a subclass may have another `__repr__`
    if not isinstance(value, float):
        raise TypeError(f"{value!r} is a text")
    if not math.isfinite(value):
        return ".nan" if value != value else (".inf" if value > 0 else "-.inf")
    return float.__repr__(value)


@dataclass(frozen=True, slots=True)
class Position:
    """A position. Units: `line` and `column` count from 1."""

    line: int
    column: int


@dataclass(slots=True)
class ScalarNode:
    """A text, number, bool or null.

    Shape: `text` is the written text, without quotes; `start` is the index in the file where the
    scalar begins, including its properties (anchor, tag). `merged_at` is the line of the `<<` that
    merged the node into its map, or None. `file` is empty for the file of the whole document.
    `escaped` is set for a text of a Python program with `${{`: the text as a template, in which
    only handles are expressions. `typed` is set for values of a Python program that are not texts,
    and spells them as Python does: `True`, where a file has `true`. It is empty in a file, which
    has no types.
    """

    line: int
    column: int
    text: str
    is_plain: bool
    start: int = 0
    merged_at: int | None = None
    file: str = ""
    escaped: str | None = None
    typed: str = ""

    @property
    def is_null(self) -> bool:
        """Whether the value is null or absent."""
        return self.is_plain and self.text in NULLS

    def replace_empty(self, text: str) -> None:
        """Use another text if this one is empty."""
        self.text = self.text or text

    @property
    def value(self) -> Value:
        """The value by the rules of YAML 1.2."""
        return resolve(self.text) if self.is_plain else self.text


@dataclass(slots=True)
class ListNode:
    """A list."""

    line: int
    column: int
    items: list[Node] = field(default_factory=list)
    merged_at: int | None = None
    file: str = ""


@dataclass(slots=True)
class MapNode:
    """A map. Shape: nodes and the places of their keys, by key, in the order of the text."""

    line: int
    column: int
    node_by_key: dict[str, Node] = field(default_factory=dict)
    key_by_key: dict[str, ScalarNode] = field(default_factory=dict)
    merged_at: int | None = None
    file: str = ""

    def enter(self, key: ScalarNode, node: Node) -> None:
        """Append an entry."""
        self.node_by_key[key.text] = node
        self.key_by_key[key.text] = key

    @property
    def entries(self) -> list[tuple[ScalarNode, Node]]:
        """The keys and their values."""
        return [*zip(self.key_by_key.values(), self.node_by_key.values(), strict=True)]

    def insert(self, at: int, entries: Iterable[tuple[ScalarNode, Node]]) -> None:
        """Insert entries before the one at index `at`."""
        kept = self.entries
        kept[at:at] = entries
        self.node_by_key = {key.text: node for key, node in kept}
        self.key_by_key = {key.text: key for key, _ in kept}


Node = ScalarNode | ListNode | MapNode


def copy_maps(node: Node, copies: dict[int, Node]) -> Node:
    """Return a copy of a node, because reading changes maps with misspelt keys.

    `copies` gets the copies by the id of the original. Scalars are shared.
    """
    if isinstance(node, ScalarNode):
        return node
    if isinstance(node, ListNode):
        items = [copy_maps(each, copies) for each in node.items]
        copied: Node = ListNode(node.line, node.column, items, node.merged_at, node.file)
    else:
        inner = {name: copy_maps(each, copies) for name, each in node.node_by_key.items()}
        keys = dict(node.key_by_key)
        copied = MapNode(node.line, node.column, inner, keys, node.merged_at, node.file)
    copies[id(node)] = copied
    return copied


def is_empty(node: Node) -> bool:
    """Whether a value is null or absent."""
    return isinstance(node, ScalarNode) and node.is_null


def is_text(node: Node) -> bool:
    """Whether a node can be read as text: any scalar in a file, a `str` in a program."""
    return isinstance(node, ScalarNode) and not node.is_null and not node.typed


def say(node: Node) -> str:
    """Return a short description of a node for messages."""
    if isinstance(node, ListNode):
        return "a list"
    if isinstance(node, MapNode):
        return "a map"
    value = node.value
    if value is None:
        return node.typed or "nothing"
    if isinstance(value, bool | int | float):
        return f"{node.typed or node.text:.40}"
    return f"{value!r}" if len(value) <= 40 else f"{value[:39]!r}…"


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector within this block, if it is enabled.

    It would walk all new objects repeatedly. These have no cycles, so there is nothing to collect.
    Reading 10,000 jobs takes a third less time. Afterwards the new objects count as old, so that
    the next small collection does not walk them.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:  # otherwise the program itself has frozen objects
            gc.freeze()
            gc.unfreeze()  # to the oldest generation
        gc.enable()
