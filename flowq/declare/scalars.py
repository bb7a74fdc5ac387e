"""The core scalars of YAML 1.2: `on` and `NO` are text, `12:30` too, `0o777` is octal."""

from __future__ import annotations

import re

Value = None | bool | int | float | str

NULLS = frozenset({"", "~", "null", "Null", "NULL"})
"""Scalars without quotes that say nothing."""

_CONSTANT_BY_TEXT: dict[str, Value] = {
    **dict.fromkeys(NULLS),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]{1,4000}")  # Python converts 4,300 digits, and no more

_OCTAL = re.compile(r"0o[0-7]{1,4000}")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,4000}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)")
_NOT_A_NUMBER = frozenset({".nan", ".NaN", ".NAN"})
_FIRST_OF_NUMBERS = frozenset("+-.0123456789")


def resolve(text: str) -> Value:
    """Return the value of a scalar without quotes; a number of too many digits stays text."""
    if text in _CONSTANT_BY_TEXT:
        return _CONSTANT_BY_TEXT[text]
    return _resolve_number(text) if text[0] in _FIRST_OF_NUMBERS else text


def _resolve_number(text: str) -> Value:
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text[2:], 16)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return float("nan") if text in _NOT_A_NUMBER else text
