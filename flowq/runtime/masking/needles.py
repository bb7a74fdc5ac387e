"""Searches a text or bytes for many needles at once, in one pass."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import AnyStr, Generic

PREFIX = 4
"""The minimum length of needles, and the length of the prefix by which they are first searched, in
characters or bytes."""

MIN_CUT = 8
"""A beginning of a needle of this length counts as a cut needle if a word ends after it."""

SURE_CUT = 16
"""A beginning of this length always counts as a cut needle."""

FEW = 4


class Needles(Generic[AnyStr]):
    """The texts to search for. Of several at one position, the longest is found."""

    def __init__(self, needles: Iterable[AnyStr]) -> None:
        self._by_prefix: dict[AnyStr, list[AnyStr]] = {}
        for needle in sorted(set(needles), key=len, reverse=True):
            if len(needle) >= PREFIX:
                self._by_prefix.setdefault(needle[:PREFIX], []).append(needle)
        self._prefixes: list[AnyStr] = list(self._by_prefix)
        self._firsts: set[AnyStr] = {prefix[:1] for prefix in self._prefixes}
        self.longest = max((len(group[0]) for group in self._by_prefix.values()), default=0)
        # A pattern of the prefixes: compiling whole needles would take longer than most searches.
        self._pattern: re.Pattern[AnyStr] | None = None
        if self._prefixes:
            self._pattern = re.compile(_as_pattern(self._prefixes))

    def find(self, data: AnyStr, *, allow_cut: bool = False) -> Iterator[tuple[int, int]]:
        """Yield the start and end of each needle, in order, without overlaps.

        With `allow_cut`, also those of needles that were cut (MIN_CUT).
        """
        at = 0
        while self._pattern is not None and (found := self._pattern.search(data, at)):
            first = found.start()
            length = self._measure(data, first, found.group(), allow_cut)
            if length:
                yield first, first + length
            at = first + (length or 1)

    def _measure(self, data: AnyStr, first: int, prefix: AnyStr, allow_cut: bool) -> int:
        """Return the length of the needle at this position; 0 for none."""
        group = self._by_prefix[prefix]
        for needle in group:
            if data.startswith(needle, first):
                return len(needle)
        if not allow_cut:
            return 0
        length = max(_count_same(needle, data, first) for needle in group)
        follows = data[first + length : first + length + 1]
        is_cut = length >= MIN_CUT and not follows.isalnum()
        return length if is_cut or length >= SURE_CUT else 0

    def find_begun(self, data: AnyStr, start: int) -> int | None:
        """Return the start of a needle that continues after the end of the data, or None."""
        for at in range(max(start, len(data) - self.longest + 1), len(data)):
            if data[at : at + 1] in self._firsts and self._is_begun(data[at:]):
                return at
        return None

    def _is_begun(self, rest: AnyStr) -> bool:
        if len(rest) < PREFIX:
            return any(prefix.startswith(rest) for prefix in self._prefixes)
        group = self._by_prefix.get(rest[:PREFIX], ())
        return any(len(needle) > len(rest) and needle.startswith(rest) for needle in group)


def _count_same(needle: AnyStr, data: AnyStr, first: int) -> int:
    """Return how much of the needle's beginning is at this position."""
    low, high = PREFIX, len(needle)
    while low < high:
        middle = (low + high + 1) // 2
        if data.startswith(needle[:middle], first):
            low = middle
        else:
            high = middle - 1
    return low


def _as_pattern(texts: list[AnyStr]) -> AnyStr:
    """Return a pattern for any of these texts: a tree, so that few are tried at each position."""
    empty = texts[0][:0]
    bar, opening, closing = (b"|", b"(?:", b")") if isinstance(empty, bytes) else ("|", "(?:", ")")
    if len(texts) <= FEW or len(texts[0]) == 1:
        return bar.join(map(re.escape, texts))
    by_first: dict[AnyStr, list[AnyStr]] = {}
    for text in texts:
        by_first.setdefault(text[:1], []).append(text[1:])
    branches = (
        re.escape(first) + opening + _as_pattern(rests) + closing
        for first, rests in by_first.items()
    )
    return bar.join(branches)
