"""YAML text as a tree of nodes that know where they were written. The room that imports yaml.

The tree is built from the parser's events, so that every limit holds before memory is spent: a
deep document ends at the level that is too deep, and an alias costs what it stands for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeGuard

import yaml

from flowq.declare.problems import Placed, Problems
from flowq.declare.scalars import NULLS, Value, resolve
from flowq.declare.syntax import Position, explain

MAX_CHARACTERS = 50_000_000
MAX_BYTES = 4 * MAX_CHARACTERS
MAX_DEPTH = 64
TOO_DEEP = f"lists and maps nest deeper than {MAX_DEPTH} levels"
MAX_DIGITS = 4_000
MAX_ALIASED_NODES = 100_000
"""How many nodes all aliases together may stand for."""

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where the wheel has it
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KNOWN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))


@dataclass(slots=True)
class ScalarNode:
    """A text, number, bool or null.

    Shape: `text` is what was written, without quotes; `start` is the index in the file where the
    scalar begins, with its properties (anchor, tag).
    """

    line: int
    column: int
    text: str
    is_plain: bool
    start: int

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
        return _Builder(parser.get_event, problems).read_document()
    except yaml.MarkedYAMLError as error:
        complaint = explain(
            error.problem or "", error.context or "", error.problem_mark, error.context_mark, text
        )
        if "nesting depth" in (error.problem or ""):  # libyaml has a limit too, and looks ahead
            problems.stop("FQ111", complaint.position, TOO_DEEP)
        problems.stop("FQ102", complaint.position, complaint.message, complaint.hint)
    except yaml.YAMLError as error:
        problems.stop("FQ102", Position(1, 1), f"this is no YAML: {error}")
    finally:
        parser.dispose()


def find_position(text: str, index: int) -> Position:
    """Return the position of a character."""
    return Position(text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


def refuse_length(problems: Problems) -> NoReturn:
    """Note that a text is too long. Errors: WorkflowInvalid, always."""
    message = f"the file is longer than {MAX_CHARACTERS:,} characters"
    problems.stop("FQ111", Position(1, 1), message, "let a job's function read the data")


def _check_text(text: str, problems: Problems) -> None:
    if len(text) > MAX_CHARACTERS:
        refuse_length(problems)
    if found := _UNPRINTABLE.search(text):
        message = f"the character U+{ord(found.group()):04X} cannot stand in a text"
        problems.stop("FQ101", find_position(text, found.start()), message, "take it away")


class _Builder:
    """Builds the tree of one document from the parser's events, which come one by one."""

    def __init__(self, next_event: Callable[[], Any], problems: Problems) -> None:
        self.next_event = next_event
        self.problems = problems
        self.count = 0
        self.aliased = 0
        self.depth = 0
        self.unfinished: list[str] = []
        self.anchored: dict[str, tuple[Node, int]] = {}

    def read_document(self) -> Node | None:
        """Return the root of the one document, or None when there is none."""
        root, documents = None, 0
        while (event := self.next_event()) is not None:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    hint = "put each workflow into a file of its own"
                    self.problems.add("FQ113", _place(event), "a second document begins here", hint)
                    break
                root = self.read(self.next_event())
        return root

    def read(self, event: Any) -> Node:
        """Return the node that begins with an event, and read all that is in it."""
        kind = type(event)
        return self.read_scalar(event) if kind is yaml.ScalarEvent else _READERS[kind](self, event)

    def read_scalar(self, event: Any) -> ScalarNode:
        mark, text = event.start_mark, event.value
        node = ScalarNode(mark.line + 1, mark.column + 1, text, event.implicit[0], mark.index)
        self.count += 1
        if event.tag is not None or event.anchor is not None or len(text) > MAX_DIGITS:
            self.look_closer(event, node)
        return node

    def look_closer(self, event: Any, node: ScalarNode) -> None:
        if event.tag is not None:
            if not self.check_tag(event, node):
                node.text = node.text or event.tag.lstrip("!")  # `!x` was meant to say something
        elif len(node.text) > MAX_DIGITS and node.is_plain and not isinstance(node.value, str):
            message = f"a number of more than {MAX_DIGITS:,} digits"
            self.problems.add("FQ111", node, message, "quote it")
        if event.anchor is not None:
            self.anchored[event.anchor] = (node, 1)

    def read_list(self, event: Any) -> ListNode:
        node = ListNode(event.start_mark.line + 1, event.start_mark.column + 1)
        before = self.begin(event, node)
        while type(inner := self.next_event()) is not yaml.SequenceEndEvent:
            node.items.append(self.read(inner))
        self.end(event, node, before)
        return node

    def read_map(self, event: Any) -> MapNode:
        node = MapNode(event.start_mark.line + 1, event.start_mark.column + 1)
        before = self.begin(event, node)
        while type(inner := self.next_event()) is not yaml.MappingEndEvent:
            key = self.read(inner)
            value = self.read(self.next_event())
            if self.is_key(key):
                self.enter(node, key, value)
            else:
                self.problems.note_gap("FQ105", node)
        self.end(event, node, before)
        return node

    def begin(self, event: Any, node: ListNode | MapNode) -> int:
        """Go one level deeper; return how many nodes there were before."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.problems.stop("FQ111", node, TOO_DEEP)
        if event.tag is not None:
            self.check_tag(event, node)
        if event.anchor is not None:
            self.anchored.pop(event.anchor, None)  # it may be set again; this one is unfinished
            self.unfinished.append(event.anchor)
        self.count += 1
        return self.count - 1

    def end(self, event: Any, node: ListNode | MapNode, before: int) -> None:
        self.depth -= 1
        if event.anchor is not None:
            self.unfinished.remove(event.anchor)
            self.anchored[event.anchor] = (node, self.count - before)

    def read_alias(self, event: Any) -> Node:
        place = _place(event)
        if event.anchor not in self.anchored:
            is_inside = event.anchor in self.unfinished
            why = "stands inside its own anchor" if is_inside else "has no anchor above it"
            return self.stand_in(event, f"the alias *{event.anchor} {why}")
        node, size = self.anchored[event.anchor]
        self.count += size
        self.aliased += size
        if self.aliased > MAX_ALIASED_NODES:
            message = f"the aliases stand for more than {MAX_ALIASED_NODES:,} values"
            self.problems.stop("FQ111", place, message, "repeat less")
        return node

    def stand_in(self, event: Any, message: str) -> ScalarNode:
        """Note that an alias stands for nothing; return a value of which nothing more is said."""
        mark = event.start_mark
        node = ScalarNode(mark.line + 1, mark.column + 1, "", True, mark.index)
        self.problems.add("FQ112", node, message, "write &NAME in front of a value further up")
        self.problems.silence(node)
        return node

    def check_tag(self, event: Any, node: Node) -> bool:
        is_known = event.tag in (None, "!") or event.tag in _KNOWN_TAGS
        if not is_known:
            message = f"the tag {_short(event.tag)} means nothing here"
            hint = "take it away; values are plain data"
            if event.tag[:1] == "!" and event.tag[1:2].isalpha():
                hint = f"put text that begins with ! in quotes; in `if`, write not {event.tag[1:]}"
            self.problems.add("FQ112", node, message, hint)
        return is_known

    def is_key(self, node: Node) -> TypeGuard[ScalarNode]:
        """Whether a node can be a key; it is noted when it cannot."""
        if not isinstance(node, ScalarNode):
            hint = "put text that begins with { or [ in quotes"
            self.problems.add("FQ105", node, "a list or a map cannot be a key", hint)
        elif node.is_plain and node.text == "<<":
            hint = "say what jobs share under `defaults:`, or write it out"
            self.problems.add("FQ112", node, "merge keys (<<) are not part of YAML 1.2", hint)
        elif node.is_plain and not node.text:
            self.problems.add("FQ105", node, "a key is missing in front of the ':'")
        else:
            return True
        return False

    def enter(self, mapping: MapNode, key: ScalarNode, node: Node) -> None:
        if (first := mapping.key_by_key.get(key.text)) is not None:
            message = f"the key {key.text!r} stands here a second time"
            self.problems.add("FQ104", key, message, f"the first is in line {first.line}")
            self.problems.note_gap("FQ104", first)
            return
        mapping.node_by_key[key.text] = node
        mapping.key_by_key[key.text] = key


_READERS: Mapping[type, Callable[[_Builder, Any], Node]] = {
    yaml.SequenceStartEvent: _Builder.read_list,
    yaml.MappingStartEvent: _Builder.read_map,
    yaml.AliasEvent: _Builder.read_alias,
}


def _place(event: Any) -> Placed:
    return Position(event.start_mark.line + 1, event.start_mark.column + 1)


def _short(tag: str) -> str:
    return "!!" + tag.removeprefix("tag:yaml.org,2002:") if tag.startswith("tag:yaml") else tag
