"""Displays of a running workflow: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Any, Self, cast

from flowq.cli import terminal
from flowq.cli.terminal import Stream
from flowq.event import read_entry
from flowq.render.lines import Line, plain_text, printable, spelled_inside
from flowq.render.narrator import Narrator
from flowq.render.progress import progress
from flowq.render.tally import Tally
from flowq.status import Event, RunStatus

FRAME_S = 0.25
"""The live table is not drawn more often than this."""

PAUSE_PER_FRAME = 100
"""How many times as long as a frame takes the pause after it is: workers need the processor more
than the display does."""


class Display(ABC):
    """Shows one run. While it is entered, everything is printed through it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @abstractmethod
    def show(self, status: RunStatus, events: Sequence[Event]) -> None:
        """Show the current status and the events since the last call."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Print a note about the run."""

    @abstractmethod
    def output(self, job: str, text: str) -> None:
        """Show a line of a job's output."""

    @abstractmethod
    def tell(self, lines: Iterable[Line]) -> None:
        """Show lines that stay."""


class Silent(Display):
    """Shows only notes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def show(self, status: RunStatus, events: Sequence[Event]) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Print it on stderr."""
        terminal.note(f"flowq: {text}")

    def output(self, job: str, text: str) -> None:
        """Show it: `-v` together with `-q` asks for this."""
        self.tell([((f"{job} | {printable(text)}", ""),)])

    def tell(self, lines: Iterable[Line]) -> None:
        """Show them."""
        terminal.write(plain_text(lines), self._stream)


class Plain(Silent):
    """Shows a line for each transition, and of large groups counts and failures."""

    def __init__(self, stream: Stream, *, is_verbose: bool = False) -> None:
        super().__init__(stream)
        self._narrator = Narrator(is_verbose=is_verbose)

    def show(self, status: RunStatus, events: Sequence[Event]) -> None:
        """Show what happened."""
        self.tell(self._narrator.tell(events, status.jobs.values()))


class JsonLines(Silent):
    """Writes each event as one line of JSON; all else goes to stderr."""

    def __init__(self, stream: Stream, run_id: str) -> None:
        super().__init__(sys.stderr)
        self._lines = stream
        self._run_id = run_id

    def show(self, status: RunStatus, events: Sequence[Event]) -> None:
        """Write what happened."""
        from flowq.render.json import event_document, write_json  # noqa: PLC0415 - others need none

        for entry in events:
            document = event_document(read_entry(self._run_id, entry))
            terminal.write(write_json(document, indent=None), self._lines)


