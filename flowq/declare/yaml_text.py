"""YAML text as a tree of nodes that know where they were written. Only this module imports yaml.

The tree is built from the events of the parser, so each limit applies before memory is spent: a
document that is too deep ends at that level, and an alias counts as what it stands for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn, Protocol, TypeGuard

import yaml

from flowq.declare.nodes import MAX_DIGITS, ListNode, MapNode, Node, Position, ScalarNode
from flowq.declare.problems import Placed, Problems
from flowq.problems import (
    BAD_ALIAS,
    DOCUMENT_TOO_LARGE,
    KEY_TWICE,
    NOT_ONE_MAP,
    NOT_UTF8,
    NOT_YAML,
    WRONG_SHAPE,
)

MAX_CHARACTERS = 50_000_000
MAX_BYTES = 4 * MAX_CHARACTERS
MAX_DEPTH = 64
TOO_DEEP = f"lists and maps nest deeper than {MAX_DEPTH} levels"
_READ_BY_CODE = "read the data in a job's function"
MAX_ALIASED_NODES = 100_000
"""The limit of nodes that all aliases together repeat."""

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, if the wheel has it
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KNOWN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))


def read_document(text: str, problems: Problems) -> Node | None:
    """Return the only document of a text, or None if it has none.

    Notes problems that leave the rest readable. Errors: WorkflowInvalid for other problems, with
    those noted so far.
    """
    if len(text) > MAX_CHARACTERS:
        refuse_length(problems)
    if found := _UNPRINTABLE.search(text):
        message = f"the character U+{ord(found.group()):04X} is not allowed in a text"
        problems.stop(NOT_UTF8, find_position(text, found.start()), message, "remove it")
    parser = _PARSER(text)
    try:
        return _Builder(parser.get_event, problems).read_document()
    except yaml.MarkedYAMLError as error:
        complaint = explain(
            error.problem or "", error.context or "", error.problem_mark, error.context_mark, text
        )
        if "nesting depth" in (error.problem or ""):  # libyaml has a limit too, and looks ahead
            problems.stop(DOCUMENT_TOO_LARGE, complaint.position, TOO_DEEP, _READ_BY_CODE)
        problems.stop(NOT_YAML, complaint.position, complaint.message, complaint.hint)
    except yaml.YAMLError as error:
        problems.stop(NOT_YAML, Position(1, 1), f"this is not YAML: {error}")
    finally:
        parser.dispose()


def find_position(text: str, index: int) -> Position:
    """Return the position of a character."""
    return Position(text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


def refuse_length(problems: Problems) -> NoReturn:
    """Note that a text is too long. Errors: WorkflowInvalid, always."""
    message = f"the file is longer than {MAX_CHARACTERS:,} characters"
    problems.stop(DOCUMENT_TOO_LARGE, Position(1, 1), message, _READ_BY_CODE)


class _Builder:
    """Builds the tree of one document from the parser's events."""

    def __init__(self, next_event: Callable[[], Any], problems: Problems) -> None:
        self.next_event = next_event
        self.problems = problems
        self.count = 0
        self.aliased = 0
        self.depth = 0
        self.deepest = 0
        self.unfinished: list[str] = []
        self.anchored: dict[str, _Anchored] = {}

    def read_document(self) -> Node | None:
        """Return the root of the only document, or None if there is none."""
        root, documents = None, 0
        while (event := self.next_event()) is not None:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    hint = "put each workflow into a file of its own"
                    self.problems.add(
                        NOT_ONE_MAP, _place(event), "a second document begins here", hint
                    )
                    break
                root = self.read(self.next_event())
        return root

    def read(self, event: Any) -> Node:
        """Return the node that begins with an event, with its content."""
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
                node.replace_empty(event.tag.lstrip("!"))  # `!x` was meant as a value
        elif len(node.text) > MAX_DIGITS and node.is_plain and not isinstance(node.value, str):
            message = f"a number of more than {MAX_DIGITS:,} digits"
            self.problems.add(DOCUMENT_TOO_LARGE, node, message, "quote it")
        if event.anchor is not None:
            self.anchored[event.anchor] = _Anchored(node, 1, 0)

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
        merge: _Merge | None = None
        while type(inner := self.next_event()) is not yaml.MappingEndEvent:
            key = self.read(inner)
            value = self.read(self.next_event())
            if _is_merge(key) and merge is None:
                merge = _Merge(key, value, len(node.node_by_key))
            elif self.is_key(key):
                self.enter(node, key, value)
            else:
                self.problems.note_gap(WRONG_SHAPE, node)
        if merge is not None:
            self.merge(node, merge)
        self.end(event, node, before)
        return node

    def merge(self, node: MapNode, merge: _Merge) -> None:
        """Add the entries that the map lacks; of several merged maps, the first one counts."""
        found: dict[str, tuple[ScalarNode, Node]] = {}
        is_list = isinstance(merge.value, ListNode)
        for source in merge.value.items if isinstance(merge.value, ListNode) else [merge.value]:
            if not isinstance(source, MapNode):
                say = "each item of the list after <<" if is_list else "the value of <<"
                hint = "write &NAME in front of a map further up, and <<: *NAME here"
                self.problems.add(BAD_ALIAS, source, f"{say} must be a map", hint)
                self.problems.note_gap(WRONG_SHAPE, node)
                continue
            self.problems.pass_gaps(source, node)
            for name, inner in source.node_by_key.items():
                if name not in node.node_by_key and name not in found:
                    found[name] = source.key_by_key[name], inner
        line = merge.key.line
        merged = ((_merged_key(key, line), _merged(inner, line)) for key, inner in found.values())
        node.insert(merge.at, merged)

    def begin(self, event: Any, node: ListNode | MapNode) -> tuple[int, int]:
        """Enter a level; return the number of nodes so far, and the deepest level."""
        before = self.count, self.deepest
        self.depth += 1
        self.deepest = self.depth
        if self.depth > MAX_DEPTH:
            self.problems.stop(DOCUMENT_TOO_LARGE, node, TOO_DEEP, _READ_BY_CODE)
        if event.tag is not None:
            self.check_tag(event, node)
        if event.anchor is not None:
            self.anchored.pop(event.anchor, None)  # it may be redefined, and is unfinished now
            self.unfinished.append(event.anchor)
        self.count += 1
        return before

    def end(self, event: Any, node: ListNode | MapNode, before: tuple[int, int]) -> None:
        self.depth -= 1
        count, deepest = before
        if event.anchor is not None:
            self.unfinished.remove(event.anchor)
            anchored = _Anchored(node, self.count - count, self.deepest - self.depth)
            self.anchored[event.anchor] = anchored
        self.deepest = max(self.deepest, deepest)

    def read_alias(self, event: Any) -> Node:
        place = _place(event)
        if event.anchor not in self.anchored:
            is_inside = event.anchor in self.unfinished
            why = "is inside its own anchor" if is_inside else "has no anchor above it"
            return self.stand_in(event, f"the alias *{event.anchor} {why}")
        node, size, levels = self.anchored[event.anchor]
        self.count += size
        self.aliased += size
        self.deepest = max(self.deepest, self.depth + levels)
        if self.deepest > MAX_DEPTH:
            self.problems.stop(DOCUMENT_TOO_LARGE, place, TOO_DEEP, _READ_BY_CODE)
        if self.aliased > MAX_ALIASED_NODES:
            message = f"the aliases stand for more than {MAX_ALIASED_NODES:,} values"
            self.problems.stop(DOCUMENT_TOO_LARGE, place, message, "repeat less")
        return node

    def stand_in(self, event: Any, message: str) -> ScalarNode:
        """Note an alias without an anchor; return a replacement without further problems."""
        mark = event.start_mark
        node = ScalarNode(mark.line + 1, mark.column + 1, "", True, mark.index)
        self.problems.add(BAD_ALIAS, node, message, "write &NAME in front of a value further up")
        self.problems.silence(node)
        return node

    def check_tag(self, event: Any, node: Node) -> bool:
        is_known = event.tag in (None, "!") or event.tag in _KNOWN_TAGS
        if not is_known:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!", 1)
            message = f"the tag {tag} has no meaning here"
            hint = "remove it; values are plain data"
            if event.tag[:1] == "!" and event.tag[1:2].isalpha():
                hint = f"put text that begins with ! in quotes; in `if`, write not {event.tag[1:]}"
            self.problems.add(BAD_ALIAS, node, message, hint)
        return is_known

    def is_key(self, node: Node) -> TypeGuard[ScalarNode]:
        """Whether a node can be a key; note a problem if not."""
        if not isinstance(node, ScalarNode):
            hint = "put text that begins with { or [ in quotes"
            self.problems.add(WRONG_SHAPE, node, "a list or a map cannot be a key", hint)
        elif _is_merge(node):
            hint = "name all maps in one: <<: [*a, *b]"
            self.problems.add(KEY_TWICE, node, "the key '<<' appears here a second time", hint)
        elif node.is_plain and not node.text:
            self.problems.add(
                WRONG_SHAPE, node, "a key is missing in front of the ':'", "write NAME: value"
            )
        else:
            return True
        return False

    def enter(self, mapping: MapNode, key: ScalarNode, node: Node) -> None:
        if (first := mapping.key_by_key.get(key.text)) is not None:
            message = f"the key {key.text!r} appears here a second time"
            self.problems.add(KEY_TWICE, key, message, f"the first is in line {first.line}")
            self.problems.note_gap(KEY_TWICE, first)
            return
        mapping.enter(key, node)


