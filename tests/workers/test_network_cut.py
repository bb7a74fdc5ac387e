"""Networks that swallow everything and close nothing: noticed, survived, and nothing done twice."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import worker_jobs
from rq import Retry
from rq.command import send_shutdown_command
from rq.job import JobStatus

from flowq import client, server
from flowq.plan import Call, Commit, Enqueue, Plan, Release
from flowq.runtime.queue import Queue
from flowq.workers import Worker
from flowq.workers.address import address_of
from flowq.workers.redis_side import RedisSide
from flowq.workers.wakeup import Wakeup
from tests.runtime.server_processes import is_alive
from tests.workers.black_hole import BlackHole
from tests.workers.forked_workers import ForkedWorker
from tests.workers.real_servers import Servers

Start = Callable[..., ForkedWorker]
Wait = Callable[..., None]
LIMIT_S = 0.3


@pytest.fixture
def proxy(connection: redis.Redis) -> Iterator[BlackHole]:
    """A proxy in front of the test server."""
    with BlackHole(connection.connection_pool.connection_kwargs["path"]) as started:
        yield started


def pause(wait_until: Wait, seconds: float) -> None:
    """Let the limit pass."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until)


def is_listening(queue: Queue) -> bool:
    return bool(queue.connection.smembers("rq:workers"))


def test_a_job_that_ends_while_the_network_is_cut_is_told_afterwards(
    queue: Queue, proxy: BlackHole, start_worker: Start, wait_until: Wait, tmp_path: Path
) -> None:
    began, go = tmp_path / "began", tmp_path / "go"
    job = queue.enqueue(worker_jobs.touch_and_wait, str(began), str(go))
    start_worker(url=proxy.url(LIMIT_S))
    wait_until(began.exists, 10)
    proxy.cut()
    go.touch()
    pause(wait_until, 2 * LIMIT_S)
    assert job.get_status() is JobStatus.STARTED
    proxy.mend()
    wait_until(lambda: job.get_status() is JobStatus.FINISHED)
    assert len(job.results()) == 1
    assert not queue.connection.zcard("rq:wip:default")
    after = queue.enqueue(worker_jobs.add, 1, 2)
    wait_until(lambda: after.return_value() == 3)


def test_an_idle_worker_notices_that_the_network_is_cut(
    queue: Queue, proxy: BlackHole, start_worker: Start, wait_until: Wait
) -> None:
    start_worker(url=proxy.url(LIMIT_S))
    wait_until(lambda: proxy.count(b"SUBSCRIBE") and is_listening(queue), 10)
    proxy.cut()
    job = queue.enqueue(worker_jobs.add, 1, 2)
    pause(wait_until, 2 * LIMIT_S)
    proxy.mend()
    wait_until(lambda: job.return_value() == 3)


def test_a_turn_whose_connection_alone_is_cut_is_said_again(
    queue: Queue,
    proxy: BlackHole,
    drain: Callable[..., Worker],
    start_worker: Start,
    wait_until: Wait,
    tmp_path: Path,
) -> None:
    drain()  # then the server knows the function, and other connections do not speak of it
    began, go = tmp_path / "began", tmp_path / "go"
    job = queue.enqueue(worker_jobs.touch_and_wait, str(began), str(go))
    queue.enqueue(worker_jobs.tell_pid, "pid")  # a busy worker does not stand and wait
    start_worker(url=proxy.url(LIMIT_S), concurrency=2)
    wait_until(lambda: began.exists() and queue.connection.get("pid"), 10)
    proxy.cut(b"flowq_turn")
    go.touch()
    wait_until(lambda: job.get_status() is JobStatus.FINISHED)


def test_what_another_worker_took_over_during_the_cut_is_left_to_it(
    queue: Queue, proxy: BlackHole, start_worker: Start, wait_until: Wait
) -> None:
    job = queue.enqueue(worker_jobs.tell_pid_once, "pid")
    start_worker(url=proxy.url(LIMIT_S), name="cut")
    wait_until(lambda: queue.connection.get("pid"), 10)
    pid = int(queue.connection.get("pid") or 0)
    proxy.cut()
    assert not RedisSide(queue.connection, "undertaker", ["default"], 30).recover("cut", 2)
    start_worker()
    wait_until(lambda: job.get_status() is JobStatus.FINISHED, 10)
    assert is_alive(pid)
    proxy.mend()
    wait_until(lambda: not is_alive(pid))
    assert job.return_value() == "done"
    assert len(job.results()) == 1
    assert not queue.connection.zcard("rq:wip:default")


