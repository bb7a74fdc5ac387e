"""When a worker ends, where it looks for code, and how quickly it wakes up."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import worker_jobs
from rq.command import send_shutdown_command
from rq.job import JobStatus

from flowq.errors import UsageError
from flowq.runtime import keys, scripts
from flowq.runtime.connections import retry_while_unavailable
from flowq.runtime.maintenance import list_functions
from flowq.runtime.queue import Queue
from flowq.workers import MultiprocessingWorker, Worker
from flowq.workers.child.timeouts import AlarmDeathPenalty, ThreadDeathPenalty
from flowq.workers.launch import run_command
from tests.conftest import LIMIT_S
from tests.workers.forked_workers import ForkedWorker

Start = Callable[..., ForkedWorker]
Wait = Callable[..., None]


def test_burst_ends_when_the_queues_are_empty(queue: Queue, drain: Callable[..., Any]) -> None:
    jobs = [queue.enqueue(worker_jobs.nothing) for _ in range(5)]
    drain()
    assert {job.get_status() for job in jobs} == {JobStatus.FINISHED}


def test_work_says_whether_there_was_any(queue: Queue) -> None:
    worker = Worker(["default"], connection=queue.connection, mode="warm")
    assert not worker.work(burst=True, logging_level="ERROR")
    queue.enqueue("builtins.len", [1])
    assert worker.work(burst=True, logging_level="ERROR")


def test_max_jobs_ends_after_so_many(queue: Queue, drain: Callable[..., Any]) -> None:
    for _ in range(50):
        queue.enqueue(worker_jobs.nothing)
    drain(max_jobs=7, concurrency=2)
    assert queue.count == 43


def test_an_idle_worker_ends_after_max_idle_time(queue: Queue) -> None:
    began = time.monotonic()
    worker = Worker(["default"], connection=queue.connection, mode="warm")
    worker.work(max_idle_time=1, logging_level="ERROR")
    assert time.monotonic() - began > 0.9


def test_a_worker_for_a_run_ends_with_it(
    queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    run = "rq:flowq:1:run:abc"
    queue.connection.hset(run, "state", "running")
    worker = start_worker(until_run="abc", name="w")
    wait_until(lambda: queue.connection.exists("rq:worker:w"), 10)
    assert worker.poll() is None
    queue.connection.hset(run, "state", "failed")
    assert worker.wait(60) == 0


def test_a_worker_for_a_run_that_is_gone_ends(start_worker: Start) -> None:
    assert start_worker(until_run="never").wait(60) == 0


def test_two_workers_of_one_name_are_refused(
    queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    start_worker(name="w")
    wait_until(lambda: queue.connection.exists("rq:worker:w"), 10)
    second = Worker(["default"], name="w", connection=queue.connection)
    with pytest.raises(ValueError, match="active worker named 'w'"):
        second.work(burst=True, logging_level="ERROR")


def test_a_killed_worker_is_followed_by_one_of_the_same_name(
    queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    first = start_worker(name="w")
    job = queue.enqueue(worker_jobs.hang_once, "runs")
    wait_until(lambda: queue.connection.get("runs") == b"1", 10)
    first.kill()
    start_worker(name="w")
    wait_until(lambda: job.get_status() is JobStatus.FINISHED, 12)
    assert queue.connection.hget(job.key, "flowq_crashes") == b"1"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--url", ""], 2, "give --url"),
        (["--url", "redis://:secret@127.0.0.1:1/0"], 4, "cannot be used: "),
        (["--url", "redis://127.0.0.1:1/0", "-c", "0"], 2, "at least 1"),
    ],
)
def test_mistakes_on_the_command_line_are_told_in_one_line(
    options: list[str],
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "flowq.workers.launch.retry_while_unavailable",
        partial(retry_while_unavailable, within_s=0.1),
    )
    monkeypatch.setattr("logging.captureWarnings", bool)
    assert run_command(options) == code
    said = capsys.readouterr().err
    assert words in said
    assert "secret" not in said


def test_the_paths_are_for_the_children(
    queue: Queue, start_worker: Start, wait_until: Wait, tmp_path: Path, mode: str
) -> None:
    (tmp_path / "found_by_path.py").write_text("def answer():\n    return 42\n")
    job = queue.enqueue("found_by_path.answer")
    start_worker(paths=[str(tmp_path)], mode=mode)
    wait_until(lambda: job.return_value() == 42, 10)


def test_the_worker_listens_to_several_queues(
    connection: redis.Redis, start_worker: Start, wait_until: Wait
) -> None:
    start_worker(queues=["a", "b", "c"], name="w")
    wait_until(lambda: connection.hget("rq:worker:w", "state") == b"idle", 10)
    for name in "cab":
        job = Queue(name, connection=connection).enqueue(worker_jobs.nothing)
        wait_until(lambda job=job: job.get_status() is JobStatus.FINISHED)


def test_an_idle_worker_is_woken_by_the_server_and_does_not_look_by_itself(
    queue: Queue, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowq.workers.wakeup.TRUST_S", 3600.0)  # it asks again too late
    worker = Worker(["default"], name="w", connection=queue.connection, mode="warm")

    def enqueue_some() -> None:
        for _ in range(15):
            wait_until(lambda: queue.connection.hget("rq:worker:w", "state") == b"idle")
            job = queue.enqueue("time.time")
            wait_until(lambda job=job: job.return_value())

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(enqueue_some)
        done.add_done_callback(lambda _: send_shutdown_command(queue.connection, "w"))
        worker.work(logging_level="ERROR")
        done.result()


def test_no_repair_hides_from_tests_that_an_end_was_not_settled(
    connection: redis.Redis, queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    connection.function_flush()
    future = queue.enqueue(worker_jobs.nothing, deferred=True)
    queue.enqueue(worker_jobs.nothing, blocked_by=future)
    future.release()
    assert connection.zscore(keys.WATCHED, future.id) - connection.time()[0] > 10 * LIMIT_S
    start_worker()
    wait_until(lambda: future.get_status() is JobStatus.FINISHED)
    assert list_functions(connection) <= {script.function for script in scripts.HOT}


@pytest.mark.parametrize(
    ("options", "words"),
    [({"mode": "thread"}, "mode must be one of"), ({"concurrency": 0}, "at least 1")],
)
def test_options_that_cannot_be_meant_are_refused(
    connection: redis.Redis, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        Worker(["default"], connection=connection, **options)


@pytest.mark.parametrize(
    ("strategy", "first"), [("default", ["a", "a"]), ("round_robin", ["a", "b"])]
)
def test_queues_are_served_as_the_strategy_says(
    connection: redis.Redis, strategy: str, first: list[str]
) -> None:
    for name in ("a", "b"):
        for _ in range(3):
            Queue(name, connection=connection).enqueue(worker_jobs.note, name)
    worker = Worker(["a", "b"], connection=connection, mode="fork")
    worker.work(burst=True, logging_level="ERROR", dequeue_strategy=strategy)
    noted = [each.decode() for each in connection.lrange("notes", 0, -1)]
    assert noted[:2] == first
    assert sorted(noted) == list("aaabbb")


def test_without_fork_children_are_spawned(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.fork")
    assert Worker(["default"], connection=connection).mode == "multiprocessing"
    with pytest.raises(UsageError, match="needs fork"):
        Worker(["default"], connection=connection, mode="warm")


def test_the_multiprocessing_worker_spawns(connection: redis.Redis) -> None:
    assert MultiprocessingWorker(["default"], connection=connection).mode == "multiprocessing"


def loop_for_ever() -> None:
    while True:
        pass


def loop_briefly() -> None:
    deadline = time.monotonic() + 0.1
    while time.monotonic() < deadline:
        pass


def test_the_timeout_without_signals_ends_a_loop() -> None:
    with (
        pytest.raises(TimeoutError, match=r"maximum timeout value \(0.05 seconds\)"),
        ThreadDeathPenalty(0.05, TimeoutError),
    ):
        loop_for_ever()


def test_the_timeout_without_signals_is_forgotten_in_time() -> None:
    for _ in range(3):
        with ThreadDeathPenalty(0.02, TimeoutError):
            pass
    loop_briefly()


def disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


def put_another_handler() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


@pytest.fixture
def alarm() -> Iterator[None]:
    """Leave this process as it was."""
    handler = signal.getsignal(signal.SIGALRM)
    yield
    disarm()
    signal.signal(signal.SIGALRM, handler)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("first_s", [0.02, 60.0])
@pytest.mark.parametrize("change", [None, disarm, put_another_handler])
def test_the_alarm_of_one_job_serves_the_next(
    first_s: float, change: Callable[[], None] | None
) -> None:
    with AlarmDeathPenalty(first_s, TimeoutError):
        if change:
            change()
    with (
        pytest.raises(TimeoutError, match=r"maximum timeout value \(0.1 seconds\)"),
        AlarmDeathPenalty(0.1, TimeoutError),
    ):
        loop_for_ever()


@pytest.mark.usefixtures("alarm")
def test_an_alarm_that_nobody_waits_for_does_no_harm() -> None:
    with AlarmDeathPenalty(0.02, TimeoutError):
        pass
    loop_briefly()
    with AlarmDeathPenalty(60.0, TimeoutError):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0


@pytest.mark.usefixtures("alarm")
def test_an_alarm_that_a_job_lets_repeat_ends_when_it_goes_off() -> None:
    with AlarmDeathPenalty(60.0, TimeoutError):
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    loop_briefly()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("first_s", [1.0, 60.0])
def test_the_alarm_of_a_short_timeout_does_not_interrupt_a_job_with_a_longer_one(
    first_s: float,
) -> None:
    with AlarmDeathPenalty(first_s, TimeoutError):
        pass
    with AlarmDeathPenalty(180.0, TimeoutError):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 90


@pytest.mark.parametrize("timeout_s", [-1, 180])
def test_no_alarm_of_an_earlier_job_ends_one_that_has_another_handler(
    queue: Queue, drain: Callable[..., Any], timeout_s: int
) -> None:
    queue.enqueue(worker_jobs.nothing, job_timeout=1)
    job = queue.enqueue(worker_jobs.sleep_with_default_alarm, 1.5, job_timeout=timeout_s)
    drain()
    assert job.get_status() is JobStatus.FINISHED


def test_the_door_of_the_package_is_light() -> None:
    code = "import sys, flowq.workers; sys.exit('redis' in sys.modules or 'rq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
