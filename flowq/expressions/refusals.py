"""Why an expression is refused, and how a refusal reaches its caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowq.errors import Excerpt, Problem
from flowq.problems import BAD_VALUE

_QUOTED_LENGTH = 100


class Refused(Exception):
    """An expression, or a part of one, cannot be read or has no value."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(code, message, hint)
        self.code = code
        self.message = message
        self.hint = hint
        self.source = ""
        self.names: tuple[str, ...] = ()

    def about(self, *names: str) -> Refused:
        """Set the names in the expression that this is about, unless set; return self."""
        self.names = self.names or names
        return self

    def inside(self, source: str) -> Refused:
        """Set the expression that contains this, unless set; return self."""
        self.source = self.source or source
        return self

    def as_problem(self, source: str) -> Problem:
        """Return the problem, which quotes the expression, or `source` if none was set."""
        expression = self.source or source
        text = " ".join(expression.split())
        quoted = text if len(text) <= _QUOTED_LENGTH else text[: _QUOTED_LENGTH - 1] + "…"
        message = f"`{quoted}`: {self.message}"
        return Problem(self.code, message, hint=self.hint, excerpt=Excerpt(expression, self.names))


class Missing(Refused):
    """A value does not exist: `default(…)` and `is defined` catch it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(BAD_VALUE, message, hint)


@dataclass(frozen=True, slots=True)
class NoResult:
    """The result of an item that did not succeed; reading it is refused, with `reason`."""

    reason: str


def refuse_no_result(value: Any) -> None:
    """Refuse a value that contains a `NoResult`, in lists or maps. Errors: Missing."""
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
