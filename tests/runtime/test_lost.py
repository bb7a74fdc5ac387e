"""A worker is lost when it was silent while the server took writes, and not before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from flowq.runtime import keys
from flowq.runtime.connections import read_clock
from flowq.runtime.maintenance import find_lost

Wait = Callable[..., None]


@pytest.fixture(autouse=True)
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the times that hold."""
    for name, seconds in (("SILENCE_S", 0.7), ("LEASE_S", 0.5), ("GAP_S", 0.3)):
        monkeypatch.setattr(f"flowq.runtime.maintenance.{name}", seconds)


def beat(connection: redis.Redis, worker: str, lease_s: float = 0.5) -> None:
    connection.zadd(keys.WORKERS, {worker: read_clock(connection) + lease_s})


def mark_until_sure(connection: redis.Redis, wait_until: Wait) -> None:
    wait_until(lambda: find_lost(connection).is_sure)


def test_a_silent_worker_is_lost_and_one_that_is_heard_is_not(
    connection: redis.Redis, wait_until: Wait
) -> None:
    beat(connection, "silent")
    assert find_lost(connection).workers == []

    def look() -> list[str]:
        beat(connection, "alive")
        return find_lost(connection).workers

    wait_until(look)
    assert look() == ["silent"]


def test_after_a_gap_each_worker_has_all_the_time_again(
    connection: redis.Redis, wait_until: Wait
) -> None:
    mark_until_sure(connection, wait_until)
    beat(connection, "silent")
    at = read_clock(connection) + 2.0
    wait_until(lambda: read_clock(connection) > at)  # nobody looks: as when the server refuses
    found = find_lost(connection)
    assert not found.is_sure
    assert found.workers == []
    beat(connection, "silent")
    wait_until(lambda: find_lost(connection).is_sure)
    assert find_lost(connection).clock_s > at + 0.7


def test_a_refusal_is_a_gap_however_short(connection: redis.Redis, wait_until: Wait) -> None:
    beat(connection, "silent")
    wait_until(lambda: find_lost(connection).workers)
    assert find_lost(connection, was_refused=True).workers == []
    assert not find_lost(connection).is_sure


def test_marks_of_a_server_whose_clock_was_ahead_do_not_count(
    connection: redis.Redis, wait_until: Wait
) -> None:
    mark_until_sure(connection, wait_until)
    connection.hset(keys.MARKS, "last", read_clock(connection) + 3600)
    assert not find_lost(connection).is_sure
