"""Supervisors that die, and servers that go away: nothing is lost, nothing is done for ever."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import worker_jobs
from rq.job import JobStatus
from rq.utils import utcformat

from flowq import server
from flowq.plan import Call, Commit, Enqueue, Plan, Release
from flowq.runtime import keys, runs
from flowq.runtime.connections import retry_while_unavailable
from flowq.runtime.queue import Queue
from flowq.workers import Worker
from flowq.workers.address import address_of
from flowq.workers.child.main import main as be_child
from flowq.workers.children import Pool
from flowq.workers.launch import has_run_ended
from flowq.workers.messages import Settings
from flowq.workers.redis_side import Capacity, RedisSide
from flowq.workers.shared_state import SharedState
from flowq.workers.supervisor import STOPS
from flowq.workers.worker import heal
from tests.runtime.server_processes import is_alive
from tests.workers.forked_workers import ForkedWorker

Start = Callable[..., ForkedWorker]
Wait = Callable[..., None]


def held(connection: redis.Redis) -> list[bytes]:
    return connection.zrange("rq:wip:default", 0, -1)


def test_the_jobs_of_a_lost_worker_run_again_within_ten_seconds(
    queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    first = start_worker()
    job = queue.enqueue(worker_jobs.hang_once, "runs")
    wait_until(lambda: queue.connection.get("runs") == b"1", 10)
    first.kill()
    start_worker()
    wait_until(lambda: job.get_status() is JobStatus.FINISHED, 12)
    assert job.return_value() == "done"
    assert queue.connection.hget(job.key, "flowq_crashes") == b"1"
    assert queue.connection.hget(keys.METRICS, "lost") == b"1"
    assert queue.connection.hget(keys.METRICS, "ended:finished:default") == b"1"
    assert not held(queue.connection)


def test_the_children_of_a_lost_worker_end(
    queue: Queue, start_worker: Start, wait_until: Wait, mode: str
) -> None:
    worker = start_worker(mode=mode)
    queue.enqueue(worker_jobs.tell_pid, "pid")
    wait_until(lambda: queue.connection.get("pid"), 10)
    worker.kill()
    pid = int(queue.connection.get("pid") or 0)
    wait_until(lambda: not is_alive(pid))


def test_a_child_that_begins_when_its_worker_has_died_begins_no_job(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue(worker_jobs.touch, str(tmp_path / "begun"))
    redis_side = RedisSide(queue.connection, "w", ["default"], 30)
    [claim] = redis_side.turn([], Capacity(1, 1, 1)).claims
    claim.number = 1
    monkeypatch.setattr(
        "flowq.workers.child.main._watch", lambda lifeline: None
    )  # it comes too late
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    hold, held = context.Pipe(duplex=False)
    shared = SharedState(context)
    shared.allow(1, 2)
    ours.send_bytes(pickle.dumps(("run", [claim.message], True)))
    settings = Settings("w", address_of(queue.connection))
    gate, gone = context.Pipe(duplex=False)
    process = context.Process(
        target=_be_orphan, args=(gate, gone, ours, held, theirs, hold, shared, settings)
    )
    process.start()
    for end in (ours, held, theirs, hold, gone):
        end.close()
    process.join(60)
    assert process.exitcode is not None
    assert not (tmp_path / "begun").exists()


def _be_orphan(gate: Any, gone: Any, ours: Any, held: Any, *arguments: Any) -> None:
    for end in (gone, ours, held):
        end.close()
    gate.poll(10)  # the other ends of all of them are closed in this order, the gate's last
    be_child(*arguments)


def test_what_a_job_has_started_ends_when_somebody_kills_the_process_of_the_job(
    queue: Queue, start_worker: Start, wait_until: Wait, tmp_path: Path, mode: str
) -> None:
    start_worker(mode=mode)
    job = queue.enqueue(worker_jobs.ignore_sigterm, str(tmp_path / "pid"))
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), 10)
    started = int((tmp_path / "pid").read_text())
    os.kill(os.getpgid(started), signal.SIGKILL)  # the one of the job leads the group
    wait_until(lambda: job.get_status() is JobStatus.FAILED)
    wait_until(lambda: not is_alive(started))


def bury_all(connection: redis.Redis, max_crashes: int = 2) -> list[Any]:
    redis_side = RedisSide(connection, "undertaker", ["default"], 30)
    names = connection.zrange("rq:flowq:1:workers", 0, -1)
    return [claim for name in names for claim in redis_side.recover(name.decode(), max_crashes)]


def claim_as(connection: redis.Redis, worker: str, count: int = 1) -> RedisSide:
    """Claim jobs as a worker would that dies at once."""
    redis_side = RedisSide(connection, worker, ["default"], 30)
    redis_side.beat(5, 60, [])
    redis_side.turn([], Capacity(count, count, count))
    return redis_side


@pytest.mark.usefixtures("short_lease")
def test_a_job_that_loses_its_worker_too_often_fails_through_settling(
    queue: Queue, drain: Callable[..., Any]
) -> None:
    future = queue.enqueue(worker_jobs.nothing, deferred=True, on_blocker_failure="run")
    bad = queue.enqueue(worker_jobs.nothing, blocked_by=future)
    future.release()
    for crash in range(2):
        claim_as(queue.connection, f"w{crash}")
        assert not bury_all(queue.connection)
        assert queue.job_ids == [bad.id]
    claim_as(queue.connection, "w2")
    queue.connection.hset(bad.key, "started_at", utcformat(datetime.now(UTC) - timedelta(hours=1)))
    worker = Worker(["default"], connection=queue.connection, mode="warm")
    seen = []
    queue.connection.zadd("rq:flowq:1:workers", {"w2": 0})
    worker.work(
        logging_level="ERROR",
        until=lambda: seen.append(future.get_status()) or future.get_status() == "finished",
    )
    assert bad.get_status() is JobStatus.FAILED
    result = bad.latest_result()
    assert result is not None
    assert "that happened 3 times" in str(result.exc_string)
    bad.refresh()
    assert bad.started_at is not None
    assert bad.ended_at is not None
    assert bad.ended_at - bad.started_at > timedelta(minutes=59)
    assert future.get_status() is JobStatus.FINISHED


def test_a_job_that_must_not_be_repeated_fails_at_the_first_crash(queue: Queue) -> None:
    job = queue.enqueue(worker_jobs.nothing)
    queue.connection.hset(job.key, "flowq_on_crash", "fail")
    claim_as(queue.connection, "w")
    failing = bury_all(queue.connection)
    assert [claim.job_id for claim in failing] == [job.id]
    assert not queue.job_ids


def test_a_job_that_was_lost_while_its_run_was_canceled_does_not_run_again(queue: Queue) -> None:
    enqueue = Enqueue("r1-only", "only", Call("operator:neg"), deferred=True)
    plan = Plan("r1", "demo", {}, (enqueue, Commit("r1"), Release("r1-only")))
    runs.submit(plan, queue.connection)
    claim_as(queue.connection, "w")
    runs.cancel("r1", queue.connection)
    assert not bury_all(queue.connection)
    assert not queue.job_ids
    assert runs.get_record("r1", queue.connection).state == "canceled"


def test_what_was_only_handed_over_is_not_charged(queue: Queue) -> None:
    jobs = [queue.enqueue(worker_jobs.nothing) for _ in range(3)]
    redis_side = RedisSide(queue.connection, "w", ["default"], 30)
    turn = redis_side.turn([], Capacity(3, 3, 3))
    redis_side.beat(5, 60, [(claim, index > 0) for index, claim in enumerate(turn.claims)])
    bury_all(queue.connection)
    crashes = [queue.connection.hget(job.key, "flowq_crashes") for job in jobs]
    assert crashes == [b"1", None, None]
    assert sorted(queue.job_ids) == sorted(job.id for job in jobs)


def test_what_a_lost_worker_reports_later_changes_nothing(queue: Queue) -> None:
    job = queue.enqueue(worker_jobs.nothing)
    redis_side = RedisSide(queue.connection, "w", ["default"], 30)
    redis_side.beat(5, 60, [])
    claims = redis_side.turn([], Capacity(1, 1, 1)).claims
    bury_all(queue.connection)
    claims[0].end = worker_jobs.make_end(claims[0].number)
    turn = redis_side.turn(claims, Capacity(0, 0, 0))
    assert turn.answers == ["lost"]
    assert job.get_status() is JobStatus.QUEUED
    assert redis_side.beat(5, 60, [(claims[0], False)]) == {claims[0].execution_id}


@pytest.mark.usefixtures("short_lease")
def test_a_claim_whose_answer_was_lost_is_put_back(queue: Queue, drain: Callable[..., Any]) -> None:
    job = queue.enqueue(worker_jobs.add, 1, 2)
    claim_as(queue.connection, "w")
    queue.connection.delete("rq:worker:w")
    other = queue.enqueue(worker_jobs.add, 3, 4)
    drain(name="w")
    assert [job.return_value(), other.return_value()] == [3, 7]


class LateWorker(Worker):
    """Begins while the server is about to be back."""

    failures = 2

    def register_birth(self) -> None:
        """Register it, at the third attempt."""
        if self.failures:
            self.failures -= 1
            raise redis.ConnectionError("connection refused")
        super().register_birth()


def test_a_worker_that_begins_while_the_server_restarts_waits_for_it(queue: Queue) -> None:
    job = queue.enqueue(worker_jobs.nothing)
    LateWorker(["default"], connection=queue.connection, mode="warm").work(burst=True)
    assert job.get_status() is JobStatus.FINISHED


class Away(redis.Redis):
    """A connection to a server that is away for so many commands."""

    failures = 2

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Send it, when the server is back."""
        if self.failures:
            self.failures -= 1
            raise redis.ConnectionError("no such file")
        return super().execute_command(*arguments, **options)


