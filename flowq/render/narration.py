"""What happens in a run, told line by line: for logs, pipes, and terminals that only scroll."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, tzinfo

from flowq.render.lines import STYLE_BY_STATE, Line, format_duration, printable
from flowq.status import BEGUN_FOR_NOTHING, ENDED, Event


class Narrator:
    """Tells the transitions of one run, in the order in which they happened.

    It remembers the last start of each job, so that an end can be told with its duration. `zone`
    is the time zone that instants are shown in; None for the local one.
    """

    def __init__(self, zone: tzinfo | None = None) -> None:
        self.zone = zone
        self._started_at: dict[str, datetime] = {}
        self._attempts: dict[str, int] = {}

    def tell(self, events: Iterable[Event]) -> list[Line]:
        """Return a line like `12:03:04 slice started` for each event."""
        return [self._line(event) for event in events]

    def _line(self, event: Event) -> Line:
        at = event.at.astimezone(self.zone).strftime("%H:%M:%S")
        return (
            (f"{at} ", "dim"),
            (f"{event.name or 'run'} ", "" if event.name else "bold"),
            (event.state, STYLE_BY_STATE.get(event.state, "")),
            (self._detail(event), ""),
        )

    def _detail(self, event: Event) -> str:
        reason = f": {printable(event.reason)}" if event.reason else ""
        if event.state == "started":
            self._started_at[event.name] = event.at
            attempt = self._attempts[event.name] = self._attempts.get(event.name, 0) + 1
            return f" (attempt {attempt})" if attempt > 1 else ""
        started_at = self._started_at.pop(event.name, None)
        if started_at is not None and event.state in BEGUN_FOR_NOTHING:
            self._attempts[event.name] -= 1
        if started_at is None or event.state not in ENDED:
            return reason
        return f" ({format_duration((event.at - started_at).total_seconds())}){reason}"
