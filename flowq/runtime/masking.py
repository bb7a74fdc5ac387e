"""The secrets that a job has read, kept out of its output, its errors and its shown arguments."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import Any, TextIO

from flowq.errors import Problem
from flowq.texts import to_bytes

HIDDEN = "***"
MIN_LENGTH = 4
"""A shorter value would make a text unreadable, and is no secret."""


class Mask:
    """The values to hide, and how."""

    def __init__(self) -> None:
        self._values: list[str] = []

    def add(self, values: Iterable[str | None]) -> None:
        """Hide these from now on; of a value of several lines also each line."""
        parts = {part for value in values if value for part in (value, *value.splitlines())}
        new = {part for part in parts if len(part) >= MIN_LENGTH}
        self._values = sorted(new | set(self._values), key=len, reverse=True)

    def hide(self, text: str) -> str:
        """Return a text with `***` in the place of each value."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        return text

    def hide_bytes(self, text: bytes) -> bytes:
        """The same for bytes."""
        for value in self._values:
            text = text.replace(to_bytes(value), HIDDEN.encode())
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
                cause.args = tuple(map(self._hide_in, cause.args))
                if isinstance(cause, OSError) and cause.filename is not None:
                    cause.filename = self._hide_in(cause.filename)
                cause = cause.__cause__ or cause.__context__
            raise

    def _hide_in(self, argument: Any) -> Any:
        if isinstance(argument, str):
            return self.hide(argument)
        if isinstance(argument, Problem):
            return replace(
                argument, message=self.hide(argument.message), hint=self.hide(argument.hint)
            )
        if type(argument) is tuple:
            return tuple(map(self._hide_in, argument))
        return argument


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
