"""What the YAML parser complains about, said so that one knows what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol


class Mark(Protocol):
    """A position as the parser has it. Units: `line` and `column` count from 0."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Position:
    """A position as people have it. Units: `line` and `column` count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Complaint:
    """One syntax error in our words."""

    position: Position
    message: str
    hint: str = ""


_QUOTE_EXPRESSION = 'put the value in quotes: "${{ … }}"'
_INDENT = (
    "check the indentation: the keys of one map, and the dashes of one list, stand in a column"
)
_QUOTE_TEXT = 'put the whole text in quotes: "… ${{ … }} …"; within { } and [ ] it needs them'
_TEXT_IN_BRACKETS = re.compile(r"""[\[{:,]\s+[^\s'"\[\]{},][^,\[\]{}]*\$\{\{""")
_EXPRESSION_IN_BRACKETS = re.compile(r"""[\[{:,]\s*\$\{\{""")
_MAX_LINE = 2_000
"""Characters of a line that are looked at."""

_WORDS_BY_PROBLEM = {
    "mapping values are not allowed in this context": (
        "a ':' stands where no key can be",
        'put text that holds ": " in quotes, and check the indentation',
    ),
    "could not find expected ':'": (
        "a key without its ':'",
        "write `key: value`; a text of several lines needs a | behind its key",
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
        "a \\ in double quotes is followed by a character that means nothing",
        "write \\\\ for a backslash, or use single quotes",
    ),
    "did not find expected node content": ("a value is missing here", _INDENT),
    "block sequence entries are not allowed in this context": (
        "a '-' stands where no list can begin",
        "begin the list on a line of its own",
    ),
    "did not find expected alphabetic or numeric character": (
        "text cannot begin with '*' or '&'",
        "put the text in quotes",
    ),
    "found unknown directive name": ("text cannot begin with '%'", "put the text in quotes"),
    "did not find expected <document start>": (
        "there is more after the end of the document",
        _INDENT,
    ),
}


def explain(
    problem: str, context: str, mark: Mark | None, context_mark: Mark | None, text: str
) -> Complaint:
    """Return a parser's problem in our words, at the position that helps most."""
    lines = text.split("\n")
    position = _choose(mark, context_mark, lines)
    line = lines[position.line - 1] if position.line <= len(lines) else ""
    if problem == "found character that cannot start any token":
        return _explain_character(position, line)
    message, hint = _WORDS_BY_PROBLEM.get(problem, (_joined(context, problem), ""))
    line = line[:_MAX_LINE]
    if _EXPRESSION_IN_BRACKETS.search(line):
        hint = _QUOTE_EXPRESSION
    elif "opened" in message and _TEXT_IN_BRACKETS.search(line):
        hint = _QUOTE_TEXT
    elif "opened" in message and context_mark and context_mark.line + 1 != position.line:
        hint += f"; it was opened in line {context_mark.line + 1}"
    return Complaint(position, message, hint)


def _choose(mark: Mark | None, context_mark: Mark | None, lines: list[str]) -> Position:
    """Return the place of the problem, or where its beginning is when the text ended too early."""
    at_end = mark is not None and not any(rest.strip() for rest in _rest(mark, lines))
    best = context_mark if at_end and context_mark is not None else mark
    if best is None:
        return Position(1, 1)
    line = max(1, min(best.line + 1, len(lines)))
    return Position(line, best.column + 1 if line == best.line + 1 else 1)


def _rest(mark: Mark, lines: list[str]) -> list[str]:
    here = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
    return [here, *lines[mark.line + 1 :]]


def _explain_character(position: Position, line: str) -> Complaint:
    character = line[position.column - 1 : position.column]
    if character == "\t":
        return Complaint(position, "a tab in the indentation", "YAML is indented with spaces")
    message = f"text cannot begin with {character!r}" if character else "something is missing here"
    return Complaint(position, message, "put the text in quotes")


def _joined(context: str, problem: str) -> str:
    return f"this is no YAML: {problem}" + (f" ({context})" if context else "")
