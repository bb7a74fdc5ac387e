"""Reports of progress: `Progress`, how it is checked, and its form as text.

Children write reports, supervisors and readers read them; all three load this module, so it must
stay light. `flowq/runtime/progress.py` says how reports get to a server.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from json.encoder import encode_basestring as _quote
from typing import Any

from flowq.errors import UsageError
from flowq.texts import show

MAX_MESSAGE = 200
"""How many characters of a message are kept."""

_MAX_READ = 10 * MAX_MESSAGE
"""How many characters are looked at: secrets are hidden before a message is cut."""

MAX_NUMBER = 10**15

MAX_BYTES = 2_048
"""The most that a report takes as text."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job says that it has come: `done` of `total`, which may be unknown (None)."""

    done: float
    total: float | None = None
    message: str = ""


def check_progress(done: Any, total: Any, message: Any) -> Progress:
    """Return the report that a job makes. Errors: UsageError."""
    if not isinstance(message, str):
        raise UsageError(f"progress: message must be a text, not {message!r:.60}")
    known = None if total is None else _read_number("total", total)
    if known == 0:
        raise UsageError("progress: total is 0; leave it out if there is nothing to do")
    return Progress(_read_number("done", done), known, show(message[:_MAX_READ]))


def _read_number(name: str, value: Any) -> float:
    try:
        number = float(value) if isinstance(value, float) else operator.index(value)
    except TypeError:
        number = math.nan
    if isinstance(value, bool) or not 0 <= number <= MAX_NUMBER:
        shown = "a huge number" if number > MAX_NUMBER else f"{value!r:.60}"
        raise UsageError(f"progress: {name} is a number from 0 to 10**15, not {shown}")
    return number


def write_progress(progress: Progress, hide: Callable[[str], str]) -> str:
    """Return a report as text, of at most `MAX_BYTES`, without the secrets in its message."""
    message = hide(progress.message)
    if len(message) > MAX_MESSAGE:
        message = message[: MAX_MESSAGE - 1] + "…"
    # By hand: user code may report in its innermost loop, and json.dumps takes thrice as long.
    total = "null" if progress.total is None else repr(progress.total)
    return f'{{"done":{progress.done!r},"total":{total},"message":{_quote(message)}}}'


def read_progress(text: str) -> Progress | None:
    """Return the report in a text, which user code may have written; None for any other text."""
    try:
        said = json.loads(text)
        progress = Progress(said["done"], said["total"], said["message"])
        numbers = [progress.done, 1 if progress.total is None else progress.total]
        is_fit = all(type(each) in (int, float) and 0 <= each <= MAX_NUMBER for each in numbers)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    is_fit = is_fit and numbers[1] > 0 and isinstance(progress.message, str)
    return progress if is_fit and len(progress.message) <= MAX_MESSAGE else None