def test_what_arrives_only_after_the_cut_does_nothing_twice(
    queue: Queue, proxy: BlackHole, start_worker: Start, wait_until: Wait, tmp_path: Path
) -> None:
    jobs = [queue.enqueue(worker_jobs.append_line, str(tmp_path / "ran")) for _ in range(300)]
    start_worker(url=proxy.url(LIMIT_S), concurrency=2)
    wait_until((tmp_path / "ran").exists, 10)
    proxy.cut()
    pause(wait_until, 2 * LIMIT_S)
    proxy.mend()
    wait_until(lambda: not queue.count)
    proxy.deliver()
    more = [queue.enqueue(worker_jobs.append_line, str(tmp_path / "ran")) for _ in range(300)]
    check_each_ran_once(queue, jobs + more, tmp_path / "ran", wait_until)


def check_each_ran_once(queue: Queue, jobs: list[Any], path: Path, wait_until: Wait) -> None:
    wait_until(lambda: all(job.get_status() is JobStatus.FINISHED for job in jobs), 15)
    assert Counter(path.read_text().split()) == {job.id: 1 for job in jobs}
    wait_until(lambda: not queue.connection.zcard("rq:wip:default"))
    assert not queue.connection.keys("rq:execution*")


def test_a_server_that_is_stopped_for_longer_than_the_limit_has_nothing_done_twice(
    start_worker: Start, wait_until: Wait, tmp_path: Path
) -> None:
    with Servers(tmp_path) as servers:
        started = servers.start()
        queue = Queue(connection=started.connection)
        jobs = [queue.enqueue(worker_jobs.append_line, str(tmp_path / "ran")) for _ in range(600)]
        start_worker(url=f"{started.url}?socket_timeout={LIMIT_S}", concurrency=2)
        wait_until((tmp_path / "ran").exists, 10)
        for _ in range(3):
            os.kill(started.process.pid, signal.SIGSTOP)
            pause(wait_until, 2 * LIMIT_S)
            os.kill(started.process.pid, signal.SIGCONT)
            pause(wait_until, LIMIT_S / 3)
        check_each_ran_once(queue, jobs, tmp_path / "ran", wait_until)


def test_a_job_that_asks_the_server_during_the_cut_fails_and_is_retried(
    queue: Queue, proxy: BlackHole, start_worker: Start, wait_until: Wait, tmp_path: Path
) -> None:
    began, go = tmp_path / "began", tmp_path / "go"
    words = (str(began), str(go))
    job = queue.enqueue(worker_jobs.wait_and_count, *words, retry=Retry(max=1))
    start_worker(url=proxy.url(LIMIT_S))
    wait_until(began.exists, 10)
    proxy.cut()
    go.touch()
    pause(wait_until, 2 * LIMIT_S)
    proxy.mend()
    wait_until(lambda: job.get_status() is JobStatus.FINISHED)
    job.refresh()
    assert job.retries_left == 0
    assert queue.connection.get("runs") == b"1"


def test_a_subscription_that_alone_is_cut_is_made_anew(
    queue: Queue, proxy: BlackHole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.workers.periodic.SIGN_S", 0.1)
    with closing(server.connect(proxy.url(LIMIT_S))) as connection:
        worker = Worker(["default"], connection=connection, mode="warm", name="w")
        cuts: list[int] = []
        deadline = time.monotonic() + 5

        def cut_then_end() -> bool:
            if not cuts and proxy.count(b"SUBSCRIBE"):
                proxy.cut(b"SUBSCRIBE")
                cuts.append(proxy.count(b"SUBSCRIBE"))
            elif cuts and proxy.count(b"SUBSCRIBE") > cuts[0]:
                send_shutdown_command(queue.connection, "w")
            return time.monotonic() > deadline

        worker.work(logging_level="CRITICAL", until=cut_then_end)
    assert time.monotonic() < deadline, "it has not heard the command"


def test_a_subscription_that_lives_gives_a_sign_of_it(
    connection: redis.Redis, proxy: BlackHole, wait_until: Wait
) -> None:
    with closing(server.connect(proxy.url(LIMIT_S))) as through:
        bell = Wakeup(address_of(through), "commands", ["rq:queue:default"])
        bell.open()
        for _ in range(3):
            bell.ask_for_sign()
            pause(wait_until, 1.5 * LIMIT_S)
            assert bell.listen() == []
        proxy.cut()
        bell.ask_for_sign()
        pause(wait_until, 1.5 * LIMIT_S)
        with pytest.raises(redis.TimeoutError):
            bell.ask_for_sign()
        bell.close()


def test_whoever_follows_a_run_notices_the_cut_and_goes_on(
    connection: redis.Redis, proxy: BlackHole
) -> None:
    enqueue = Enqueue("r1-only", "only", Call("operator:neg"), deferred=True)
    plan = Plan("r1", "demo", {}, (enqueue, Commit("r1"), Release("r1-only")))
    client.submit(plan, connection)
    with closing(server.connect(proxy.url(LIMIT_S))) as through:
        statuses = client.Run("r1", through).observe(0.05, while_away=proxy.mend)
        next(statuses)
        proxy.cut()
        assert not next(statuses)[0].is_ended
        client.Run("r1", connection).cancel()
        assert next(status for status, _ in statuses if status.is_ended).state == "canceled"