class Live(Display):
    """Shows a table that changes; notes and output go above it."""

    def __init__(self, stream: Stream) -> None:
        from rich.console import Console  # noqa: PLC0415 - not loaded where there is no terminal
        from rich.live import Live as RichLive  # noqa: PLC0415

        self._console = Console(file=cast("IO[str]", stream), highlight=False)
        self._live: Any = RichLive(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._unicode = terminal.can_show(stream)
        self._draw_again_at = 0.0
        self._status: RunStatus | None = None
        self._tally: Tally | None = None
        self._changed: set[str] = set()  # the names of jobs that the tally has not counted again

    def __enter__(self) -> Self:
        self._live.start()
        # rich hides the cursor. It stays visible, because nothing can show it after `kill -9`.
        self._console.show_cursor(True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._draw_last(self._status)
        self._live.stop()

    def show(self, status: RunStatus, events: Sequence[Event]) -> None:
        """Draw the table, unless it has been drawn a moment ago."""
        self._status = status
        self._changed.update(event.name for event in events)
        if time.monotonic() < self._draw_again_at:
            return
        before_s = time.process_time()
        # An empty last line, so that the terminal's echo of ^C moves nothing.
        self._live.update(_to_text([*self._lines(status), ()]), refresh=True)
        pause_s = max(FRAME_S, PAUSE_PER_FRAME * (time.process_time() - before_s))
        self._draw_again_at = time.monotonic() + pause_s

    def draw_table(self, lines: Sequence[Line]) -> None:
        """Draw a table of the caller's instead of the one of a run."""
        height = max(1, self._console.size.height - 2)
        self._live.update(_to_text([*lines[:height], ()]), refresh=True)

    def _draw_last(self, status: RunStatus) -> None:
        """Leave the table of an ended run, without what its summary says again."""
        lines = self._lines(status)
        if status.is_ended:
            self._live.transient = len(lines) < len(self._count(status).parts) + 1
            lines = lines[1:]
        self._live.update(_to_text(lines), refresh=True)

    def _lines(self, status: RunStatus) -> list[Line]:
        width, height = self._console.size
        tally, room = self._count(status), max(1, height - 2)
        now = datetime.now(UTC)
        return progress(status, now, width, room, unicode=self._unicode, tally=tally)

    def _count(self, status: RunStatus) -> Tally:
        if self._tally is None or self._tally.since != status.started_at:  # or it was retried
            self._tally = Tally(status)
        elif self._changed:
            self._tally.update(status, self._changed - {""})
        self._changed.clear()
        return self._tally

    def note(self, text: str) -> None:
        """Print it above the table."""
        self.tell([(("flowq: ", "bold"), (text, "yellow"))])

    def output(self, job: str, text: str) -> None:
        """Show it above the table."""
        self.tell([((f"{job} | ", "cyan"), (printable(text), ""))])

    def tell(self, lines: Iterable[Line]) -> None:
        """Show them above the table."""
        from rich.text import Text  # noqa: PLC0415 - loaded already

        for line in lines:
            text = Text.assemble(
                *((spelled_inside(words), style) for words, style in line if words)
            )
            text.rstrip()
            # Wrapped by us only where the table below has to know: a terminal does it better.
            self._console.print(text, soft_wrap=not self._live.is_started)


def _to_text(lines: Iterable[Line]) -> Any:
    """Return lines as one rich text that is cut at the right edge, never wrapped."""
    from rich.text import Text  # noqa: PLC0415 - loaded already

    text = Text(no_wrap=True, overflow="ellipsis")
    for index, line in enumerate(lines):
        if index:
            text.append("\n")
        for words, style in line:
            text.append(spelled_inside(words), style or None)
    return text


def choose(stream: Stream, *, is_quiet: bool, is_verbose: bool = False) -> Display:
    """Return the display for a stream: live only on a terminal that can move its cursor."""
    if is_quiet:
        return Silent(stream)
    return Live(stream) if is_capable(stream) else Plain(stream, is_verbose=is_verbose)


def is_capable(stream: Stream) -> bool:
    """Whether the stream is a terminal that supports more than plain lines."""
    if not stream.isatty():
        return False
    return os.name == "nt" or os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


def tell(lines: Iterable[Line], stream: Stream) -> None:
    """Write lines, in colour if the stream supports it. Errors: BrokenPipeError."""
    lines = list(lines)
    if is_capable(stream):
        Live(stream).tell(lines)
    else:
        terminal.write(plain_text(lines), stream)


@contextmanager
def changing_table(stream: Stream) -> Iterator[Callable[[Sequence[Line]], None]]:
    """Give a function that shows a table, again and again: in place of the one before it on a
    terminal, where its end is cut off if it is too long, and below it elsewhere."""
    if not is_capable(stream):
        yield lambda lines: terminal.write(plain_text(lines), stream)
        return
    with Live(stream) as live:
        yield live.draw_table


def table_width(stream: Stream) -> int | None:
    """Return how wide a table may be; None for any width, where a program reads it."""
    return width_of(stream) if stream.isatty() else None


def width_of(stream: Stream, otherwise: int = 100) -> int:
    """Return the number of columns to write for: COLUMNS, else the terminal's, else `otherwise`."""
    is_said = os.environ.get("COLUMNS", "").isdecimal()
    size = shutil.get_terminal_size((otherwise, 24))
    return size.columns if is_said or stream.isatty() else otherwise
