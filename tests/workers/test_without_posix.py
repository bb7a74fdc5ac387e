"""The worker and its children where nothing is to be found that Windows does not have.

The closest that can be had without a Windows machine: over TCP, spawned children, timeouts by a
thread, and stand-ins for the modules that differ, in the supervisor and in the children.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import worker_jobs
from rq.job import JobStatus

from flowq import server
from flowq.runtime.queue import Queue
from tests import JOBS_FOLDER
from tests.workers.real_servers import Servers

HERE = Path(__file__).parent


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server that listens to TCP only."""
    with Servers(tmp_path) as servers:
        yield servers.start().url


@pytest.fixture
def start(url: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`start(*options)`: a worker that ends with the test, also with one that fails."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*options: str) -> subprocess.Popen[bytes]:
        words = ["--url", url, "--path", JOBS_FOLDER, *options]
        environment = {**os.environ, "PYTHONPATH": str(HERE / "without_posix")}
        command = [sys.executable, "-m", "flowq.workers", *words]
        started.append(subprocess.Popen(command, env=environment))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_the_stand_ins_hide_what_windows_has_not() -> None:
    code = "import os, signal, select; print([hasattr(os, 'fork'), hasattr(signal, 'SIGALRM')])"
    environment = {**os.environ, "PYTHONPATH": str(HERE / "without_posix")}
    answer = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert answer.strip() == "[False, False]"


def test_jobs_run_fail_time_out_and_die(
    url: str, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    connection = server.connect(url)
    queue = Queue(connection=connection)
    future = queue.enqueue(worker_jobs.add, 5, 6, deferred=True)
    blockers = [queue.enqueue(worker_jobs.add, 1, n, blocked_by=future) for n in range(50)]
    future.release()
    failing = queue.enqueue(worker_jobs.fail)
    dying = queue.enqueue(worker_jobs.exit_hard)
    slow = queue.enqueue(worker_jobs.loop_in_python, job_timeout=1)
    stubborn = queue.enqueue(worker_jobs.swallow_timeout, job_timeout=1)
    pids = [queue.enqueue(worker_jobs.get_pid) for _ in range(3)]
    last = queue.enqueue(worker_jobs.save_progress)
    worker = start("--burst", "--grace", "0.5")
    assert worker.wait(60) == 0
    assert [blocker.return_value() for blocker in blockers] == list(range(1, 51))
    assert future.return_value() == 11
    for job, words in [
        (failing, "ValueError: no"),
        (dying, "exit code 3"),
        (slow, "JobTimeoutException: Task exceeded"),
        (stubborn, "it did not stop, and was killed"),
    ]:
        assert job.get_status() is JobStatus.FAILED
        assert words in str(job.latest_result().exc_string)
    assert last.return_value()["id"] == last.id
    assert len({job.return_value() for job in pids}) == 1  # the child is kept
    connection.close()


def test_an_idle_worker_wakes_up_and_ends_when_told(
    url: str,
    start: Callable[..., subprocess.Popen[bytes]],
    wait_until: Callable[..., None],
) -> None:
    connection = server.connect(url)
    queue = Queue(connection=connection)
    worker = start("--name", "w")
    wait_until(lambda: connection.hget("rq:worker:w", "state") == b"idle", 20)
    job = queue.enqueue(worker_jobs.add, 1, 2)
    wait_until(lambda: job.return_value() == 3, 10)
    worker.terminate()
    assert worker.wait(60) == 0
    connection.close()
