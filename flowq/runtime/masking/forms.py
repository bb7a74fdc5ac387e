"""The spellings of a secret: in JSON, in a shell, in a URL, in base64 and in Python."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import quote, quote_plus

from flowq import texts
from flowq.runtime.masking import MIN_LENGTH, MIN_PART
from flowq.runtime.masking.needles import Needles

_WIDTHS = (76, 64)
"""The line lengths of programs that write base64."""

_SAFE_IN_URLS = ("", "/", "!'()*", "!#$%&'()*+,/:;=?@[]~")
"""Characters that Python's `quote`, JavaScript's `encodeURIComponent` and requests keep."""

_DOUBLE_QUOTED = re.compile(r'(["$`\\])')
_BACKSLASHED = re.compile(r"""([!"$&'()*,;<>?\[\\\]^`{|} ]|^[~#])""")
"""The characters before which `printf %q` of bash writes a backslash."""

_NAMED = {ord(each): repr(each)[1:-1] for each in "\t\n\r\\"} | {
    ord(each): f"\\{name}" for each, name in zip("\a\b\v\f", "abvf", strict=True)
}


@lru_cache(maxsize=16)  # kept children execute the same jobs again and again
def find_text_needles(values: tuple[str, ...]) -> Needles[str]:
    """Return the needles for texts."""
    return Needles(spell_all(values))


@lru_cache(maxsize=16)
def find_byte_needles(values: tuple[str, ...]) -> Needles[bytes]:
    """Return the needles for bytes."""
    return Needles(map(to_needle, spell_all(values)))


def spell_all(values: Iterable[str]) -> set[str]:
    """Return all spellings and parts of these values that must be hidden."""
    found: set[str] = set()
    for value in values:
        found.update(each for each in _spell_whole(value) if len(each) >= MIN_LENGTH)
        found.update(each for each in _spell_parts(value) if len(each) >= MIN_PART)
    return found


def to_needle(text: str) -> bytes:
    """Return the bytes that a program writes for a text."""
    return text.encode("utf-8", "surrogateescape" if _is_from_bytes(text) else "surrogatepass")


def _is_from_bytes(text: str) -> bool:
    try:
        texts.to_bytes(text)
    except UnicodeEncodeError:  # half a surrogate pair, which some programs write
        return False
    return True


def _spell_whole(value: str) -> Iterator[str]:
    for each in {value, value.strip(), value.replace("\r\n", "\n"), value.replace("\n", "\r\n")}:
        yield each
        yield from _escape(each)


def _spell_parts(value: str) -> Iterator[str]:
    for line in value.splitlines():
        yield line
        yield line.strip()
        if len(line.strip()) >= MIN_PART:
            yield from _escape(line.strip())
    for each in {value, value.strip(), *map(str.strip, value.splitlines())}:
        yield from _encode(to_needle(each))


def _escape(value: str) -> Iterator[str]:
    """Yield the text as it is written in various languages, with and without quotes."""
    yield texts.show(value)
    for is_ascii in (True, False):
        written = json.dumps(value, ensure_ascii=is_ascii)[1:-1]
        yield written
        yield written.replace("/", r"\/")
    for safe in _SAFE_IN_URLS:
        url = quote(value, safe, errors="surrogatepass")
        yield url
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found.group().lower(), url)
    yield quote_plus(value, errors="surrogatepass")
    yield html.escape(value)
    yield html.escape(value, quote=False)
    yield html.escape(value).replace("&#x27;", "&#39;")
    yield shlex.quote("x " + value)[3:-1]  # the space forces quotes
    yield value.replace("'", r"'\''")
    yield value.replace("'", "''")  # PowerShell, SQL
    yield _DOUBLE_QUOTED.sub(r"\\\1", value)  # declare -p
    backslashed = _BACKSLASHED.sub(r"\\\1", value)
    yield backslashed
    yield backslashed.replace("\\,", ",")  # before bash 5
    yield from _as_octal(to_needle(value))
    yield from _as_python(value)
    yield from _as_python(to_needle(value))


def _as_python(value: str | bytes) -> Iterator[str]:
    """Yield what `repr` writes between its quotes, for both kinds of quotes."""
    prefix = len(repr(value)) - len(repr(value).lstrip("b"))
    written = repr(value)[prefix + 1 : -1].replace("\\'", "'")
    yield written
    yield written.replace("'", "\\'")
    yield written.replace('"', '\\"')


def _as_octal(data: bytes) -> Iterator[str]:
    """Yield what bash writes in `$'…'`, and git in its quotes, if they write only ASCII."""
    for mark in ("'", '"'):
        written = {**_NAMED, ord(mark): f"\\{mark}"}
        yield "".join(
            written.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
            for byte in data
        )


def _encode(data: bytes) -> Iterator[str]:
    """Yield the base64 forms of the data, at any position in longer data."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        written = encode(data).decode()
        yield written
        for width in _WIDTHS:
            yield from (written[at : at + width] for at in range(0, len(written), width))
        for before in range(3):
            # Without the characters that also encode bits of the surrounding data.
            first, last = -(-8 * before // 6), 8 * (before + len(data)) // 6
            yield encode(bytes(before) + data).decode()[first:last]
    yield data.hex()
    yield data.hex().upper()