def test_a_worker_process_waits_for_a_server_that_restarts(connection: redis.Redis) -> None:
    away = Away(connection_pool=connection.connection_pool)
    assert retry_while_unavailable(away.ping)
    assert away.failures == 0


def test_a_worker_of_a_run_goes_on_while_the_server_is_away(connection: redis.Redis) -> None:
    away = Away(connection_pool=connection.connection_pool)
    assert [has_run_ended("r1", away) for _ in range(3)] == [False, False, True]


def test_one_signal_lets_the_running_job_finish(
    queue: Queue, start_worker: Start, wait_until: Wait, mode: str
) -> None:
    worker = start_worker(mode=mode)
    running = queue.enqueue(worker_jobs.sleep, 0.5)
    wait_until(lambda: running.get_status() is JobStatus.STARTED, 10)
    waiting = queue.enqueue(worker_jobs.nothing)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert running.get_status() is JobStatus.FINISHED
    assert waiting.get_status() is JobStatus.QUEUED
    assert not queue.connection.smembers("rq:workers")


def test_a_second_signal_puts_the_running_job_back(
    queue: Queue, start_worker: Start, wait_until: Wait, mode: str
) -> None:
    worker = start_worker(mode=mode, name="w")
    job = queue.enqueue(worker_jobs.tell_pid, "pid")
    wait_until(lambda: queue.connection.get("pid"), 10)
    worker.send_signal(signal.SIGINT)
    wait_until(lambda: queue.connection.hget("rq:worker:w", "shutdown_requested_date"))
    at = time.monotonic() + 0.3  # a second signal that follows at once is the first one again
    wait_until(lambda: time.monotonic() > at)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(60) == 0
    assert job.get_status() is JobStatus.QUEUED
    assert queue.job_ids == [job.id]
    pid = int(queue.connection.get("pid") or 0)
    wait_until(lambda: not is_alive(pid))
    assert not held(queue.connection)
    assert queue.connection.hget(job.key, "flowq_crashes") is None


