"""Messages from a child to its supervisor: a plain binary format that is read without unpickling.

A child runs user code, so the supervisor trusts none of its messages: lengths are bounded, keywords
come from short lists, and anything else is a `BadMessage`. Messages in the other direction are
pickled, because a child trusts its supervisor.

The first byte is the kind. After `E` come ends, each a header and texts separated by NUL; after `S`
comes a JSON list of texts; after any other kind, one text.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from itertools import product
from struct import Struct
from typing import Any

from flowq.workers.messages import End

MAX_BYTES = 600_000_000
"""The limit of a message. Redis accepts at most 512 MB in one argument."""

MAX_TEXT_BYTES = 100_000
"""The limit of a message that has neither ends nor secrets; the child cuts longer ones."""

MAX_SECRETS_BYTES = 8_000_000
"""The limit of a message with secrets."""

# Length of the texts in bytes, number, index in _WORDS, started_at, ended_at, generation, is_spent.
_HEADER = Struct("<IQBddQ?")
_ENDS = b"E"
_SECRETS = b"S"
_KINDS = ("ready", "chore", "outdated", "unfit", "died")
_LETTER_BY_KIND = {kind: kind[:1].upper().encode() for kind in _KINDS}
_KIND_BY_LETTER = {letter: kind for kind, letter in _LETTER_BY_KIND.items()}
_WORDS = tuple(
    product(
        ("finished", "failed", "stopped"),
        ("turn", "conclude", "later", "done", "lost"),
        ("", "return_value", "exc_string", "retry"),
    )
)
"""The possible values of `status`, `how` and `field` of an end. No child may report "died"."""

_REST = len(End._fields) - 1 - End._fields.index("is_spent")
"""The number of fields after `is_spent`; all of them are texts without NUL."""

_CODE = End._fields.index("code") - len(End._fields)

_MAX_DIGITS = 11

MAX_INSTANT = 1e11
"""In the year 5138: RQ writes years with four digits."""

_is_ttl = re.compile(r"(?:-?[0-9]{1,12})?").fullmatch
_is_code = re.compile(r"\S*(?: .*)?", re.DOTALL).fullmatch

_NUMBER_BY_WORDS = {words: number for number, words in enumerate(_WORDS)}

_unpack = _HEADER.unpack_from


class BadMessage(ValueError):
    """A child has sent something that is not a message of flowq."""


# In the child ------------------------------------------------------------------------------------


def write_end(end: End) -> bytes:
    """Return an end as bytes, for a message and for the shared state."""
    number, status, how, started_at, ended_at, ttl, field, value, generation, spent, *rest = end
    texts = "\0".join((ttl, value, *rest)).encode("utf-8", "surrogatepass")
    words = _NUMBER_BY_WORDS[status, how, field]
    head = _HEADER.pack(len(texts), number, words, started_at, ended_at, generation, spent)
    return head + texts


def write_ends(ends: list[bytes]) -> bytes:
    """Return the message with these ends, each written by `write_end`."""
    return b"".join((_ENDS, *ends))


def write_text(kind: str, text: str = "") -> bytes:
    """Return a message that has one text: ready, chore, outdated, unfit or died."""
    data = text.encode("utf-8", "replace")
    return _LETTER_BY_KIND[kind] + data[: MAX_TEXT_BYTES - 1]


def write_secrets(values: Sequence[str]) -> bytes:
    """Return the message with these secrets; empty if it would be too long."""
    message = _SECRETS + json.dumps(values).encode()
    return message if len(message) <= MAX_SECRETS_BYTES else b""


# In the supervisor -------------------------------------------------------------------------------


def read_message(data: bytes) -> tuple[str, Any]:
    """Return the kind and the content of a message.

    The content is a list of `End`s for "ends", a list of texts for "secrets", an exit code (or a
    signal as a negative number) for "died", and otherwise a text. Errors: BadMessage.
    """
    if data[:1] == _ENDS:
        return "ends", _read_ends(data, 1, is_whole=True)
    if data[:1] == _SECRETS and len(data) <= MAX_SECRETS_BYTES:
        return "secrets", read_secrets(data)
    kind = _KIND_BY_LETTER.get(data[:1])
    if kind is None or len(data) > MAX_TEXT_BYTES:
        raise BadMessage(f"it begins with {data[:20]!r}, and has {len(data)} bytes")
    text = data[1:].decode("utf-8", "replace")
    if kind != "died":
        return kind, text
    if not text.removeprefix("-").isdecimal() or len(text) > _MAX_DIGITS:
        raise BadMessage("its exit code is not a number")
    return kind, int(text)


def read_secrets(data: bytes) -> list[str]:
    """Return the secrets in a message by `write_secrets`. Errors: BadMessage."""
    try:
        values = json.loads(data[1:]) if data[:1] == _SECRETS else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(type(each) is str for each in values):
        raise BadMessage("its secrets are not a list of texts")
    return values


def read_kept(data: bytes) -> list[End]:
    """Return the ends that a shared state has stored, without a last one that is incomplete.

    Errors: BadMessage.
    """
    return _read_ends(data, 0, is_whole=False)


def _read_ends(data: bytes, at: int, *, is_whole: bool) -> list[End]:
    ends, size = [], len(data)
    try:
        while at < size:
            length, number, words, started_at, ended_at, generation, spent = _unpack(data, at)
            at += _HEADER.size
            if at + length > size:
                raise struct.error("it is cut")
            texts = data[at : at + length].decode("utf-8", "surrogatepass")
            at += length
            ttl, value, *rest = texts.split("\0")
            status, how, field = _WORDS[words]
            are_instants = 0 <= started_at <= MAX_INSTANT and 0 <= ended_at <= MAX_INSTANT
            if not (are_instants and _is_ttl(ttl)):
                raise BadMessage("its instants, or its time to live, are not numbers")
            if len(rest) != _REST:
                raise BadMessage("it has more texts, or fewer")
            if not _is_code(rest[_CODE]):
                raise BadMessage("its digest of code is none")
            head = number, status, how, started_at, ended_at, ttl, field, value, generation, spent
            ends.append(End(*head, *rest))
    except struct.error as error:
        if is_whole:
            raise BadMessage("it ends in the middle of a report") from error
    except (ValueError, IndexError) as error:
        raise BadMessage(f"a report cannot be read: {error}") from error
    return ends
