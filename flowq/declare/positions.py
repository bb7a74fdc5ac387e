"""The position of each part of a document, looked up in its tree when a problem needs it.

`Workflow.places` has it. Positions inside texts, such as that of an expression in a command, are
found by reading the text again as YAML does.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any

from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode
from flowq.declare.problems import Placed, where_of
from flowq.errors import Excerpt, Where
from flowq.expressions.templates import find_places
from flowq.spec import Path


@dataclass(frozen=True, slots=True)
class Positions(Mapping[Path, Where]):
    """The positions of a document by path.

    The position of a value is its beginning if that is on the line of its key, otherwise the key.
    `include` and `exclude` may stand inside their matrix. Most positions are never needed, so
    nothing is computed in advance.
    """

    file: str
    root: MapNode
    text: str = field(repr=False)

    def __getitem__(self, path: Path) -> Where:
        where: Where | None = self.get(path)
        if where is None:
            raise KeyError(path)
        return where

    def get(self, path: Path, default: Any = None) -> Any:
        """Return the position of a path, without the cost of an exception if it has none."""
        place, node = self._find(path)
        return default if node is None else where_of(place, self.file)

    def find_places(self, path: Path, excerpt: Excerpt) -> list[Where]:
        """Return every position of a part of the text at `path`."""
        _, node = self._find(path)
        if not isinstance(node, ScalarNode):
            return []
        places = find_places(node.text, excerpt)
        offsets = find_offsets(self.text, node.start, node.text) if places else None
        return [self._within(node, offsets[place]) for place in places] if offsets else []

    def _within(self, node: ScalarNode, index: int) -> Where:
        """Return the position of a character; lines are counted from the node, as in the parser."""
        lines, line_start = count_lines(self.text, node.start, index)
        column = index - line_start + 1 if lines else node.column + index - node.start
        return replace(where_of(node, self.file), line=node.line + lines, column=column)

    def _find(self, path: Path) -> tuple[Placed, Node | None]:
        if path[:1] == ("jobs",) and len(path) > 1:  # jobs under `finally` have this path too
            jobs, final = map(self.root.node_by_key.get, ("jobs", "finally"))
            is_listed = isinstance(jobs, MapNode) and path[1] in jobs.node_by_key
            if isinstance(final, MapNode) and path[1] in final.node_by_key and not is_listed:
                path = ("finally", *path[1:])
        place, node = _step_in(self.root, path)
        if node is None and path[2:3] in (("include",), ("exclude",)):
            return _step_in(self.root, (*path[:2], "matrix", *path[2:]))
        return place, node

    def __iter__(self) -> Iterator[Path]:
        return _paths((), self.root)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _step_in(root: Node, path: Path) -> tuple[Placed, Node | None]:
    place: Placed = root
    node: Node | None = root
    for part in path:
        if isinstance(node, MapNode) and part in node.node_by_key:
            key = node.key_by_key[str(part)]
            node = node.node_by_key[str(part)]
            place = node if node.line == key.line else key
        elif isinstance(node, ListNode) and isinstance(part, int) and 0 <= part < len(node.items):
            place = node = node.items[part]
        else:
            return place, None
    return place, node


def _paths(path: Path, node: Node) -> Iterator[Path]:
    yield path
    if isinstance(node, MapNode):
        for key, inner in node.node_by_key.items():
            yield from _paths((*path, key), inner)
    elif isinstance(node, ListNode):
        for index, inner in enumerate(node.items):
            yield from _paths((*path, index), inner)


# From a character of a scalar's value to its character in the file.


Pairs = Iterator[tuple[str, int]]
"""The characters of a value, each with its index in the file."""

_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_BREAKS = "\r\n\x85\u2028\u2029"
_PROPERTIES = re.compile(r"(?:[&!]\S*(?:\s+|\s+#[^\r\n]*))*")
_HEADER = re.compile(r"[|>][+-]?([1-9]?)[+-]?[ \t]*(?:#[^\r\n]*)?")
_FOLD = re.compile(f"(?:(?<![ \t])|(?<=\\\\[ \t]))[ \t]*((?:(?:\r\n|[{_BREAKS}])[ \t]*)+)")
_ESCAPED = {
    "0": "\0",
    "a": "\a",
    "b": "\b",
    "t": "\t",
    "\t": "\t",
    "n": "\n",
    "v": "\v",
    "f": "\f",
    "r": "\r",
    "e": "\x1b",
    " ": " ",
    '"': '"',
    "/": "/",
    "\\": "\\",
    "N": "\x85",
    "_": "\xa0",
    "L": "\u2028",
    "P": "\u2029",
}
_LENGTH_BY_ESCAPE = {"x": 2, "u": 4, "U": 8}


@lru_cache(maxsize=16)  # a long text with many problems is read once
def find_offsets(text: str, start: int, value: str) -> Sequence[int] | None:
    """Return the index in `text` of each character of the scalar `value` that begins at `start`.

    Shape: as long as the value; None if the text cannot be read as this value.
    """
    found = _PROPERTIES.match(text, start)
    first = found.end() if found else start
    for pairs in _readings(text, first):
        taken = list(islice(pairs, len(value)))
        if "".join(character for character, _ in taken) == value:
            return [index for _, index in taken]
    return None


def count_lines(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the number of line breaks between two places, and the start of the last line."""
    starts = _line_starts(text)
    last = bisect_right(starts, end)
    return last - bisect_right(starts, start), starts[last - 1]