@pytest.mark.parametrize("times", [1, 2])
def test_the_log_says_what_a_signal_begins(
    queue: Queue, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    job = queue.enqueue(worker_jobs.interrupt_worker, times)
    with caplog.at_level("INFO", "rq.worker"):
        Worker(["default"], connection=queue.connection, mode="warm").work()
    assert [said for said in caplog.messages if "stopping" in said] == list(STOPS[:times])
    assert job.get_status() is (JobStatus.FINISHED if times == 1 else JobStatus.QUEUED)


@pytest.mark.parametrize("names", [["default"], ["high", "default", "low"]])
def test_a_killed_worker_loses_no_job_of_any_queue(
    connection: redis.Redis,
    start_worker: Start,
    wait_until: Wait,
    names: list[str],
    short_lease: float,
) -> None:
    queues = [Queue(name, connection=connection) for name in names]
    ids = set()
    for queue in queues:
        ids |= {queue.enqueue(worker_jobs.count_own_run).id for _ in range(300)}
    worker = start_worker(queues=names, lease_s=short_lease)
    wait_until(lambda: int(connection.get("total") or 0) > 50, 10)
    worker.kill()
    last = start_worker(queues=names, burst=False, lease_s=short_lease)
    wait_until(lambda: connection.scard("ran") == len(ids), 20)
    last.terminate()
    last.wait()
    assert {each.decode() for each in connection.smembers("ran")} == ids


def test_a_worker_for_one_run_does_not_wait_for_ever_for_a_server_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("flowq.workers.supervisor.GIVE_UP_S", 0.3)
    with closing(server.ensure(tmp_path).connect()) as connection:
        Queue(connection=connection).enqueue(worker_jobs.end_server, str(tmp_path))
        worker = Worker(["default"], connection=connection, mode="warm")
        worker.work(logging_level="CRITICAL", until=lambda: not connection.ping())
    assert not server.ensure(tmp_path).connect().keys("rq:results:*")
    server.ensure(tmp_path).stop()


def test_a_worker_that_is_told_to_end_does_not_wait_long_for_a_server_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flowq.workers.supervisor.LAST_TRY_S", 0.5)
    ended = tmp_path / "ended"
    with closing(server.ensure(tmp_path).connect()) as connection:
        words = [str(tmp_path), str(ended)]
        job = Queue(connection=connection).enqueue(worker_jobs.end_server_and_worker, *words)
        worker = Worker(["default"], connection=connection, mode="warm")
        worker.work(logging_level="ERROR")
    assert ended.exists()  # it waited for the job
    assert f"other workers will find these jobs and start them again: {job.id}" in caplog.text
    with closing(server.ensure(tmp_path).connect()) as connection:
        assert held(connection)  # with a lease that has ended by now, or soon
    server.ensure(tmp_path).stop()


def test_a_worker_survives_any_number_of_kills_of_idle_children(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.workers.restarts.YOUNG_S", 0.0)  # each of them has lived long
    worker = Worker(["default"], connection=queue.connection, mode="warm")
    killed: set[int] = set()
    pools: list[Pool] = []
    fill = Pool.fill

    def fill_and_note(self: Pool) -> None:
        pools.append(self)
        fill(self)

    monkeypatch.setattr(Pool, "fill", fill_and_note)

    def kill_another() -> bool:
        for child in pools[0].children:
            if child.shared.is_ready:
                child.process.kill()
                killed.add(child.process.pid)
        return len(killed) > 5

    worker.work(logging_level="ERROR", until=kill_another)
    assert len(killed) > 5


def test_a_worker_in_a_burst_takes_over_the_jobs_of_a_lost_one_before_it_leaves(
    queue: Queue,
    start_worker: Start,
    wait_until: Wait,
    drain: Callable[..., Worker],
    short_lease: float,
) -> None:
    first = start_worker(lease_s=short_lease)
    job = queue.enqueue(worker_jobs.hang_once, "runs")
    wait_until(lambda: queue.connection.get("runs") == b"1", 10)
    first.kill()
    first.wait()
    drain()
    assert job.get_status() is JobStatus.FINISHED


def test_a_worker_in_a_burst_does_not_wait_for_one_that_lives(
    queue: Queue, start_worker: Start, wait_until: Wait, drain: Callable[..., Worker]
) -> None:
    start_worker()
    queue.enqueue(worker_jobs.hang_once, "runs")
    wait_until(lambda: queue.connection.get("runs") == b"1", 10)
    before_s = time.monotonic()
    drain("other")
    assert time.monotonic() - before_s < 7  # after which it would be lost


def test_healing_takes_over_the_jobs_of_a_lost_worker_where_no_other_is(
    queue: Queue, start_worker: Start, wait_until: Wait, short_lease: float
) -> None:
    first = start_worker(lease_s=short_lease)
    job = queue.enqueue(worker_jobs.hang_once, "runs")
    wait_until(lambda: queue.connection.get("runs") == b"1", 10)
    first.kill()
    first.wait()
    [found] = heal(queue.connection)
    assert (found.job_id, found.what) == (job.id, "orphaned")
    assert queue.job_ids == [job.id]
    assert not held(queue.connection)
    assert heal(queue.connection) == []
    assert not queue.connection.exists("rq:workers")  # it says good-bye


def test_healing_queues_what_is_due_and_runs_no_job(queue: Queue) -> None:
    job = queue.enqueue_in(timedelta(seconds=1000), worker_jobs.touch, "no")
    queue.connection.zadd("rq:scheduled:default", {job.id: 1})
    assert heal(queue.connection) == []
    assert queue.job_ids == [job.id]
