"""Text that is not UTF-8: what Linux allows in file names, arguments and variables.

As in Python itself (PEP 383), a byte that is no part of a character becomes a character of its
own, so that the text gives the same bytes again. What is shown has such bytes spelt out.
"""

from __future__ import annotations

ATTEMPT_LINE = "--- attempt {} ---"
"""What stands in the log of a job in front of what a further attempt prints."""


def from_bytes(data: bytes) -> str:
    """Return bytes as text; `to_bytes` gives them back."""
    return data.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """Return the bytes that a text was made of. Errors: UnicodeEncodeError for half a character."""
    return text.encode("utf-8", "surrogateescape")


def show_bytes(data: bytes) -> str:
    r"""Return bytes as text that can be written anywhere, with `\xe9` for what is no character."""
    return data.decode("utf-8", "backslashreplace")


def show(text: str) -> str:
    """Return a text that can be written anywhere: the same for text."""
    if text.isascii():
        return text
    try:
        return show_bytes(to_bytes(text))
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
