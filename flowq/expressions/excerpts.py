"""Where in a text the part stands that a problem is about."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from flowq.errors import Excerpt
from flowq.expressions.templates import MAX_LENGTH, as_template, find_expressions, tidy

_STRING = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Contents:
    """The expressions of a text: where each begins, what is written there, where each spelling is.

    Shape: `numbers_by_spelling` has each expression as it is written, tidy, and with braces.
    """

    starts: list[int] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    numbers_by_spelling: dict[str, list[int]] = field(default_factory=dict)


def find_places(text: str, excerpt: Excerpt) -> Sequence[int]:
    """Return where in a text the part begins, each time that it stands there; perhaps nowhere."""
    contents = _look_into(text)
    numbers: Sequence[int] = range(len(contents.starts))
    if excerpt.expression:
        numbers = contents.numbers_by_spelling.get(excerpt.expression, ())
    if excerpt.number is not None:
        numbers = (excerpt.number,)
    places = [*_find_names(text, contents, excerpt.names)] if excerpt.names else []
    found = [place for number, place in places if number in numbers]
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
    """Yield each place of the names, with the number of the expression that it stands in."""
    pattern = _pattern(names)
    for number in _holding(text, contents, names[-1]):
        start, written = contents.starts[number], contents.written[number]
        strings = [found.span() for found in _STRING.finditer(written[:MAX_LENGTH])]
        for found in pattern.finditer(written):
            if not any(begin < found.start() < end for begin, end in strings):
                yield number, start + found.start()


def _holding(text: str, contents: _Contents, name: str) -> Iterator[int]:
    """Yield the expressions that hold a name, perhaps as a part of another word."""
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
