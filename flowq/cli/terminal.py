"""The terminal of the command line: standard streams, verbosity, and signals.

Every command writes through this module. `flowq --help` imports it, so it must stay light: what
draws a run is in `display`.
"""

from __future__ import annotations

import codecs
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import FrameType
from typing import IO, Any, Self, TextIO, TypeAlias
from weakref import WeakSet

import click

from flowq.errors import FlowqError, UsageError
from flowq.render.lines import spelled
from flowq.texts import show

PLAIN = {"…": "...", "→": "->", "–": "-", "✓": "v", "✗": "x", "’": "'", "·": "-"}
"""What replaces our characters that a stream cannot encode; other characters become `?`."""


Stream: TypeAlias = "IO[str] | Lenient"


class OutputLost(FlowqError):
    """The result of a command cannot be written."""

    exit_code = 6

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot write to standard output: {self.reason}"


_nowhere: WeakSet[IO[str]] = WeakSet()
"""Streams that stand for one that was closed when the program started."""

_lost: WeakSet[IO[str]] = WeakSet()
"""Streams of displays that could not be written."""


def repair() -> None:
    """Make the standard streams usable, whatever they are.

    A closed stream is redirected to the null device, because a socket or a file opened later must
    not get its number. Characters that a stream cannot encode are replaced, because a display must
    not fail for them.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            _open_nowhere(number)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - a number
            _nowhere.add(getattr(sys, name))
    codecs.register_error("flowq", _replace)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="flowq")  # type: ignore[union-attr] # it has, if it is real


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(map(_spell, missing)), error.end


def _spell(character: str) -> str:
    is_byte = "\udc80" <= character <= "\udcff"  # of a text that is not UTF-8
    return show(character) if is_byte else PLAIN.get(character, "?")


def _open_nowhere(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)


def write(text: str, stream: Stream | None = None) -> None:
    """Write a result to stdout, or to `stream`, with control characters spelled out.

    Errors: BrokenPipeError if the reader is gone; OutputLost if writing fails. In both cases, later
    writes are discarded.
    """
    stream = stream or sys.stdout
    if stream in _nowhere and stream is not sys.stderr:
        raise OutputLost("it is closed")
    try:
        stream.write(spelled(text))
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard(stream)
        raise OutputLost(error.strerror or str(error)) from error


def find_loss() -> OutputLost | None:
    """Return why stdout cannot be written, or None; after an error, later writes are discarded."""
    try:
        write("")
    except OutputLost as lost:
        return lost
    except (OSError, ValueError):
        pass
    return None


def note(text: str) -> None:
    """Write a message to stderr; it is lost if stderr has no reader."""
    try:
        write(f"{text}\n", sys.stderr)
    except (OSError, ValueError, OutputLost):
        discard(sys.stderr)


class Lenient:
    """A stream for displays: the run continues if the display can no longer be written.

    `code_of_loss` tells the exit code afterwards.

    It implements what `write`, rich and the displays need, and delegates the rest to the stream.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if that can be."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Pass on what is written, if that can be."""
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            discard(self._stream)
            if not isinstance(error, BrokenPipeError):
                _lost.add(self._stream)
                note(f"flowq: {OutputLost(error.strerror or str(error))}; the run goes on")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def code_of_loss(stream: IO[str]) -> int:
    """Return the exit code that a display's stream stands for: 6 if some of it was lost, else 0.

    A reader that has gone is no loss.
    """
    return OutputLost.exit_code if stream in _lost else 0


def discard(stream: Stream) -> None:
    """Discard later writes to a stream whose reader has gone."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    with suppress(OSError, ValueError):
        stream.flush()


def can_show(stream: Stream, characters: str = "✓▶…→") -> bool:
    """Whether the stream's encoding has the characters that displays use."""
    try:
        characters.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True


@contextmanager
def stdout_alone() -> Iterator[TextIO]:
    """Reserve stdout for a result; everything else printed to stdout goes to stderr.

    This redirects the file descriptor, so it also covers imported user code and the processes that
    this code starts.
    """
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    result = open(saved, "w", encoding="utf-8", errors="flowq", closefd=False)  # noqa: SIM115 - a number
    if sys.stdout in _nowhere:
        _nowhere.add(result)
    try:
        yield result
        result.flush()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os.dup2(saved, 1)
        discard(result)
        os.close(saved)


def users_code() -> AbstractContextManager[object]:
    """Redirect the output of user modules during their import away from stdout."""
    return stdout_alone()


def result_stream(is_json: bool) -> AbstractContextManager[TextIO]:
    """Return the stream for a command's result; for JSON, one that nothing else writes to."""
    return stdout_alone() if is_json else nullcontext(sys.stdout)


NAMES = ("SIGINT", "SIGTERM", "SIGBREAK")  # the last one is Ctrl-Break, on Windows only
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class Interrupted(BaseException):
    """A signal asked the program to exit; the exit code is that of a program killed by it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it; Ctrl-Break counts as Ctrl-C."""
        return 128 + (signal.SIGTERM if self.signum == signal.SIGTERM else signal.SIGINT)


LEAVING_S = 3.0
"""How long a command may take to exit after a signal. Further signals within that time, as
when a key is pressed several times, ask for the same, so they do not interrupt the exit."""


class Interrupts:
    """Inside this context, signals raise Interrupted; with `deferring`, the first one is only
    noted.

    A signal that was ignored when the program started (`nohup`, `&` in a script) stays ignored.
    """

    def __init__(self, deferring: bool = False) -> None:
        self.deferring = deferring
        self.first: int | None = None
        self._raised_at = -LEAVING_S
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
        # Only for a while: an exception that is raised in a finalizer is lost, so a later signal
        # must raise again.
        if time.monotonic() - self._raised_at < LEAVING_S:
            return
        self._raised_at = time.monotonic()
        raise Interrupted(signum)


VARIABLE = "FLOWQ_LOG"
LEVELS = ("debug", "info", "warning", "error")

_is_verbose = False


def set_up(ctx: click.Context, param: click.Parameter, verbose: bool) -> bool:
    """Note `-v`, and send flowq's own log to stderr when it is asked for. A click callback."""
    global _is_verbose  # noqa: PLW0603 - one process, one command
    _is_verbose = _is_verbose or verbose
    level = _level()
    if level != "warning":
        _start_log(level)
    return verbose


def is_debugging() -> bool:
    """Whether tracebacks of unexpected errors are wanted."""
    return _is_verbose or _level() == "debug"


def _level() -> str:
    level = os.environ.get(VARIABLE, "").strip().lower() or "warning"
    if level not in LEVELS:
        raise UsageError(f"{VARIABLE} is {level!r}; it must be one of {', '.join(LEVELS)}")
    return level


def _start_log(level: str) -> None:
    import logging  # noqa: PLC0415 - not needed, and not loaded, by most commands

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    logger = logging.getLogger("flowq")
    logger.setLevel(level.upper())
    logger.addHandler(handler)