_READERS: Mapping[type, Callable[[_Builder, Any], Node]] = {
    yaml.SequenceStartEvent: _Builder.read_list,
    yaml.MappingStartEvent: _Builder.read_map,
    yaml.AliasEvent: _Builder.read_alias,
}


class _Anchored(NamedTuple):
    """The node of an anchor, its number of nodes, and its levels."""

    node: Node
    size: int
    levels: int


class _Merge(NamedTuple):
    """A `<<` in a map: its key, its value, and the number of keys before it."""

    key: ScalarNode
    value: Node
    at: int


def _is_merge(key: Node) -> TypeGuard[ScalarNode]:
    return isinstance(key, ScalarNode) and key.is_plain and key.text == "<<"


def _merged_key(key: ScalarNode, line: int) -> ScalarNode:
    return replace(key, merged_at=line)


def _merged(node: Node, line: int) -> Node:
    """Return a deep copy of a node with the line of its `<<`.

    The nodes of aliases have been counted, so the size of copies is limited too.
    """
    if isinstance(node, ScalarNode):
        return _merged_key(node, line)
    if isinstance(node, ListNode):
        return replace(node, items=[_merged(each, line) for each in node.items], merged_at=line)
    return replace(
        node,
        node_by_key={name: _merged(each, line) for name, each in node.node_by_key.items()},
        key_by_key={name: _merged_key(key, line) for name, key in node.key_by_key.items()},
        merged_at=line,
    )


