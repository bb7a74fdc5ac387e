"""RQ's tools work with our workers: commands, suspension, listings, `rq worker -w`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rq
import worker_jobs
from rq.command import (
    send_kill_horse_command,
    send_shutdown_command,
    send_stop_execution_command,
    send_stop_job_command,
)
from rq.job import JobStatus
from rq.suspension import resume, suspend
from rq.worker import BaseWorker

from flowq.runtime.queue import Queue
from tests import JOBS_FOLDER
from tests.workers.forked_workers import ForkedWorker

Start = Callable[..., ForkedWorker]
Wait = Callable[..., None]
RQ = str(Path(sys.executable).with_name("rq"))


def test_stop_job_ends_that_job_alone_as_stopped(
    queue: Queue, start_worker: Start, wait_until: Wait, mode: str
) -> None:
    start_worker(mode=mode, concurrency=2)
    options = {"on_stopped": rq.Callback(worker_jobs.on_stopped), "retry": rq.Retry(max=3)}
    stopped = queue.enqueue(worker_jobs.tell_pid, "one", **options)
    other = queue.enqueue(worker_jobs.tell_pid, "two")
    wait_until(lambda: queue.connection.get("one") and queue.connection.get("two"), 10)
    send_stop_job_command(queue.connection, stopped.id)
    wait_until(lambda: stopped.get_status() is JobStatus.STOPPED, 5)
    assert stopped.latest_result().exc_string.startswith("Job stopped by user")  # as with RQ
    wait_until(lambda: queue.connection.lrange("callbacks", 0, -1), 5)
    assert queue.connection.lrange("callbacks", 0, -1) == [f"stopped {stopped.id}".encode()]
    assert other.get_status() is JobStatus.STARTED
    assert stopped.id in queue.failed_job_registry.get_job_ids(cleanup=False)


def test_the_state_is_idle_after_a_stopped_job(
    queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    start_worker(name="w")
    job = queue.enqueue(worker_jobs.tell_pid, "one")
    wait_until(lambda: queue.connection.get("one"), 10)
    send_stop_job_command(queue.connection, job.id)
    wait_until(lambda: queue.connection.hget("rq:worker:w", "state") == b"idle")
    assert job.get_status() is JobStatus.STOPPED


def test_stop_execution_ends_that_execution(
    queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    start_worker()
    job = queue.enqueue(worker_jobs.tell_pid, "one")
    wait_until(lambda: queue.connection.get("one"), 10)
    execution = job.get_executions()[0]
    send_stop_execution_command(queue.connection, job.id, execution.id)
    wait_until(lambda: job.get_status() is JobStatus.STOPPED)


def test_kill_horse_fails_what_runs(queue: Queue, start_worker: Start, wait_until: Wait) -> None:
    start_worker(name="w")
    job = queue.enqueue(worker_jobs.tell_pid, "one")
    wait_until(lambda: queue.connection.get("one"), 10)
    send_kill_horse_command(queue.connection, "w")
    wait_until(lambda: job.get_status() is JobStatus.FAILED)


def test_shutdown_lets_the_worker_finish(
    queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    worker = start_worker(name="w")
    job = queue.enqueue(worker_jobs.sleep, 0.3)
    wait_until(lambda: job.get_status() is JobStatus.STARTED, 10)
    send_shutdown_command(queue.connection, "w")
    assert worker.wait(60) == 0
    assert job.get_status() is JobStatus.FINISHED


def test_a_suspended_worker_claims_nothing(
    queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    suspend(queue.connection)
    start_worker(name="w")
    job = queue.enqueue(worker_jobs.nothing)
    wait_until(lambda: queue.connection.hget("rq:worker:w", "state") == b"suspended", 10)
    assert job.get_status() is JobStatus.QUEUED
    resume(queue.connection)
    wait_until(lambda: job.get_status() is JobStatus.FINISHED)
    wait_until(lambda: queue.connection.hget("rq:worker:w", "state") == b"idle")


def test_rq_sees_the_worker_and_what_it_executes(
    queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    start_worker(name="w", queues=["default", "other"], concurrency=2)
    jobs = [queue.enqueue(worker_jobs.tell_pid, key) for key in ("one", "two")]
    wait_until(lambda: queue.connection.get("one") and queue.connection.get("two"), 10)
    (worker,) = BaseWorker.all(connection=queue.connection)
    assert worker.queue_names() == ["default", "other"]
    assert worker.get_state() == "busy"
    executing = {execution.job_id for execution in worker.get_current_executions()}
    assert executing == {job.id for job in jobs}
    assert set(queue.started_job_registry.get_job_ids()) == executing
    info = subprocess.run(
        [RQ, "info", "--url", url_of(queue)], capture_output=True, text=True, check=True
    )
    assert "1 workers, 1 queues" in info.stdout
    assert "busy" in info.stdout


def url_of(queue: Queue) -> str:
    options = queue.connection.connection_pool.connection_kwargs
    return f"unix://{options['path']}"


@pytest.mark.parametrize("name", ["flowq.Worker", "flowq.MultiprocessingWorker"])
def test_rq_worker_takes_our_classes(queue: Queue, name: str) -> None:
    future = queue.enqueue(worker_jobs.add, 5, 6, deferred=True)
    blocker = queue.enqueue(worker_jobs.add, 1, 2, blocked_by=future)
    failing = queue.enqueue(worker_jobs.fail)
    future.release()
    subprocess.run(
        [
            RQ,
            "worker",
            "-w",
            name,
            "--burst",
            "--quiet",
            "--url",
            url_of(queue),
            "--path",
            JOBS_FOLDER,
        ],
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": JOBS_FOLDER},
    )
    assert blocker.return_value() == 3
    assert future.return_value() == 11
    assert failing.get_status() is JobStatus.FAILED


def test_the_json_serializer_is_used_throughout(
    queue: Queue, drain: Callable[..., Any], mode: str
) -> None:
    serializer = "rq.serializers.JSONSerializer"
    plain = rq.Queue(connection=queue.connection, serializer=serializer)
    job = plain.enqueue(worker_jobs.add, 1, 2)
    drain(mode=mode, serializer=serializer)
    assert job.return_value() == 3


def test_scheduled_jobs_and_retries_with_a_pause_are_queued_when_they_are_due(
    queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    start_worker(mode="warm")
    job = queue.enqueue(worker_jobs.fail_once, "runs", retry=rq.Retry(max=1, interval=1))
    wait_until(lambda: job.get_status() is JobStatus.SCHEDULED, 10)
    wait_until(lambda: job.get_status() is JobStatus.FINISHED, 5)
    assert queue.connection.get("rq:scheduler-lock:default") == b"flowq"


def test_rqs_scheduler_keeps_a_queue_that_it_has(queue: Queue) -> None:
    from flowq.workers.redis_side import RedisSide

    connection = queue.connection
    job = queue.enqueue(worker_jobs.nothing)
    connection.lrem(queue.key, 1, job.id)
    connection.zadd("rq:scheduled:default", {job.id: 1})
    connection.set("rq:scheduler-lock:default", "somebody")
    redis_side = RedisSide(connection, "w", ["default"], 30)
    redis_side.queue_due()
    assert queue.job_ids == []
    connection.delete("rq:scheduler-lock:default")
    redis_side.queue_due()
    assert queue.job_ids == [job.id]


def test_a_scheduled_job_with_a_rate_limit_goes_rqs_way(
    queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    from datetime import UTC, datetime

    from rq.rate_limit import RateLimit

    plain = rq.Queue(connection=queue.connection)
    job = plain.enqueue_at(
        datetime.now(UTC), worker_jobs.nothing, rate_limit=RateLimit(key="k", concurrency=1)
    )
    start_worker()
    wait_until(lambda: job.get_status() is JobStatus.FINISHED, 10)


def test_a_server_that_goes_away_in_mid_job_is_waited_for(tmp_path: Path, wait_until: Wait) -> None:
    from flowq import server
    from flowq.workers import start

    binary = server_binary()
    process = run_server(binary, tmp_path)
    url = f"unix://{tmp_path}/s"
    connection = server.connect(url)
    queue = Queue(connection=connection)
    worker = start(url=url, paths=[JOBS_FOLDER], mode="warm")
    try:
        job = queue.enqueue(
            worker_jobs.touch_and_wait, str(tmp_path / "began"), str(tmp_path / "go")
        )
        wait_until((tmp_path / "began").exists, 10)
        process.kill()
        process.wait()
        (tmp_path / "go").touch()
        process = run_server(binary, tmp_path)
        wait_until(lambda: job.get_status() is JobStatus.FINISHED, 10)
        for _ in range(2):  # the second one finds the worker idle
            again = queue.enqueue(worker_jobs.nothing)
            wait_until(lambda again=again: again.get_status() is JobStatus.FINISHED, 3)
    finally:
        worker.kill()
        worker.wait()
        process.kill()
        process.wait()


def server_binary() -> str:
    from flowq.server.embedded import find_binary

    return str(find_binary())


def run_server(binary: str, folder: Path) -> subprocess.Popen[bytes]:
    from flowq import server
    from flowq.errors import ServerUnavailable

    options = ["--port", "0", "--unixsocket", f"{folder}/s", "--dir", str(folder)]
    options += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
    while True:
        try:
            server.connect(f"unix://{folder}/s").close()
        except ServerUnavailable:
            continue
        return process