@lru_cache(maxsize=4)
def _line_starts(text: str) -> Sequence[int]:
    return [0, *(found.end() for found in _BREAK.finditer(text))]


def _readings(text: str, first: int) -> Iterator[Pairs]:
    """Yield the ways to read a scalar: several only for blocks with an indentation indicator."""
    style = text[first : first + 1]
    if style == '"':
        yield _read_double_quoted(text, first + 1)
    elif style == "'":
        yield _read_flowing(text, first + 1, quoted=True)
    elif style and style in "|>":
        yield from _block_readings(text, first, is_folded=style == ">")
    else:
        yield _read_flowing(text, first, quoted=False)


def _read_flowing(text: str, at: int, *, quoted: bool) -> Pairs:
    while at < len(text):
        if fold := _FOLD.match(text, at):
            yield from _folded(fold)
            at = fold.end()
            continue
        yield text[at], at
        at += 2 if quoted and text.startswith("''", at) else 1


def _folded(fold: re.Match[str]) -> Pairs:
    """Yield folded line breaks: the first is a space, each further one a line break."""
    breaks = list(_BREAK.finditer(fold.string, fold.start(1), fold.end(1)))
    first = _normal(breaks[0].group())
    if first != "\n":
        yield first, breaks[0].start()
    elif len(breaks) == 1:
        yield " ", breaks[0].start()
    for each in breaks[1:]:
        yield _normal(each.group()), each.start()


def _normal(line_break: str) -> str:
    return line_break if line_break in "\u2028\u2029" else "\n"


def _read_double_quoted(text: str, at: int) -> Pairs:
    while at < len(text):
        if text[at] == "\\":
            at = yield from _escape(text, at)
        elif fold := _FOLD.match(text, at):
            yield from _folded(fold)
            at = fold.end()
        else:
            yield text[at], at
            at += 1


def _escape(text: str, at: int) -> Generator[tuple[str, int], None, int]:
    """Yield the character of an escape, and return where the escape ends."""
    letter = text[at + 1 : at + 2]
    if fold := _FOLD.match(text, at + 1) if letter in _BREAKS else None:
        for each in list(_BREAK.finditer(text, fold.start(1), fold.end(1)))[1:]:
            yield _normal(each.group()), each.start()
        return fold.end()
    if length := _LENGTH_BY_ESCAPE.get(letter):
        yield chr(int(text[at + 2 : at + 2 + length], 16)), at
        return at + 2 + length
    yield _ESCAPED.get(letter, letter), at
    return at + 2


def _block_readings(text: str, start: int, *, is_folded: bool) -> Iterator[Pairs]:
    header = _HEADER.match(text, start)
    begin = _BREAK.match(text, header.end()) if header else None
    if header is None or begin is None:
        return
    first = begin.end()
    if not header.group(1):
        yield _read_block(text, first, _find_indent(text, first), is_folded)
        return
    # An indentation indicator counts from the parent's indentation, which is not known here.
    for indent in range(int(header.group(1)), int(header.group(1)) + _find_indent(text, first) + 1):
        yield _read_block(text, first, indent, is_folded)


def _find_indent(text: str, first: int) -> int:
    """Return the indentation of the first line that is not empty."""
    found = re.compile(f"(?: *(?:\r\n|[{_BREAKS}]))*( *)").match(text, first)
    return len(found.group(1)) if found else 0


def _read_block(text: str, first: int, indent: int, is_folded: bool) -> Pairs:
    lines = _lines(text, first, indent)
    line = next(lines, None)
    while line is not None:
        begin, end, line_break = line
        yield from ((text[index], index) for index in range(begin, end))
        line = next(lines, None)
        empty: list[tuple[int, str]] = []
        while line is not None and line[0] == line[1]:
            empty.append((line[1], line[2]))
            line = next(lines, None)
        can_fold = is_folded and begin < end and line is not None and line_break == "\n"
        if not can_fold or {text[begin], text[line[0] if line else begin]} & {" ", "\t"}:
            yield line_break, end
        elif not empty:
            yield " ", end
        yield from ((each, index) for index, each in empty)


def _lines(text: str, first: int, indent: int) -> Iterator[tuple[int, int, str]]:
    """Yield the start and the end of each line's content, and its line break."""
    while first < len(text):
        found = _BREAK.search(text, first)
        end, after = (found.start(), found.end()) if found else (len(text), len(text))
        spaces = len(text[first:end]) - len(text[first:end].lstrip(" "))
        if spaces < indent and first + spaces < end:
            return
        yield min(first + indent, end), end, _normal(found.group()) if found else "\n"
        first = after
