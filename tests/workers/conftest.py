"""Workers for the tests: inside the test's process in burst mode, or as processes of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from flowq.runtime.queue import Queue
from flowq.workers import Worker, start
from tests import JOBS_FOLDER
from tests.workers.forked_workers import ForkedWorker, Template

MODES = ("warm", "fork", "multiprocessing")


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each way to start children."""
    return str(request.param)


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    """The default queue."""
    return Queue(connection=connection)


@pytest.fixture
def drain(connection: redis.Redis) -> Callable[..., Worker]:
    """`drain(**options)`: a worker in burst mode, from its start to its end."""

    def run(*queues: str, **options: Any) -> Worker:
        options.setdefault("mode", "warm")
        limits = {name: options.pop(name) for name in ("max_jobs",) if name in options}
        lease = options.pop("lease", None)
        worker = Worker(
            list(queues or ["default"]), connection=connection, paths=[JOBS_FOLDER], **options
        )
        worker.lease = lease or worker.lease
        worker.work(burst=True, logging_level="WARNING", **limits)
        return worker

    return run


@pytest.fixture
def start_worker(redis_url: str, template: Template) -> Iterator[Callable[..., ForkedWorker]]:
    """`start_worker(**options)`: a worker in a process of its own; it ends with the test."""
    started: list[ForkedWorker] = []

    def begin(**options: Any) -> ForkedWorker:
        options = {"url": redis_url, "mode": "warm", "paths": [JOBS_FOLDER], **options}
        started.append(template.start(options))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def launch_worker(redis_url: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`launch_worker(**options)`: the same as users start it, with an interpreter of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(**options: Any) -> subprocess.Popen[bytes]:
        options = {"url": redis_url, "mode": "warm", "paths": [JOBS_FOLDER], **options}
        started.append(start(**options))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()
