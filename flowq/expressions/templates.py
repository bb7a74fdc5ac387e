"""Splitting texts with `${{ … }}`, and joining them.

`$${{` stands for a literal `${{`; each further dollar stands for itself. So any text can be
written, and `escape` can protect data.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from flowq.errors import Excerpt
from flowq.expressions.limits import Budget
from flowq.expressions.refusals import Refused
from flowq.problems import BAD_EXPRESSION

MAX_LENGTH = 4_000
"""Characters of one expression."""

_OPENING = re.compile(r"(?<!\$)(\$+)\{\{")  # tried once for each run of dollars
_LIVE = re.compile(r"(?<!\$)\$\{\{")
_UNTIDY = re.compile(r"\$\{\{(?! [^\s{}$'\"](?:[^{}$'\"]*[^\s{}$'\"])? \}\})")
_PLAIN = re.compile(rf"\$\{{\{{([^{{}}$'\"]{{0,{MAX_LENGTH - 1}}})\}}\}}")
"""An expression without strings and braces, so that it ends at the first `}}`."""

_QUOTE_OR_BRACE = re.compile(r"""['"{}]""")
_STRING_BY_QUOTE = {
    "'": re.compile(r"'(?:\\.|[^'\\])*'", re.DOTALL),
    '"': re.compile(r'"(?:\\.|[^"\\])*"', re.DOTALL),
}


@dataclass(frozen=True, slots=True)
class Expression:
    """One `${{ … }}`. Shape: `source` is the text between the braces, without outer spaces."""

    source: str

    def __str__(self) -> str:
        return f"${{{{ {self.source} }}}}"


def has_expression(text: str) -> bool:
    """Whether a text contains `${{`: a quick test, which includes escapes."""
    return "${{" in text


def has_live_expression(text: str) -> bool:
    """Whether a text contains an expression; escapes do not count."""
    return _LIVE.search(text) is not None


def split(text: str) -> tuple[str | Expression, ...]:
    """Return the literal and the live parts of a text, in order; the literals are unescaped.

    Errors: Refused for an expression that is not closed.
    """
    pieces = _PLAIN.split(text)  # literals and, between them, sources
    if text.count("${{") != len(pieces) // 2 or "$${{" in text:
        return _split_carefully(text)
    parts: list[str | Expression] = []
    for at, piece in enumerate(pieces):
        if at % 2:
            parts.append(Expression(piece.strip()))
        elif piece:
            parts.append(piece)
    return tuple(parts) or ("",)


def find_expressions(text: str) -> Iterator[tuple[int, str]]:
    """Yield the start of each expression in a text, and its text with the braces.

    An expression that is never closed extends to the next one, or to the end. A text without
    expressions is one expression as a whole.
    """
    position = 0
    while opening := _OPENING.search(text, position):
        position = opening.end()
        if len(opening.group(1)) > 1:
            continue
        try:
            end = _find_end(text, position) + 2
        except Refused as refused:
            end = opening.start() + len(refused.source)
        yield opening.start(), text[opening.start() : end]
        position = end
    if not has_expression(text):
        yield len(text) - len(text.lstrip()), text.strip()


def _split_carefully(text: str) -> tuple[str | Expression, ...]:
    parts: list[str | Expression] = []
    literal, position = "", 0
    while opening := _OPENING.search(text, position):
        literal += text[position : opening.start()]
        dollars, position = opening.group(1), opening.end()
        if len(dollars) > 1:
            literal += dollars[1:] + "{{"
            continue
        end = _find_end(text, position)
        parts += [literal, Expression(text[position:end].strip())]
        literal, position = "", end + 2
    parts.append(literal + text[position:])
    return tuple(part for part in parts if part != "") or ("",)


def _find_end(text: str, start: int) -> int:
    """Return the position of the `}}` of an expression, skipping strings and inner braces."""
    depth, at, end = 0, start, start + MAX_LENGTH
    unclosed: set[str] = set()  # if one quote is never closed, later ones of its kind are not
    while found := _QUOTE_OR_BRACE.search(text, at, end):
        sign, at = found.group(), found.end()
        if sign in _STRING_BY_QUOTE:
            pattern = _STRING_BY_QUOTE[sign]
            string = None if sign in unclosed else pattern.match(text, found.start(), end)
            if string is None:
                unclosed.add(sign)
            else:
                at = string.end()
        elif sign == "{":
            if text.startswith("${{", found.start() - 1):
                raise _unclosed(text[start : found.start() - 1])
            depth += 1
        elif depth:
            depth -= 1
        elif text.startswith("}}", found.start()):
            return found.start()
    raise _unclosed(text[start:])


def _unclosed(rest: str) -> Refused:
    message, hint = "the ${{ is never closed", "close it with }}, or write $${{ for a literal ${{"
    if len(rest) > MAX_LENGTH:
        message = f"it has no }}}} within {MAX_LENGTH:,} characters"
        hint = f"{hint}; do longer computations in a function"
    return Refused(BAD_EXPRESSION, message, hint).inside("${{" + rest)


def as_template(source: str) -> str:
    """Return the template of an expression that is declared without braces."""
    return f"${{{{ {source} }}}}"


def tidy(text: str) -> str:
    """Return a template with uniform spaces: `${{x}}` becomes `${{ x }}`.

    A template that cannot be read is returned unchanged.
    """
    if _UNTIDY.search(text) is None:
        return text
    try:
        parts = split(text)
    except Refused:
        return text
    return "".join(escape(part) if isinstance(part, str) else str(part) for part in parts)


def as_source(text: str) -> str:
    """Return the source of a text that is one expression; its braces are optional."""
    stripped = text.strip()
    if not has_expression(stripped):
        return stripped
    try:
        parts = split(stripped)
    except Refused:
        return stripped
    only = parts[0]
    return only.source if len(parts) == 1 and isinstance(only, Expression) else stripped


def escape(value: Any) -> Any:
    """Return the template whose value is exactly this plain data."""
    if isinstance(value, str):
        return _OPENING.sub(r"$\g<0>", value) if "${{" in value else value
    if isinstance(value, dict):
        return {key: escape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [escape(item) for item in value]
    return value


def to_text(value: Any, budget: Budget) -> str:
    """Return a value as part of a text: text unchanged, other plain data as JSON.

    Errors: Refused for a value that is not data, or too large.
    """
    if type(value) is str:
        return value
    # Not at the top: importing it takes a child some time.
    from flowq.expressions.plain import as_text  # noqa: PLC0415

    budget.spend(value)
    text = as_text(value)
    budget.pay(0, len(text))
    return text


_STRING = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Contents:
    """The expressions of a text: their starts, their texts, and their numbers by spelling.

    Shape: `numbers_by_spelling` has each expression as written, tidy, and with braces.
    """

    starts: list[int] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    numbers_by_spelling: dict[str, list[int]] = field(default_factory=dict)


def find_places(text: str, excerpt: Excerpt) -> Sequence[int]:
    """Return the positions of a part of a text: at most one in each expression; may be empty."""
    contents = _look_into(text)
    numbers: Sequence[int] = range(len(contents.starts))
    if excerpt.expression:
        numbers = contents.numbers_by_spelling.get(excerpt.expression, ())
    if excerpt.number is not None:
        numbers = (excerpt.number,)
    places = [*_find_names(text, contents, excerpt.names)] if excerpt.names else []
    place_by_number: dict[int, int] = {}  # a name that occurs twice in an expression counts once
    for number, place in places:
        place_by_number.setdefault(number, place)
    found = [place for number, place in place_by_number.items() if number in numbers]
    if not found and (len(numbers) == 1 or not excerpt.names):
        return [contents.starts[number] for number in numbers]
    return found


@lru_cache(maxsize=16)  # a long text with many problems is taken apart once
def _look_into(text: str) -> _Contents:
    contents = _Contents()
    for number, (start, written) in enumerate(find_expressions(text)):
        contents.starts.append(start)
        contents.written.append(written)
        for spelling in {written, tidy(written), as_template(written)}:
            contents.numbers_by_spelling.setdefault(spelling, []).append(number)
    return contents


def _find_names(
    text: str, contents: _Contents, names: tuple[str, ...]
) -> Iterator[tuple[int, int]]:
    """Yield each position of the names, with the number of its expression."""
    pattern = _pattern(names)
    for number in _holding(text, contents, names[-1]):
        start, written = contents.starts[number], contents.written[number]
        strings = [found.span() for found in _STRING.finditer(written[:MAX_LENGTH])]
        for found in pattern.finditer(written):
            if not any(begin < found.start() < end for begin, end in strings):
                yield number, start + found.start()


def _holding(text: str, contents: _Contents, name: str) -> Iterator[int]:
    """Yield the expressions that contain a name, possibly as part of another word."""
    last, at = -1, text.find(name)
    while at >= 0:
        number = bisect_right(contents.starts, at) - 1
        if number > last and at < contents.starts[number] + len(contents.written[number]):
            yield (last := number)
        at = text.find(name, at + 1)


def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    first, *others = map(re.escape, names)
    steps = (rf"\s*(?:\.\s*{each}(?!\w)|\[\s*(?:'{each}'|\"{each}\")\s*\])" for each in others)
    return re.compile(rf"(?<!\w){first}(?!\w){''.join(steps)}")
