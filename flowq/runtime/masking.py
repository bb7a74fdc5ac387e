"""Secrets that a job has read from its environment, kept out of its output and its errors."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

from flowq.texts import to_bytes

MIN_LENGTH = 4
"""A shorter value would make a text unreadable, and is no secret."""


class Mask:
    """The values to hide, and how."""

    def __init__(self) -> None:
        self._values: list[str] = []

    def add(self, values: Iterable[str | None]) -> None:
        """Hide these from now on."""
        new = {value for value in values if value and len(value) >= MIN_LENGTH}
        self._values = sorted(new | set(self._values), key=len, reverse=True)

    def hide(self, text: str) -> str:
        """Return a text with `***` in the place of each value."""
        for value in self._values:
            text = text.replace(value, "***")
        return text

    def hide_bytes(self, text: bytes) -> bytes:
        """The same for bytes."""
        for value in self._values:
            text = text.replace(to_bytes(value), b"***")
        return text

    @contextmanager
    def output(self) -> Iterator[None]:
        """Hide the values in what Python code prints inside."""
        if not self._values:
            yield
            return
        with redirect_stdout(_Masked(sys.stdout, self)), redirect_stderr(_Masked(sys.stderr, self)):
            yield

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Hide the values in the arguments of whatever is raised inside, and of its causes."""
        try:
            yield
        except BaseException as error:
            cause: BaseException | None = error
            while cause is not None and self._values:
                cause.args = tuple(self.hide(a) if isinstance(a, str) else a for a in cause.args)
                cause = cause.__cause__ or cause.__context__
            raise


class _Masked(io.TextIOBase):
    """A stream in front of another one; a value that is written in parts gets through."""

    def __init__(self, stream: TextIO, mask: Mask) -> None:
        self._stream = stream
        self._mask = mask

    def write(self, text: str) -> int:
        self._stream.write(self._mask.hide(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()
