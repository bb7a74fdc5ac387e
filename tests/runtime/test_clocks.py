"""What is due is decided by the clock of the server, whatever those of hosts say."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from rq.registry import ScheduledJobRegistry

from flowq import server
from flowq.runtime.connections import clock_warning, read_clock
from flowq.runtime.queue import Queue
from flowq.runtime.scripts import _compose, format_instant


def test_scripts_write_instants_as_rq_does(connection: redis.Redis) -> None:
    source = f"{_compose(())}\nreturn format_instant(tonumber(ARGV[1]), tonumber(ARGV[2]))"
    days = [0, 58, 59, 60, 11_016, 11_017, 20_512, *random.Random(7).sample(range(60_000), 200)]
    for day in days:
        second = day * 86_400 + (day * 7_919) % 86_400
        answer: Any = connection.eval(source, 0, second, 500_000)
        assert answer.decode() == format_instant(second + 0.5)


def test_a_script_takes_the_clock_of_the_server(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(connection=connection)
    future = queue.enqueue("operator.neg", 1, deferred=True)
    monkeypatch.setattr("time.time", lambda: 86_400.0)
    future.release()
    future.refresh()
    assert future.enqueued_at is not None
    assert abs(future.enqueued_at.timestamp() - read_clock(connection)) < 10


def test_in_is_counted_from_the_clock_of_the_server(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.runtime.queue.read_clock", lambda connection: 1_000_000.0)
    queue = Queue(connection=connection)
    for deferred in (False, True):
        job = queue.enqueue_in(timedelta(hours=1), "operator.neg", 1, deferred=deferred)
        if deferred:
            assert float(connection.hget(job.key, "flowq_at") or 0) == 1_003_600
        else:
            at = ScheduledJobRegistry(queue=queue).get_scheduled_time(job)
            assert at == datetime.fromtimestamp(1_003_600, UTC)


def test_a_clock_that_is_off_is_warned_about(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not [each for each in server.health(connection) if "clock" in each]
    theirs_s = read_clock(connection)
    monkeypatch.setattr("time.time", lambda: theirs_s + 3600)
    (warning,) = [each for each in server.health(connection) if "clock" in each]
    assert "ahead of the server's" in warning
    assert "behind" in clock_warning(100.0, 90.0, 90.1)
    assert clock_warning(100.0, 80.0, 130.0) == ""  # it may just have taken long to ask
