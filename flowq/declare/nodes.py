"""YAML text as a tree of nodes that know where they were written. The room that imports yaml.

The tree is built from the parser's events, so that every limit holds before memory is spent: a
deep document ends at the level that is too deep, and an alias costs what it stands for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from flowq.declare.problems import Placed, Problems
from flowq.declare.scalars import NULLS, Value, resolve
from flowq.declare.syntax import Position, explain

MAX_CHARACTERS = 50_000_000
MAX_DEPTH = 64
MAX_ALIASED_NODES = 100_000
"""How many nodes all aliases together may stand for."""

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where the wheel has it
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KNOWN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))


@dataclass(slots=True)
class ScalarNode:
    """A text, number, bool or null. Shape: `text` is what was written, without quotes."""

    line: int
    column: int
    text: str
    is_plain: bool

    @property
    def is_null(self) -> bool:
        """Whether nothing, or null, was written."""
        return self.is_plain and self.text in NULLS

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


@dataclass(slots=True)
class MapNode:
    """A map. Shape: nodes and the places of their keys, by key, in the order of the text."""

    line: int
    column: int
    node_by_key: dict[str, Node] = field(default_factory=dict)
    key_by_key: dict[str, ScalarNode] = field(default_factory=dict)


Node = ScalarNode | ListNode | MapNode


def read_document(text: str, problems: Problems) -> Node | None:
    """Return the one document of a text, or None for a text without any.

    Problems that leave the rest readable are noted. Errors: WorkflowInvalid for the others, with
    what was noted so far.
    """
    _check_text(text, problems)
    parser = _PARSER(text)
    try:
        return _Builder(problems).build(parser.get_event)
    except yaml.MarkedYAMLError as error:
        complaint = explain(
            error.problem or "", error.context or "", error.problem_mark, error.context_mark, text
        )
        problems.stop("FQ102", complaint.position, complaint.message, complaint.hint)
    except yaml.YAMLError as error:
        problems.stop("FQ102", Position(1, 1), f"this is no YAML: {error}")
    finally:
        parser.dispose()


def find_position(text: str, index: int) -> Position:
    """Return the position of a character."""
    return Position(text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


def _check_text(text: str, problems: Problems) -> None:
    if len(text) > MAX_CHARACTERS:
        message = f"the file is longer than {MAX_CHARACTERS:,} characters"
        problems.stop("FQ111", Position(1, 1), message, "let a job's function read the data")
    if found := _UNPRINTABLE.search(text):
        message = f"the character U+{ord(found.group()):04X} cannot stand in a text"
        problems.stop("FQ101", find_position(text, found.start()), message, "take it away")


@dataclass(slots=True)
class _Open:
    """A list or map that is being read. Shape: `key` waits for its value."""

    node: ListNode | MapNode
    anchor: str | None
    nodes_before: int
    key: ScalarNode | None = None


_NO_KEY = ScalarNode(0, 0, "", True)
"""Stands in for a key that was refused, so that its value is read and dropped."""


class _Builder:
    """Builds the tree of one document from the parser's events."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.root: Node | None = None
        self.documents = 0
        self.count = 0
        self.aliased = 0
        self.open: list[_Open] = []
        self.anchored: dict[str, tuple[Node, int]] = {}

    def build(self, next_event: Callable[[], Any]) -> Node | None:
        """Return the root of the document whose events come one by one."""
        on_event, on_scalar, event = _ON_EVENT, self.on_scalar, next_event()
        while event is not None:
            kind = type(event)
            if kind is yaml.ScalarEvent:  # most are: this spares a look-up
                on_scalar(event)
            elif kind in on_event:
                on_event[kind](self, event)
            event = next_event()
        return self.root

    def on_document(self, event: Any) -> None:
        self.documents += 1
        if self.documents > 1:
            hint = "put each workflow into a file of its own"
            self.problems.stop("FQ113", _place(event), "a second document begins here", hint)

    def on_scalar(self, event: Any) -> None:
        mark, text, is_plain = event.start_mark, event.value, event.implicit[0]
        node = ScalarNode(mark.line + 1, mark.column + 1, text, is_plain)
        if event.tag is not None:
            if not self.check_tag(event):
                node.text = text or event.tag.lstrip("!")  # `!x` was meant to say something
        elif len(text) > 4_000 and is_plain and not isinstance(node.value, str):
            self.problems.add("FQ111", node, "a number of more than 4,000 digits", "quote it")
        self.count += 1
        if event.anchor:
            self.anchored[event.anchor] = (node, 1)
        self.take(node)

    def on_list(self, event: Any) -> None:
        self.begin(event, ListNode(event.start_mark.line + 1, event.start_mark.column + 1))

    def on_map(self, event: Any) -> None:
        self.begin(event, MapNode(event.start_mark.line + 1, event.start_mark.column + 1))

    def begin(self, event: Any, node: ListNode | MapNode) -> None:
        if len(self.open) == MAX_DEPTH:
            self.problems.stop("FQ111", node, f"lists and maps nest deeper than {MAX_DEPTH} levels")
        self.check_tag(event)
        self.anchored.pop(event.anchor, None)  # an anchor may be set again; this one is unfinished
        self.open.append(_Open(node, event.anchor, self.count))
        self.count += 1

    def on_end(self, event: Any) -> None:
        ended = self.open.pop()
        if ended.anchor:
            self.anchored[ended.anchor] = (ended.node, self.count - ended.nodes_before)
        self.take(ended.node)

    def on_alias(self, event: Any) -> None:
        place = _place(event)
        if event.anchor not in self.anchored:
            is_open = any(one.anchor == event.anchor for one in self.open)
            why = "stands inside its own anchor" if is_open else "has no anchor above it"
            self.problems.stop("FQ112", place, f"the alias *{event.anchor} {why}")
        node, size = self.anchored[event.anchor]
        self.count += size
        self.aliased += size
        if self.aliased > MAX_ALIASED_NODES:
            message = f"the aliases stand for more than {MAX_ALIASED_NODES:,} values"
            self.problems.stop("FQ111", place, message, "repeat less")
        self.take(node)

    def check_tag(self, event: Any) -> bool:
        is_known = event.tag in (None, "!") or event.tag in _KNOWN_TAGS
        if not is_known:
            message = f"the tag {_short(event.tag)} means nothing here"
            hint = "take it away; values are plain data"
            if event.tag[:1] == "!" and event.tag[1:2].isalpha():
                hint = f"put text that begins with ! in quotes; in `if`, write not {event.tag[1:]}"
            self.problems.add("FQ112", _place(event), message, hint)
        return is_known

    def take(self, node: Node) -> None:
        """Put a finished node where it belongs."""
        if not self.open:
            self.root = node
            return
        top = self.open[-1]
        target, key = top.node, top.key
        if type(target) is ListNode:
            target.items.append(node)
        elif key is None:
            top.key = self.check_key(node)
        else:
            top.key = None
            if key is not _NO_KEY:
                self.enter(target, key, node)  # type: ignore[arg-type]  # it is a map

    def check_key(self, node: Node) -> ScalarNode:
        if not isinstance(node, ScalarNode):
            hint = "put text that begins with { or [ in quotes"
            self.problems.add("FQ105", node, "a list or a map cannot be a key", hint)
            return _NO_KEY
        if node.is_plain and node.text == "<<":
            hint = "say what jobs share under `defaults:`, or write it out"
            self.problems.add("FQ112", node, "merge keys (<<) are not part of YAML 1.2", hint)
            return _NO_KEY
        if node.is_plain and not node.text:
            self.problems.add("FQ105", node, "a key is missing in front of the ':'")
            return _NO_KEY
        return node

    def enter(self, mapping: MapNode, key: ScalarNode, node: Node) -> None:
        if (first := mapping.key_by_key.get(key.text)) is not None:
            message = f"the key {key.text!r} stands here a second time"
            self.problems.add("FQ104", key, message, f"the first is in line {first.line}")
            return
        mapping.node_by_key[key.text] = node
        mapping.key_by_key[key.text] = key


_ON_EVENT: Mapping[type, Callable[[_Builder, Any], None]] = {
    yaml.DocumentStartEvent: _Builder.on_document,
    yaml.SequenceStartEvent: _Builder.on_list,
    yaml.MappingStartEvent: _Builder.on_map,
    yaml.SequenceEndEvent: _Builder.on_end,
    yaml.MappingEndEvent: _Builder.on_end,
    yaml.AliasEvent: _Builder.on_alias,
}


def _place(event: Any) -> Placed:
    return Position(event.start_mark.line + 1, event.start_mark.column + 1)


def _short(tag: str) -> str:
    return "!!" + tag.removeprefix("tag:yaml.org,2002:") if tag.startswith("tag:yaml") else tag
