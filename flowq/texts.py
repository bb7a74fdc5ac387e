"""Text that is not UTF-8, which Linux allows in file names, arguments and variables.

As in Python itself (PEP 383), a byte that belongs to no character becomes a character of its own,
so that the text converts back to the same bytes. Such bytes are displayed as escapes.
"""

from __future__ import annotations


def from_bytes(data: bytes) -> str:
    """Return bytes as text; `to_bytes` gives them back."""
    return data.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """Return the bytes of a text. Errors: UnicodeEncodeError for half of a surrogate pair."""
    return text.encode("utf-8", "surrogateescape")


def show_bytes(data: bytes) -> str:
    r"""Return bytes as displayable text, with escapes such as `\xe9` for bytes that are no text."""
    return data.decode("utf-8", "backslashreplace")


def show(text: str) -> str:
    """Return a text in a displayable form, with escapes for bytes that are no text."""
    if text.isascii():
        return text
    try:
        return show_bytes(to_bytes(text))
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
