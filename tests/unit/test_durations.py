"""Durations as people write them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from flowq.durations import parse_duration, write_seconds, write_wait


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("1.5m", 90),
        ("2h", 7_200),
        ("1d", 86_400),
        (" 10 m ", 600),
        ("45", 45),
        (45, 45),
        (0.25, 0.25),
        (0, 0),
    ],
)
def test_a_duration_is_a_number_with_a_unit_and_a_bare_number_is_seconds(
    text: Any, seconds: float
) -> None:
    assert parse_duration(text) == seconds


def test_whole_seconds_are_ints_and_decimals_are_exact() -> None:
    assert isinstance(parse_duration("1.5m"), int)
    assert parse_duration("0.3ms") == 0.0003


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-3s",
        "3 weeks",
        "3S",
        "1h30m",
        "٣s",
        "1e3s",
        -1,
        math.inf,
        math.nan,
        True,
        None,
        [],
    ],
)
def test_anything_else_is_refused_with_the_ways_to_write_it(value: Any) -> None:
    with pytest.raises(ValueError, match="write it as 500ms, 30s, 10m, 2h or 1d"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(600, "10m"), (1.534, "1.53s"), (99.96, "100s"), (999.7, "1000s"), (1234.5, "1234s")],
)
def test_a_pause_is_written_without_an_exponent_so_that_it_can_be_read_again(
    seconds: float, text: str
) -> None:
    assert write_wait(seconds) == text
    assert parse_duration(text) == pytest.approx(seconds, rel=0.005)
    assert parse_duration(write_wait(0.000_01)) == 0.001


@pytest.mark.parametrize(
    ("seconds", "text"), [(1_234_567, "1234567"), (5.0, "5"), (0.25, "0.25"), (1e-6, "0.000001")]
)
def test_seconds_are_a_plain_and_exact_number(seconds: float, text: str) -> None:
    assert write_seconds(seconds) == text
