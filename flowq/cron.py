"""When a cron expression is due, in the local time of a time zone.

When clocks change, some times of day occur twice, and others not at all. As in Debian's cron:

- An expression whose minute or hour begins with `*` is due whenever the local time matches, even
  for the second time. `*/15 * * * *` is due every 15 minutes, regardless of clock changes.
- Any other expression names times of day. If a time occurs twice, the first one counts. A skipped
  time is due at the moment of the change.

croniter reads the expressions and finds the next match without clock changes. Its own support of
time zones makes a repeated time of day due twice, and RQ's use of it skips an hour.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


def find_next(cron: str, zone: tzinfo, after: datetime) -> datetime:
    """Return the first instant after another one at which the expression is due, in UTC.

    Errors: ValueError if the expression is invalid, or never due.
    """
    minute, hour, *_ = [*cron.split(), "", ""]
    after = after.astimezone(UTC)
    if minute.startswith("*") or hour.startswith("*"):
        return _find_match(cron, zone, after)
    wall = _wall(after, zone)
    while True:
        wall = _next_on_clock(cron, wall)
        due = find_instant(wall, zone)
        if due > after:
            return due


def _find_match(cron: str, zone: tzinfo, after: datetime) -> datetime:
    """Return the first instant after another one at which the local time matches."""
    since, wall = after, _wall(after, zone)
    while True:
        found = since + (_next_on_clock(cron, wall) - _wall(since, zone))
        change = _find_change(zone, since, found)
        if change is None:
            return found
        since, wall = change, _wall(change, zone) - SECOND  # the changed time may match itself


def _next_on_clock(cron: str, wall: datetime) -> datetime:
    """Return the next match after a local time, regardless of clock changes. Errors: ValueError."""
    from croniter import croniter  # noqa: PLC0415 - few workflows need it

    found: datetime = croniter(cron, wall.replace(microsecond=0)).get_next(datetime)
    return found


def find_instant(wall: datetime, zone: tzinfo, *, is_last: bool = False) -> datetime:
    """Return the instant at which a clock shows a time first, or last, or skips it; in UTC."""
    first, last = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if _wall(first, zone) == wall:
        return last if is_last else first
    change = _find_change(zone, last, first)  # skipped: read with the offset after it, and before
    assert change is not None
    return change


def _find_change(zone: tzinfo, since: datetime, until: datetime) -> datetime | None:
    """Return the first instant in (since, until] with another offset than `since`, or None.

    In UTC and whole seconds. Two changes within one day would be missed; they do not occur.
    """
    offset = since.astimezone(zone).utcoffset()
    while since < until:
        upper = min(since + DAY, until)
        if upper.astimezone(zone).utcoffset() != offset:
            low, high = int(since.timestamp()), int(upper.timestamp())
            while high - low > 1:
                middle = (low + high) // 2
                is_before = datetime.fromtimestamp(middle, zone).utcoffset() == offset
                low, high = (middle, high) if is_before else (low, middle)
            return datetime.fromtimestamp(high, UTC)
        since = upper
    return None


def _wall(instant: datetime, zone: tzinfo) -> datetime:
    """Return the local time, without its zone."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)
