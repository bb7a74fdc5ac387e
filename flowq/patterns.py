"""Regular expressions of users, matched by RE2 in time that grows linearly with the text.

Callers: inputs with a `pattern`, and the function `matches` of expressions. The syntax is RE2's
(https://github.com/google/re2/wiki/Syntax): `\\w`, `\\d` and `\\s` are ASCII, and there are no
backreferences and no lookaround, which need backtracking. Where RE2 has no wheel, Python's `re`
matches in a process that is killed after `LIMIT_S`.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from functools import lru_cache
from typing import Any

MAX_LENGTH = 1_000
"""Characters of a pattern."""

MAX_STEPS = 200_000_000
"""Characters of a text times instructions of its pattern: less than a second."""

LIMIT_S = 2.0
"""How long one match may take without RE2."""

_MAX_MEMORY_BYTES = 8 << 20  # RE2's own default; repeats that do not fit are refused
_SURROGATES = re.compile("[\ud800-\udfff]")


class PatternRefused(ValueError):
    """A pattern that cannot be used. `hint` says what to do, or is ""."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


def check_pattern(pattern: str) -> None:
    """Check that a pattern can be used. Errors: PatternRefused."""
    _compile(pattern)


def count_steps(pattern: str, text: str) -> int:
    """Return the maximum number of steps of a match. Errors: PatternRefused."""
    program = _compile(pattern)
    size = len(pattern) if program is None else program.programsize
    return int(size) * (len(text) + 1)


def is_match(pattern: str, text: str) -> bool:
    """Return whether the whole text matches.

    A byte that is not UTF-8 (a surrogate in a Python text) counts as one character, U+FFFD.
    Errors: PatternRefused, also if the text is too long for this pattern.
    """
    program = _compile(pattern)
    if count_steps(pattern, text) > MAX_STEPS:
        message = f"a text of {len(text):,} characters is too long for the pattern"
        raise PatternRefused(message, "shorten the repeats of the pattern, or check it in a job")
    text = _SURROGATES.sub("\ufffd", text)
    if program is None:
        return _match_in_process(pattern, text)
    return program.fullmatch(text) is not None


@lru_cache(maxsize=256)
def _compile(pattern: str) -> Any:
    """Return RE2's program for a pattern; None if RE2 is not installed."""
    if len(pattern) > MAX_LENGTH:
        message = f"it has more than {MAX_LENGTH:,} characters"
        raise PatternRefused(message, "check such a text in a job's function")
    try:
        import re2  # noqa: PLC0415 - most workflows have no pattern
    except ImportError:
        if (why := _explain_for_python(pattern)) is not None:
            raise PatternRefused(f"it is not a regular expression: {why}") from None
        return None
    options = re2.Options()
    options.log_errors = False  # RE2 would write them to standard error
    options.max_mem = _MAX_MEMORY_BYTES
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        why = error.args[0]
        told = why.decode(errors="replace") if isinstance(why, bytes) else str(error)
        hint = ""
        if _explain_for_python(pattern) is None:
            hint = (
                "RE2 has no lookaround and no backreferences, and repeats at most 1,000 times: "
                "write it without them, or check the text in a job's function"
            )
        raise PatternRefused(f"RE2 cannot read it: {told}", hint) from None


def _explain_for_python(pattern: str) -> str | None:
    """Return what Python's `re` finds wrong with a pattern, or None."""
    try:
        with warnings.catch_warnings():  # about syntax that may change its meaning
            warnings.simplefilter("ignore")
            re.compile(pattern, re.ASCII)
    except (re.error, OverflowError, RecursionError, ValueError) as error:
        return str(error) or type(error).__name__
    return None


_PROGRAM = """
import json, re, sys, warnings
warnings.simplefilter("ignore")
pattern, text = json.load(sys.stdin)
sys.stdout.write("yes" if re.fullmatch(pattern, text, re.ASCII) else "no")
"""


def _match_in_process(pattern: str, text: str) -> bool:
    import subprocess  # noqa: PLC0415 - only without RE2

    try:
        done = subprocess.run(  # noqa: S603 - a fixed text
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            input=json.dumps([pattern, text]),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
    except subprocess.TimeoutExpired:
        message = f"matching it takes more than {LIMIT_S:g} s"
        raise PatternRefused(message, "nested repeats such as (a+)+ take long") from None
    except (subprocess.CalledProcessError, OSError) as error:
        raise PatternRefused(f"it cannot be matched: {error}") from None
    return done.stdout == "yes"
