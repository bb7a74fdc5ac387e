"""Hides secrets in everything that is shown: texts, output as bytes, and exceptions.

All masking uses a `Mask`, and happens where a text is made. Output is masked when it is moved from
the process that wrote it to a log (flowq/workers/output.py; outlets.py for RQ's own workers),
errors where the job raises them (errors.py), views and messages in flowq/runtime/work.py. Output is
read as bytes, so it does not matter which program wrote it, and in how many parts. forms.py lists
the spellings of a secret that are hidden.

A job without secrets has an empty mask, which is false, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, AnyStr

if TYPE_CHECKING:
    from flowq.runtime.masking.needles import Needles

HIDDEN = "***"
_HIDDEN_BYTES = HIDDEN.encode()

MIN_LENGTH = 4
"""A secret with fewer characters is not hidden: texts would become unreadable."""

MIN_PART = 8
"""The minimum number of characters for parts of a secret (one of its lines, a value that an
expression made from it, another spelling)."""

Learn = Callable[[Sequence[str]], None]

_reader: Learn | None = None


def set_reader(learn: Learn | None) -> None:
    """Set the function that tells the reader of this process's output about new secrets.

    `learn` is called with new secrets before they can be printed.
    """
    global _reader  # noqa: PLW0603 - a process has one output
    _reader = learn


def has_reader() -> bool:
    """Whether another process reads and masks the output of this one."""
    return _reader is not None


class Mask:
    """Values to hide. It is false while there are none.

    `tell`: whether the reader of this process's output is told about new values.
    """

    def __init__(self, *, tell: bool = False) -> None:
        self._tells = tell
        self._values: dict[str, None] = {}
        self._texts: Needles[str] | None = None
        self._bytes: Needles[bytes] | None = None

    def __bool__(self) -> bool:
        return bool(self._values)

    def __contains__(self, value: str) -> bool:
        return value in self._values

    @property
    def values(self) -> list[str]:
        """The hidden values, without their other spellings."""
        return list(self._values)

    def add(self, values: Iterable[str], min_length: int = MIN_LENGTH) -> None:
        """Hide these values from now on, except those shorter than `min_length`."""
        new = [each for each in values if len(each) >= min_length and each not in self._values]
        if not new:
            return
        self._values.update(dict.fromkeys(new))
        self._texts = self._bytes = None
        if self._tells and _reader is not None:
            _reader(new)

    # In text -------------------------------------------------------------------------------------

    def hide(self, text: str) -> str:
        """Return the text with `***` for each value, and for the beginning of a value that was
        cut."""
        if not self._values:
            return text
        needles = self._find_texts()
        return _put_together(text, HIDDEN, needles.find(text, allow_cut=True), 0, len(text))

    def _find_texts(self) -> Needles[str]:
        if self._texts is None:
            # Imported here, and below, because jobs without secrets do not need it.
            from flowq.runtime.masking.forms import find_text_needles  # noqa: PLC0415

            self._texts = find_text_needles(tuple(self._values))
        return self._texts

    # In bytes ------------------------------------------------------------------------------------

    @property
    def longest(self) -> int:
        """The length in bytes of the longest text to hide."""
        return self._find_bytes().longest if self._values else 0

    def is_in(self, data: bytes) -> bool:
        """Whether these bytes contain one of the values, in any spelling."""
        return bool(self._values) and next(self._find_bytes().find(data), None) is not None

    def hide_bytes(self, data: bytes, begin: int = 0, end: int | None = None) -> bytes:
        """Return the bytes from `begin` to `end`, with `***` for each value.

        Values that extend beyond this part are found by the bytes around it. An incomplete value at
        the end of the data, as a killed process may leave it, is hidden too.
        """
        end = len(data) if end is None else end
        if not self._values:
            return data[begin:end]
        needles = self._find_bytes()
        spans = list(needles.find(data))
        if end == len(data):
            at = needles.find_begun(data, spans[-1][1] if spans else 0)
            if at is not None and len(data) - at >= MIN_LENGTH:
                spans.append((at, len(data)))
        return _put_together(data, _HIDDEN_BYTES, spans, begin, end)

    def hide_begun(self, data: bytes) -> tuple[bytes, int]:
        """Return the masked beginning of data that will go on, and its length before masking.

        This is all of it, except an end that may be the beginning of a value.
        """
        if not self._values:
            return data, len(data)
        needles, spans, at = self._find_bytes(), [], 0
        begun = needles.find_begun(data, at)
        for span in needles.find(data):
            if begun is not None and begun <= span[0]:
                break
            spans.append(span)
            at = span[1]
            if begun is not None and begun < at:
                begun = needles.find_begun(data, at)
        used = len(data) if begun is None else begun
        return _put_together(data, _HIDDEN_BYTES, spans, 0, used), used

    def _find_bytes(self) -> Needles[bytes]:
        if self._bytes is None:
            from flowq.runtime.masking.forms import find_byte_needles  # noqa: PLC0415

            self._bytes = find_byte_needles(tuple(self._values))
        return self._bytes


def _put_together(
    data: AnyStr, hidden: AnyStr, spans: Iterable[tuple[int, int]], begin: int, end: int
) -> AnyStr:
    """Return the data from `begin` to `end`, with each span that touches it hidden as a whole."""
    parts, at = [], begin
    for first, last in spans:
        if last <= begin:
            continue
        if first >= end:
            break
        parts += [data[at : max(at, first)], hidden]
        at = last
    parts.append(data[at:end])
    return hidden[:0].join(parts)