def _place(event: Any) -> Placed:
    return Position(event.start_mark.line + 1, event.start_mark.column + 1)


# The parser's messages, in words that help.


class Mark(Protocol):
    """A position of the parser. Units: `line` and `column` count from 0."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Complaint:
    """One syntax error in flowq's words."""

    position: Position
    message: str
    hint: str = ""


_QUOTE_EXPRESSION = 'put the value in quotes: "${{ … }}"'
_INDENT = (
    "check the indentation: the keys of one map, and the dashes of one list, are in one column"
)
_QUOTE_TEXT = 'put the whole text in quotes: "… ${{ … }} …"; within { } and [ ] it needs them'
_TEXT_IN_BRACKETS = re.compile(r"""[\[{:,]\s+[^\s'"\[\]{},][^,\[\]{}]*\$\{\{""")
_EXPRESSION_IN_BRACKETS = re.compile(r"""[\[{:,]\s*\$\{\{""")
_MAX_LINE = 2_000
"""The number of characters of a line that are examined."""

_TAB = "a tab in the indentation", "YAML is indented with spaces"
_WORDS_BY_PROBLEM = {
    "mapping values are not allowed in this context": (
        "a ':' where no key can be",
        'put text that holds ": " in quotes, and check the indentation',
    ),
    "could not find expected ':'": (
        "a key without its ':'",
        "write `key: value`; a text of several lines needs a | after its key",
    ),
    "found unexpected end of stream": (
        "a text is opened with a quote that is never closed",
        "close it, or double a quote that belongs to the text",
    ),
    "did not find expected ',' or ']'": (
        "a list is opened with [ and goes on without a ',' or a ']'",
        "separate its items with commas, and close it",
    ),
    "did not find expected ',' or '}'": (
        "a map is opened with { and goes on without a ',' or a '}'",
        "separate its entries with commas, and close it",
    ),
    "did not find expected '-' indicator": ("a list ends in the middle", _INDENT),
    "did not find expected key": ("a map ends in the middle", _INDENT),
    "found unknown escape character": (
        "a \\ in double quotes is followed by a character that it cannot escape",
        "write \\\\ for a backslash, or use single quotes",
    ),
    "did not find expected node content": ("a value is missing here", _INDENT),
    "block sequence entries are not allowed in this context": (
        "a '-' where no list can begin",
        "begin the list on a line of its own",
    ),
    "did not find expected alphabetic or numeric character": (
        "text cannot begin with '*' or '&'",
        "put the text in quotes",
    ),
    "found unknown directive name": ("text cannot begin with '%'", "put the text in quotes"),
    "found unexpected non-alphabetical character": (
        "text cannot begin with '%'",
        "put the text in quotes",
    ),
    "could not find expected directive name": (
        "text cannot begin with '%'",
        "put the text in quotes",
    ),
    "did not find expected comment or line break": (
        "text follows the | or > that begins a text of several lines",
        "begin the text in the next line, further to the right",
    ),
    "found a tab character that violates indentation": _TAB,
    "found a tab character where an indentation space is expected": _TAB,
    "found unexpected ':'": ("a ':' inside a text", "put the text in quotes"),
    "mapping keys are not allowed in this context": (
        "text cannot begin with '? '",
        "put the text in quotes",
    ),
    "found unexpected document indicator": (
        "a text is opened with a quote that is never closed",
        "close it, or double a quote that belongs to the text",
    ),
    "found an indentation indicator equal to 0": (
        "a 0 follows the | or > that begins a text of several lines",
        "remove it: the first line says how far the text is indented",
    ),
    **dict.fromkeys(
        (
            "did not find expected '!'",
            "did not find expected tag URI",
            "did not find expected whitespace or line break",
            "found undefined tag handle",
        ),
        ("text cannot begin with '!'", "put the text in quotes"),
    ),
    "did not find expected <document start>": (
        "there is more after the end of the document",
        _INDENT,
    ),
}


