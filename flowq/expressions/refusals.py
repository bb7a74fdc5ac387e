"""Why an expression is refused, and how a refusal reaches its caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowq.errors import Excerpt, Problem
from flowq.problems import BAD_VALUE

_QUOTED_LENGTH = 100


class Refused(Exception):
    """An expression, or a part of it, that cannot be read or has no value."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(code, message, hint)
        self.code = code
        self.message = message
        self.hint = hint
        self.source = ""
        self.names: tuple[str, ...] = ()

    def about(self, *names: str) -> Refused:
        """Remember the names in the expression that this is about; return itself."""
        self.names = self.names or names
        return self

    def inside(self, source: str) -> Refused:
        """Remember the expression whose part this is; return itself."""
        self.source = self.source or source
        return self

    def as_problem(self, source: str) -> Problem:
        """Return the problem, with the expression that has it, or else `source`, quoted."""
        expression = self.source or source
        message = f"`{_quote(expression)}`: {self.message}"
        return Problem(self.code, message, hint=self.hint, excerpt=Excerpt(expression, self.names))


def _quote(source: str) -> str:
    text = " ".join(source.split())
    return text if len(text) <= _QUOTED_LENGTH else text[: _QUOTED_LENGTH - 1] + "…"


class Missing(Refused):
    """A value that is not there: `default(…)` and `is defined` catch it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(BAD_VALUE, message, hint)


@dataclass(frozen=True, slots=True)
class NoResult:
    """The result of an item that did not succeed: to read it is refused, with `reason`."""

    reason: str


def refuse_no_result(value: Any) -> None:
    """Refuse a value that has such a result in it, in lists or maps. Errors: Missing."""
    waiting: list[Any] = [value]
    while waiting:
        part = waiting.pop()
        kind = type(part)
        if kind is NoResult:
            raise Missing(part.reason)
        if kind is list or kind is tuple:
            waiting += reversed(part)
        elif kind is dict:
            waiting += reversed(list(part.values()))
