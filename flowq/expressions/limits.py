"""Limits of computation in expressions: counted, not timed, so they are the same everywhere.

Every operation pays for the values that it reads and makes. Expressions that are evaluated
together share one budget: those of a text, of a job, of a plan. With these figures the expressions
of one job take at most about 50 ms.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from flowq.expressions.refusals import Refused
from flowq.problems import EXPRESSION_TOO_LARGE

MAX_ITEMS = 100_000
MAX_CHARACTERS = 1_000_000
MAX_BITS = 4_096
"""Of a whole number that an operation makes: about 1,200 digits."""

MAX_UNITS = 400_000
UNITS_OF_A_JOB = 20_000
"""What each job adds to the budget of planning."""

_CHARACTERS_PER_UNIT = 32
_BITS_PER_CHARACTER = 8
_MAX_SMALL = 2**63
_SCALARS = frozenset({int, float, bool, type(None)})
_TEXTS = frozenset({str, bytes})
_COLLECTIONS = frozenset({list, tuple, dict, set, frozenset})


class Budget:
    """A budget. Units: one item, or 32 characters."""

    def __init__(self, units: int = MAX_UNITS) -> None:
        self._left = units

    def grant(self, units: int) -> None:
        """Add to the budget."""
        self._left += units

    def spend(self, *values: Any) -> None:
        """Pay for values that were read or made.

        Errors: Refused if one of them is too large, or the budget is exhausted.
        """
        for value in values:
            self.pay(*_measure(value))

    def pay(self, items: int, characters: int) -> None:
        """Pay for a value of that size. Errors: as `spend`."""
        check_size(items=items, characters=characters)
        self.take(1 + items + characters // _CHARACTERS_PER_UNIT)

    def take(self, units: int) -> None:
        """Pay a number of units. Errors: Refused if the budget is exhausted."""
        self._left -= units
        if self._left < 0:
            message = "it does too much, alone or with the other expressions of its text or job"
            raise Refused(EXPRESSION_TOO_LARGE, message, "do this in a job's function instead")


_shared: ContextVar[Budget | None] = ContextVar("_shared", default=None)


@contextmanager
def one_budget(budget: Budget | None = None) -> Iterator[Budget]:
    """Let all expressions that are evaluated in the block share one budget."""
    budget = budget or Budget()
    token = _shared.set(budget)
    try:
        yield budget
    finally:
        _shared.reset(token)


def current_budget() -> Budget:
    """Return the shared budget, or a new one."""
    return _shared.get() or Budget()


def check_size(*, items: int = 0, characters: int = 0, bits: int = 0) -> None:
    """Refuse a value that would become too large, before it is made."""
    if items > MAX_ITEMS:
        raise _too_large(f"more than {MAX_ITEMS:,} items")
    if characters > MAX_CHARACTERS:
        raise _too_large(f"more than {MAX_CHARACTERS:,} characters")
    if bits > MAX_BITS:
        raise _too_large(f"a number of more than {MAX_BITS:,} bits")


def _too_large(what: str) -> Refused:
    hint = "pass a result as it is, or do this in a job's function"
    return Refused(EXPRESSION_TOO_LARGE, f"it computes with {what}", hint)


def _measure(value: Any) -> tuple[int, int]:
    """Return the number of items and characters in a value; stops when the limit is reached.

    A shared part counts each time it is reached, because text made of it would repeat it.
    """
    items = characters = 0
    level: Collection[Any] = [value]
    while level and items <= MAX_ITEMS and characters <= MAX_CHARACTERS:
        kinds = set(map(type, level))
        texts, collections = _sort_out(level, kinds)
        characters += sum(map(len, texts))
        if int in kinds:  # large whole numbers count by their bits
            numbers = [part for part in level if type(part) is int]
            if max(numbers) >= _MAX_SMALL or min(numbers) <= -_MAX_SMALL:
                characters += sum(map(int.bit_length, numbers)) // _BITS_PER_CHARACTER
        items += sum(map(len, collections))
        level = list(_inside(collections)) if items <= MAX_ITEMS else ()
    return items, characters


def _sort_out(
    parts: Collection[Any], kinds: set[type]
) -> tuple[Iterable[str | bytes], Collection[Collection[Any]]]:
    # Most lists hold one type: this avoids testing each item.
    if kinds <= _SCALARS:
        return (), ()
    if kinds == {str}:
        return parts, ()
    # Exactly these types: `len` of a subclass could execute user code.
    texts = [part for part in parts if type(part) in _TEXTS]
    return texts, [part for part in parts if type(part) in _COLLECTIONS]


def _inside(collections: Iterable[Collection[Any]]) -> Iterator[Any]:
    for collection in collections:
        yield from collection
        if type(collection) is dict:
            yield from collection.values()
