"""A server that refuses for a while: nothing is done twice, and it is said once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import worker_jobs
from rq import Retry
from rq.registry import StartedJobRegistry

from flowq import server
from flowq.runtime.connections import read_clock
from flowq.runtime.maintenance import Lease, find_lost
from flowq.runtime.queue import Queue
from flowq.workers.address import address_of
from flowq.workers.child.rq_work import RQWork
from flowq.workers.messages import Settings
from flowq.workers.periodic import Duty, PeriodicWork
from flowq.workers.redis_side import Capacity, RedisSide
from tests.workers.forked_workers import ForkedWorker
from tests.workers.real_servers import REFUSALS

Start = Callable[..., ForkedWorker]
Wait = Callable[..., None]


@pytest.fixture
def own() -> Iterator[server.Server]:
    """A server of the test's own, which may be left in any state."""
    with server.temporary() as started:
        yield started


def lines_of(folder: Path, word: str) -> list[str]:
    return [line for line in (folder / "worker.log").read_text().splitlines() if word in line]


def test_a_job_that_ends_while_the_server_refuses_runs_once_and_is_told_of_in_two_lines(
    own: server.Server, start_worker: Start, wait_until: Wait, tmp_path: Path, mode: str
) -> None:
    with closing(own.connect()) as connection:
        queue = Queue(connection=connection)
        start_worker(url=own.url, mode=mode, concurrency=2, log_folder=str(tmp_path))
        for times, (answer, (begin, end)) in enumerate(REFUSALS.items(), 1):
            ran = tmp_path / answer
            future = queue.enqueue(worker_jobs.nothing, deferred=True)
            for _ in range(4):
                queue.enqueue(worker_jobs.append_id_slowly, str(ran), 0.3, blocked_by=future)
            future.release()
            wait_until(ran.exists, 20)
            begin(connection)
            told = partial(told_so_often, tmp_path, times)
            wait_until(partial(told, "cannot be used"), 10)
            wait_until(Path(f"{ran}.ended").exists, 10)
            pause(wait_until, 1.0)  # enough for several attempts
            end(connection)
            wait_until(lambda future=future: future.get_status() == "finished", 20)
            wait_until(partial(told, "can be used again"), 10)
            assert set(Counter(ran.read_text().split()).values()) == {1}, answer
            assert len(lines_of(tmp_path, "can")) == 2 * times, answer
    assert not lines_of(tmp_path, "Traceback")


def told_so_often(folder: Path, times: int, word: str) -> bool:
    return len(lines_of(folder, word)) == times


def pause(wait_until: Wait, seconds: float) -> None:
    import time

    at = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > at, seconds + 5)


def test_a_worker_goes_on_with_fewer_connections_than_it_wants(
    own: server.Server, start_worker: Start, wait_until: Wait, tmp_path: Path
) -> None:
    with closing(own.connect()) as connection:
        queue = Queue(connection=connection)
        connection.config_set("maxclients", 1 + 4)
        start_worker(url=own.url, concurrency=4, log_folder=str(tmp_path))
        wait_until(lambda: connection.scard("rq:workers"), 20)
        jobs = [queue.enqueue(worker_jobs.sleep, 0.02) for _ in range(20)]
        wait_until(lambda: all(job.get_status() == "finished" for job in jobs), 20)
        wait_until(lambda: lines_of(tmp_path, "cannot be used"), 5)
        connection.config_set("maxclients", 100)
        wait_until(lambda: lines_of(tmp_path, "can be used again"), 10)
        assert len(lines_of(tmp_path, "cannot be used")) == 1
        job = queue.enqueue(worker_jobs.nothing)
        wait_until(lambda: job.get_status() == "finished")


def test_a_worker_that_ends_during_a_refusal_says_its_last_ends_first(
    own: server.Server, start_worker: Start, wait_until: Wait, tmp_path: Path
) -> None:
    with closing(own.connect()) as connection:
        job = Queue(connection=connection).enqueue(
            worker_jobs.append_id_slowly, str(tmp_path / "ran"), 0.3
        )
        worker = start_worker(url=own.url, log_folder=str(tmp_path))
        wait_until((tmp_path / "ran").exists, 20)
        connection.config_set("maxmemory", 1)
        worker.terminate()
        wait_until((tmp_path / "ran.ended").exists)
        wait_until(lambda: lines_of(tmp_path, "cannot be used"))
        connection.config_set("maxmemory", 0)
        assert worker.wait(60) == 0
        assert job.get_status() == "finished"


def test_periodic_work_that_fails_again_and_again_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = [ValueError("no")] * 3

    def sweep() -> None:
        if failures:
            raise failures.pop()

    duty: Any = Duty(0.0, sweep)
    caplog.set_level(logging.INFO, "rq.worker")
    logging.getLogger("rq.worker").propagate = True
    for _ in range(5):
        PeriodicWork._do(None, duty)  # type: ignore[arg-type]
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "sweep" in caplog.records[1].getMessage()


# --- RQ's own maintenance, which knows nothing of refusals ---


def start_job(connection: redis.Redis) -> tuple[Any, RedisSide]:
    """Begin a job as a worker would, which then says nothing more."""
    job = Queue(connection=connection).enqueue(worker_jobs.nothing, retry=Retry(1))
    redis_side = RedisSide(connection, "w", ["default"], 30)
    redis_side.beat(5, 60, [])
    [claim] = redis_side.turn([], Capacity(1, 1, 1)).claims
    redis_side.beat(5, 60, [(claim, False)])
    return job, redis_side


def test_rqs_maintenance_does_not_start_a_job_again_that_was_not_heard_of_for_long(
    connection: redis.Redis,
) -> None:
    job, _ = start_job(connection)
    registry = StartedJobRegistry("default", connection=connection)
    registry.cleanup(timestamp=read_clock(connection) + 1800)
    assert job.get_status() == "started"
    assert registry.count == 1
    registry.cleanup(timestamp=read_clock(connection) + 7200)  # none of our workers was left
    assert job.get_status() == "queued"


def test_our_workers_leave_rqs_maintenance_until_all_could_be_heard(
    connection: redis.Redis, wait_until: Wait
) -> None:
    job, _ = start_job(connection)
    for key in connection.keys("rq:wip:*"):
        connection.zadd(key, dict.fromkeys(connection.zrange(key, 0, -1), 0))
    lease = Lease(0.2)
    rq_work = RQWork(Settings("w", address_of(connection), lease=lease), connection)
    rq_work.clean_registries(["default"])
    assert job.get_status() == "started"
    wait_until(lambda: find_lost(connection, lease).is_sure)
    rq_work.clean_registries(["default"])
    assert job.get_status() == "queued"
