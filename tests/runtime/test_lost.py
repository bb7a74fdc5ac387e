"""A worker is lost when it was silent while the server took writes, and not before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from flowq.errors import UsageError
from flowq.runtime import keys
from flowq.runtime.connections import read_clock
from flowq.runtime.maintenance import Lease, Lost, find_lost, read_lease
from flowq.workers.supervisor import LONGEST_PAUSE_S

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


SECONDS = (5.0, 7.0, 20.0, 60.0)
"""Leases that the environment allows, the shortest and the longest among them."""


def leave_a_gap(connection: redis.Redis, gap_s: float, victim: Lease) -> None:
    """Make all as it is at the end of a gap before which somebody looked for a long time.

    The last heartbeat of the worker `victim` came as long before the gap as it can.
    """
    now_s = read_clock(connection)
    connection.hset(keys.MARKS, mapping={"since": now_s - 1000.0, "last": now_s - gap_s})
    beat_at_s = now_s - gap_s - victim.beat_s
    connection.zadd(keys.WORKERS, {"victim": beat_at_s + victim.lease_s})


@pytest.mark.parametrize("looker_s", SECONDS)
@pytest.mark.parametrize("victim_s", SECONDS)
def test_no_gap_makes_a_worker_look_lost_to_one_with_another_lease(
    connection: redis.Redis, looker_s: float, victim_s: float
) -> None:
    looker, victim = Lease(looker_s), Lease(victim_s)
    # As long as the looker overlooks, and the longest pause between two attempts of the victim:
    leave_a_gap(connection, looker.gap_s - 0.5, victim)
    assert find_lost(connection, looker)[::2] == (True, [])
    connection.zincrby(keys.WORKERS, -LONGEST_PAUSE_S, "victim")
    assert find_lost(connection, looker)[::2] == (True, [])

    leave_a_gap(connection, looker.gap_s + 0.5, victim)
    assert not find_lost(connection, looker).is_sure
    # Then everybody has time for several attempts:
    assert looker.silence_s >= Lease().silence_s > 3 * LONGEST_PAUSE_S


@pytest.mark.parametrize("looker_s", SECONDS)
@pytest.mark.parametrize("victim_s", SECONDS)
def test_a_worker_is_found_by_one_with_another_lease_once_it_is_silent_for_long(
    connection: redis.Redis, looker_s: float, victim_s: float
) -> None:
    looker = Lease(looker_s)
    leave_a_gap(connection, looker.look_s, Lease(victim_s))
    over_s = looker.silence_s - looker.lease_s
    connection.zadd(keys.WORKERS, {"victim": read_clock(connection) - over_s + 0.5})
    assert find_lost(connection, looker).workers == []
    connection.zincrby(keys.WORKERS, -0.5, "victim")
    assert find_lost(connection, looker).workers == ["victim"]


def test_a_variable_sets_the_lease() -> None:
    assert read_lease({}) == read_lease({"FLOWQ_LEASE": " "}) == Lease(5.0)
    assert read_lease({"FLOWQ_LEASE": "5"}) == Lease(5.0)
    lease = read_lease({"FLOWQ_LEASE": "20"})
    assert lease == Lease(20.0)
    assert lease.beat_s < lease.lease_s < lease.silence_s


@pytest.mark.parametrize("text", ["long", "nan", "inf", "0", "-5", "0.2", "4.9", "61"])
def test_a_lease_that_is_no_number_or_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"FLOWQ_LEASE must be .* from 5 \(the default\) to 60"):
        read_lease({"FLOWQ_LEASE": text})
