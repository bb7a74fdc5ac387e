"""When a cron expression is due, on the wall clock of a time zone.

Where clocks are changed some times of day come twice, and others not at all. As in Debian's cron:

- An expression whose minute or hour begins with `*` is due whenever the wall clock matches it, also
  when it does so a second time. `*/15 * * * *` is due every 15 minutes, whatever the clock does.
- Any other names times of day. Of a time that comes twice the first one counts; one that is skipped
  is due at the moment at which the clock is put forward.

croniter reads the expressions and finds the next match on a clock that is never changed. In time
zones it makes a time of day that comes twice due twice, and RQ's use of it skips an hour.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


def find_next(cron: str, zone: tzinfo, after: datetime) -> datetime:
    """Return the first instant after another one at which the expression is due, in UTC.

    Errors: ValueError when that is no cron expression, or never due.
    """
    minute, hour, *_ = [*cron.split(), "", ""]
    after = after.astimezone(UTC)
    if minute.startswith("*") or hour.startswith("*"):
        return _find_match(cron, zone, after)
    wall = _wall(after, zone)
    while True:
        wall = _next_on_clock(cron, wall)
        due = _first_instant(wall, zone)
        if due > after:
            return due


def _find_match(cron: str, zone: tzinfo, after: datetime) -> datetime:
    """Return the first instant after another one at which the wall clock matches."""
    since, wall = after, _wall(after, zone)
    while True:
        found = since + (_next_on_clock(cron, wall) - _wall(since, zone))
        change = _find_change(zone, since, found)
        if change is None:
            return found
        since, wall = change, _wall(change, zone) - SECOND  # the changed time may match itself


def _next_on_clock(cron: str, wall: datetime) -> datetime:
    """Return the next match after a time on a clock that is never changed. Errors: ValueError."""
    from croniter import croniter  # noqa: PLC0415 - few workflows need it

    found: datetime = croniter(cron, wall.replace(microsecond=0)).get_next(datetime)
    return found


def _first_instant(wall: datetime, zone: tzinfo) -> datetime:
    """Return the instant at which a clock shows a time first, or skips it."""
    first, last = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if _wall(first, zone) == wall:
        return first
    change = _find_change(zone, last, first)  # skipped: read with the offset after it, and before
    assert change is not None
    return change


def _find_change(zone: tzinfo, since: datetime, until: datetime) -> datetime | None:
    """Return the first instant in (since, until] with another offset than `since`, if there is one.

    In UTC, and whole seconds. Two changes within one day would not be seen; there are none.
    """
    offset = since.astimezone(zone).utcoffset()
    while since < until:
        upper = min(since + DAY, until)
        if upper.astimezone(zone).utcoffset() != offset:
            return _bisect(zone, since, upper)
        since = upper
    return None


def _bisect(zone: tzinfo, lower: datetime, upper: datetime) -> datetime:
    offset = lower.astimezone(zone).utcoffset()
    low, high = int(lower.timestamp()), int(upper.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        is_before = datetime.fromtimestamp(middle, zone).utcoffset() == offset
        low, high = (middle, high) if is_before else (low, middle)
    return datetime.fromtimestamp(high, UTC)


def _wall(instant: datetime, zone: tzinfo) -> datetime:
    """Return what the clock shows, without its zone."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)
