"""When schedules are due where clocks are put forward and back, compared with each minute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowq.cron import find_next

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
BERLIN = ZoneInfo("Europe/Berlin")
CHANGES = [
    ("Europe/Berlin", datetime(2026, 3, 29, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, tzinfo=UTC)),  # by half an hour
    ("Australia/Lord_Howe", datetime(2026, 10, 3, tzinfo=UTC)),
    ("America/Santiago", datetime(2026, 4, 5, tzinfo=UTC)),  # at midnight, as the next ones
    ("America/Santiago", datetime(2026, 9, 6, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 3, 8, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 11, 1, tzinfo=UTC)),
    ("Asia/Beirut", datetime(2026, 3, 28, tzinfo=UTC)),
    ("Asia/Beirut", datetime(2026, 10, 24, tzinfo=UTC)),
    ("Atlantic/Azores", datetime(2026, 10, 25, tzinfo=UTC)),
    ("Africa/Casablanca", datetime(2026, 2, 15, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, tzinfo=UTC)),  # a whole day was skipped
    ("Asia/Kolkata", datetime(2026, 3, 29, tzinfo=UTC)),  # none
]


def find_all(cron: str, zone: ZoneInfo, since: datetime, until: datetime) -> Iterator[datetime]:
    """The due times after `since`, up to `until`."""
    while (since := find_next(cron, zone, since)) <= until:
        yield since


def due_on(month: int, day: int, cron: str) -> list[str]:
    """The wall clock at each due time of a day in Berlin, with its offset from UTC."""
    begin = datetime(2026, month, day, tzinfo=BERLIN)
    begin_at, end_at = (at.astimezone(UTC) - MINUTE for at in (begin, begin + DAY))
    return [f"{at.astimezone(BERLIN):%H:%M %z}" for at in find_all(cron, BERLIN, begin_at, end_at)]


def test_quarters_of_an_hour_go_on_through_an_hour_that_comes_twice() -> None:
    found = due_on(10, 25, "*/15 * * * *")
    assert len(found) == 25 * 4
    twice = [f"02:{minute} {offset}" for offset in ("+0200", "+0100") for minute in (0, 15, 30, 45)]
    assert found[8:16] == [each.replace("02:0 ", "02:00 ") for each in twice]


def test_quarters_of_an_hour_go_on_past_an_hour_that_is_skipped() -> None:
    found = due_on(3, 29, "*/15 * * * *")
    assert len(found) == 23 * 4
    assert found[7:9] == ["01:45 +0100", "03:00 +0200"]


def test_a_time_of_day_is_due_once_a_day_whatever_the_clock_does() -> None:
    assert due_on(10, 25, "30 2 * * *") == ["02:30 +0200"]
    assert due_on(3, 29, "30 2 * * *") == ["03:00 +0200"]
    assert due_on(3, 28, "30 2 * * *") == ["02:30 +0100"]


def test_a_schedule_that_begins_in_the_second_of_two_equal_hours_is_due_the_next_day() -> None:
    since = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 for the second time
    found = find_next("30 2 * * *", BERLIN, since)
    assert found == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_a_date_far_away_is_found_in_the_first_of_two_equal_hours() -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    found = find_all("*/30 2 25 10 *", BERLIN, since, since + 365 * DAY)
    assert [f"{at:%H:%M}" for at in found] == ["00:00", "00:30", "01:00", "01:30"]


def test_what_is_never_due_is_an_error() -> None:
    with pytest.raises(ValueError):
        find_next("0 0 30 2 *", UTC, datetime(2026, 1, 1, tzinfo=UTC))


# Compared with a look at each minute ------------------------------------------------------------

Field = tuple[str, Callable[[int], bool]]


def fields(size: int) -> st.SearchStrategy[Field]:
    """A field for minutes or hours, and what it matches."""
    numbers = st.lists(st.integers(0, size - 1), min_size=1, max_size=3)
    lists = numbers.map(lambda few: (",".join(map(str, few)), few.__contains__))
    steps = st.sampled_from([1, 2, 7, 15, 20])
    every = steps.map(lambda step: (f"*/{step}", lambda value: value % step == 0))
    return lists | every


DAYS: list[tuple[str, Callable[[datetime], bool]]] = [
    ("* * *", lambda at: True),
    ("* * 0", lambda at: at.weekday() == 6),
    ("1,25,29,30 * *", lambda at: at.day in (1, 25, 29, 30)),
]


@settings(max_examples=40, deadline=None)
@given(
    change=st.sampled_from(CHANGES),
    minute=fields(60),
    hour=st.one_of(fields(24), st.sampled_from(range(4)).map(lambda h: (str(h), h.__eq__))),
    days=st.sampled_from(DAYS),
    start_s=st.integers(0, 86_400),
)
def test_each_due_time_is_found_once_and_in_order(
    change: tuple[str, datetime],
    minute: Field,
    hour: Field,
    days: tuple[str, Callable[[datetime], bool]],
    start_s: int,
) -> None:
    zone = ZoneInfo(change[0])
    since = change[1] - DAY + timedelta(seconds=start_s)
    until = change[1] + 2 * DAY
    cron = f"{minute[0]} {hour[0]} {days[0]}"

    def matches(wall: datetime) -> bool:
        return minute[1](wall.minute) and hour[1](wall.hour) and days[1](wall)

    look = look_at_each_instant if "*" in minute[0] + hour[0] else look_at_each_time_of_day
    assert [*find_all(cron, zone, since, until)] == look(matches, zone, since, until)


def look_at_each_instant(
    matches: Callable[[datetime], bool], zone: ZoneInfo, since: datetime, until: datetime
) -> list[datetime]:
    minutes = range(1, int((until - since) / MINUTE) + 2)
    instants = [since.replace(second=0) + number * MINUTE for number in minutes]
    return [at for at in instants if at <= until and matches(at.astimezone(zone))]


def look_at_each_time_of_day(
    matches: Callable[[datetime], bool], zone: ZoneInfo, since: datetime, until: datetime
) -> list[datetime]:
    found = set()
    wall = (since.astimezone(zone) - 2 * DAY).replace(tzinfo=None, second=0)
    for _ in range(int((until - since + 4 * DAY) / MINUTE)):
        wall += MINUTE
        if matches(wall):
            at = wall
            while (instant := as_instant(at, zone)) is None:
                at += MINUTE  # skipped: the moment at which the clock is put forward
            found.add(instant)
    return sorted(at for at in found if since < at <= until)


def as_instant(wall: datetime, zone: ZoneInfo) -> datetime | None:
    instant = wall.replace(tzinfo=zone).astimezone(UTC)
    return instant if instant.astimezone(zone).replace(tzinfo=None) == wall else None
