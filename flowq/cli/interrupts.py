"""Ctrl-C and SIGTERM: exceptions, or wishes that are seen to at the next good moment."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any, Self

NAMES = ("SIGINT", "SIGTERM", "SIGBREAK")  # the last one is Ctrl-Break, on Windows only
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class Interrupted(BaseException):
    """A signal asked the program to leave. Its exit code is that of a program that it killed."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it; Ctrl-Break counts as Ctrl-C."""
        return 128 + (signal.SIGTERM if self.signum == signal.SIGTERM else signal.SIGINT)


class Interrupts:
    """While it is entered signals raise Interrupted; with `deferring` the first one only notes.

    A signal that was ignored when the program started (`nohup`, `&` in a script) stays ignored.
    """

    def __init__(self, deferring: bool = False) -> None:
        self.deferring = deferring
        self.first: int | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.deferring and self.first is None:
            self.first = signum
            return
        raise Interrupted(signum)
