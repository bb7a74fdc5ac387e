"""A worker is lost when it was silent while the server took writes, and not before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from flowq.errors import UsageError
from flowq.runtime import keys
from flowq.runtime.connections import read_clock
from flowq.runtime.maintenance import Lease, Lost, find_lost, read_lease

Wait = Callable[..., None]


LEASE = Lease(0.5)
"""A tenth of the default."""


def find(connection: redis.Redis, **options: bool) -> Lost:
    return find_lost(connection, LEASE, **options)


def beat(connection: redis.Redis, worker: str) -> None:
    connection.zadd(keys.WORKERS, {worker: read_clock(connection) + LEASE.lease_s})


def mark_until_sure(connection: redis.Redis, wait_until: Wait) -> None:
    wait_until(lambda: find(connection).is_sure)


def test_a_silent_worker_is_lost_and_one_that_is_heard_is_not(
    connection: redis.Redis, wait_until: Wait
) -> None:
    beat(connection, "silent")
    assert find(connection).workers == []

    def look() -> list[str]:
        beat(connection, "alive")
        return find(connection).workers

    wait_until(look)
    assert look() == ["silent"]


def test_after_a_gap_each_worker_has_all_the_time_again(
    connection: redis.Redis, wait_until: Wait
) -> None:
    mark_until_sure(connection, wait_until)
    beat(connection, "silent")
    at = read_clock(connection) + 2 * LEASE.gap_s
    wait_until(lambda: read_clock(connection) > at)  # nobody looks: as when the server refuses
    found = find(connection)
    assert not found.is_sure
    assert found.workers == []
    beat(connection, "silent")
    wait_until(lambda: find(connection).is_sure)
    assert find(connection).clock_s > at + 0.7


def test_a_refusal_is_a_gap_however_short(connection: redis.Redis, wait_until: Wait) -> None:
    beat(connection, "silent")
    wait_until(lambda: find(connection).workers)
    assert find(connection, was_refused=True).workers == []
    assert not find(connection).is_sure


def test_marks_of_a_server_whose_clock_was_ahead_do_not_count(
    connection: redis.Redis, wait_until: Wait
) -> None:
    mark_until_sure(connection, wait_until)
    connection.hset(keys.MARKS, "last", read_clock(connection) + 3600)
    assert not find(connection).is_sure


def test_a_longer_lease_of_its_own_keeps_a_silent_worker_alive_for_others(
    connection: redis.Redis, wait_until: Wait
) -> None:
    beat(connection, "silent")
    connection.zadd(keys.WORKERS, {"patient": read_clock(connection) + 60.0})
    wait_until(lambda: find(connection).workers)
    assert find(connection).workers == ["silent"]


def test_a_variable_sets_the_lease() -> None:
    assert read_lease({}) == read_lease({"FLOWQ_LEASE": " "}) == Lease(5.0)
    lease = read_lease({"FLOWQ_LEASE": "20"})
    assert lease == Lease(20.0)
    assert lease.beat_s < lease.lease_s < lease.silence_s


@pytest.mark.parametrize("text", ["long", "nan", "inf", "0", "-5", "0.1", "61"])
def test_a_lease_that_is_no_number_or_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"FLOWQ_LEASE is a number of seconds from 0\.2 to 60"):
        read_lease({"FLOWQ_LEASE": text})
