"""Durations as people write them: `500ms`, `30s`, `10m`, `2h`, `1d`; a bare number is seconds.

And instants as people read them, the same in every command and picture.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

SECONDS_BY_UNIT = {
    "": Decimal(1),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86_400),
}

_DURATION = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([a-z]*)\s*", re.ASCII)


def parse_duration(value: object) -> float:
    """Return a duration in seconds; a whole number of seconds is an int.

    Errors: ValueError, with a message for the user, for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _refusal(value)
    if isinstance(value, str):
        found = _DURATION.fullmatch(value)
        if found is None or found[2] not in SECONDS_BY_UNIT:
            raise _refusal(value)
        return _shortest(float(Decimal(found[1]) * SECONDS_BY_UNIT[found[2]]))
    if value < 0 or (isinstance(value, float) and not math.isfinite(value)):
        raise _refusal(value)
    return _shortest(value)


def parse_pause(value: object) -> float | datetime:
    """Return how long to wait, in seconds, or until when: an aware instant.

    Shape: a duration as `parse_duration` reads it, or a timedelta; an instant in ISO 8601 with its
    time zone, `2026-12-24T08:00:00+01:00`, or an aware datetime.
    Errors: ValueError, with a message for the user, for anything else.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str) and _DATE.match(value):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f"{value!r} is no instant; {_INSTANT_HINT}") from None
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError(f"{value.isoformat()} has no time zone; {_INSTANT_HINT}")
        return value
    try:
        seconds = parse_duration(value)
    except ValueError:
        message = f"{value!r:.80} is neither a duration nor an instant; write 30s, 10m, 2h or 1d"
        raise ValueError(f"{message}, or an instant: {_AN_INSTANT}") from None
    if seconds > MAX_S:
        raise ValueError(f"{value!r:.80} is longer than 3650d")
    return seconds


def write_pause(value: object) -> str:
    """Return a pause as text that `parse_pause` reads. Errors: those of `parse_pause`."""
    pause = parse_pause(value)
    return pause.isoformat() if isinstance(pause, datetime) else write_seconds(pause)


_RATE = re.compile(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)?\s*(ms|[smhd])\s*")


def parse_rate(text: str) -> tuple[int, float]:
    """Return how many times in how many seconds: `10/m`, `100/15m`.

    Errors: ValueError, with a message for the user, for anything else.
    """
    found = _RATE.fullmatch(text)
    count = int(found[1]) if found else 0
    seconds = float(Decimal(found[2] or 1) * SECONDS_BY_UNIT[found[3]]) if found else 0
    if not count or not 0 < seconds <= MAX_S:
        raise ValueError(f"{text!r:.80} is not a rate")
    return count, _shortest(seconds)


MAX_S = 3_650 * 86_400
"""The longest duration anywhere, in seconds."""

_DATE = re.compile(r"\s*[0-9]{4}-")
_AN_INSTANT = "2026-12-24T08:00:00+01:00"
_INSTANT_HINT = f"write it as {_AN_INSTANT}, with Z for UTC"


def write_duration(seconds: float) -> str | float:
    """Return a duration as people write it; `parse_duration` returns the same seconds for it."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = Decimal(str(seconds)) / SECONDS_BY_UNIT[unit]
        if seconds and count == int(count) and count < 10**15:
            return f"{int(count)}{unit}"
    return seconds


def write_seconds(seconds: float) -> str:
    """Return seconds as a plain number, exact and without an exponent: `1500000`, `0.25`."""
    return f"{Decimal(repr(seconds)).normalize():f}"


def write_wait(seconds: float) -> str:
    """Return how long a pause is, to three digits unless it is whole: `10m`, `1.53s`, `1230s`.

    lua/nested.lua writes the same; `parse_duration` reads it.
    """
    if seconds == int(seconds):
        return f"{write_duration(seconds)}"
    return f"{seconds:.0f}s" if seconds >= 100 else f"{max(seconds, 0.001):.3g}s"


def local_time(at: datetime) -> str:
    """Return an instant as a reader has it on the clock, with the zone."""
    return at.astimezone().strftime(_TIME)


def utc_time(at: datetime) -> str:
    """Return an instant for what may be read elsewhere, such as a picture."""
    return at.astimezone(UTC).strftime(_TIME)


_TIME = "%Y-%m-%d %H:%M:%S %Z"


def _shortest(seconds: float) -> float:
    return int(seconds) if seconds == int(seconds) else seconds


def _refusal(value: object) -> ValueError:
    return ValueError(f"{value!r} is not a duration; write it as 500ms, 30s, 10m, 2h or 1d")
