"""Workers on hosts whose clock is an hour off: nothing starts too early, or too late."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import redis
import worker_jobs
from rq import Retry

from flowq.runtime.queue import Queue
from tests import JOBS_FOLDER


@contextmanager
def worker_with_clock(offset: str, url: str, log: Path) -> Iterator[None]:
    """A worker whose clock is that far off, and whose monotonic one is right."""
    faketime = shutil.which("faketime")
    if faketime is None and not os.environ.get("CI"):
        pytest.skip("faketime is not here (Debian and Ubuntu: apt install faketime)")
    assert faketime, "faketime is missing, and CI must not skip it (apt install faketime)"
    values = {"url": url, "mode": "warm", "paths": [JOBS_FOLDER]}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [faketime, "-f", offset, sys.executable, "-m", "flowq.workers", "--values", "-"],
            env={**os.environ, "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(values).encode())
            process.stdin.close()
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # `faketime` starts the worker as its child
            process.wait()


@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_due_times_are_those_of_the_server(
    connection: redis.Redis,
    redis_url: str,
    tmp_path: Path,
    wait_until: Callable[..., None],
    offset: str,
) -> None:
    queue = Queue(connection=connection)
    later = queue.enqueue_in(timedelta(minutes=30), worker_jobs.nothing)
    soon = queue.enqueue_in(timedelta(seconds=1), worker_jobs.nothing)
    open_for_long = queue.enqueue(worker_jobs.nothing, deferred=True, expires=1800)
    expiring = queue.enqueue(worker_jobs.nothing, deferred=True, expires=2)
    failing = queue.enqueue(worker_jobs.fail, retry=Retry(1, interval=1))
    log = tmp_path / "worker.log"
    with worker_with_clock(offset, redis_url, log):
        wait_until(lambda: soon.get_status() == "finished", 20)
        wait_until(lambda: expiring.get_status() == "canceled", 20)
        wait_until(lambda: failing.get_status() == "failed", 20)
        assert later.get_status() == "scheduled"
        assert open_for_long.get_status() == "deferred"
        wait_until(lambda: "the clock of this host is 36" in log.read_text(), 20)
    assert log.read_text().count("the clock of this host") == 1