def explain(
    problem: str, context: str, mark: Mark | None, context_mark: Mark | None, text: str
) -> Complaint:
    """Return a parser's problem in flowq's words, at the most helpful position."""
    lines = text.split("\n")
    position = _choose(mark, context_mark, lines)
    line = lines[position.line - 1] if position.line <= len(lines) else ""
    if problem == "found character that cannot start any token":
        return _explain_character(position, line)
    before = line[: position.column - 1].rstrip()
    if problem == "did not find expected key" and before.endswith(("'", '"')):
        hint = "put all of it in quotes, and double the quotes inside it"
        return Complaint(position, "the line goes on after the closing quote", hint)
    told = f"this is not YAML: {problem}" + (f" ({context})" if context else "")
    message, hint = _WORDS_BY_PROBLEM.get(problem, (told, "put the text in quotes"))
    line = line[:_MAX_LINE]
    if ("opened" in message or "':'" in message) and _EXPRESSION_IN_BRACKETS.search(line):
        hint = _QUOTE_EXPRESSION
    elif "opened" in message and _TEXT_IN_BRACKETS.search(line):
        hint = _QUOTE_TEXT
    elif "opened" in message and context_mark and context_mark.line + 1 != position.line:
        hint += f"; it was opened in line {context_mark.line + 1}"
    return Complaint(position, message, hint)


def _choose(mark: Mark | None, context_mark: Mark | None, lines: list[str]) -> Position:
    """Return the position of the problem, or of its beginning if the text ends too early."""
    rest: Sequence[str] = ()
    if mark is not None and mark.line < len(lines):
        rest = (lines[mark.line][mark.column :], *lines[mark.line + 1 :])
    at_end = mark is not None and not any(each.strip() for each in rest)
    best = context_mark if at_end and context_mark is not None else mark
    if best is None:
        return Position(1, 1)
    line = max(1, min(best.line + 1, len(lines)))
    return Position(line, best.column + 1 if line == best.line + 1 else 1)


def _explain_character(position: Position, line: str) -> Complaint:
    character = line[position.column - 1 : position.column]
    if character == "\t":
        return Complaint(position, *_TAB)
    message = f"text cannot begin with {character!r}" if character else "something is missing here"
    return Complaint(position, message, "put the text in quotes")
