"""Short words for what every test of the runtime does: enqueue, work, look."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import SimpleWorker

from flowq.client import Run, submit
from flowq.compiling import compile_plan, load
from flowq.runtime import keys
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.runtime.steps import work_off

HERE = Path(__file__).parent


class QuietWorker(SimpleWorker):
    """Without the thread that listens for commands, whose end takes up to a second."""

    def subscribe(self) -> None: ...

    def unsubscribe(self) -> None: ...


@pytest.fixture
def queue(connection: redis.Redis) -> Queue:
    return Queue(connection=connection)


@pytest.fixture
def work(connection: redis.Redis) -> Callable[..., None]:
    """`work(max_jobs=None)`: RQ's worker in this process, with our classes, until all is done."""

    def run(max_jobs: int | None = None, *queues: str) -> None:
        listening = [Queue(name, connection=connection) for name in queues or ("default",)]
        worker = QuietWorker(listening, connection=connection, job_class=Job, queue_class=Queue)
        worker.work(burst=True, max_jobs=max_jobs, logging_level="CRITICAL")

    return run


@pytest.fixture
def work_plainly(connection: redis.Redis) -> Callable[..., None]:
    """`work_plainly(max_jobs=None)`: the same with RQ's classes, which never heard of ours."""

    def run(max_jobs: int | None = None) -> None:
        worker = QuietWorker(["default"], connection=connection)
        worker.work(burst=True, max_jobs=max_jobs, logging_level="CRITICAL")

    return run


@pytest.fixture
def tidy(connection: redis.Redis) -> Callable[[], None]:
    """`tidy()`: make all the steps that are left, as maintenance does."""

    def run() -> None:
        while work_off(connection):
            pass

    return run


@pytest.fixture
def rq_command(redis_url: str) -> Callable[..., subprocess.Popen[str]]:
    """`rq_command("worker", "--burst")`: RQ's own command as a process."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [str(Path(sys.executable).with_name("rq")), *arguments, "--url", redis_url]
        return subprocess.Popen(
            command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return start


@pytest.fixture
def edge(connection: redis.Redis) -> Callable[[Job, Job], str]:
    """`edge(blocker, future)`: what the script has noted about it."""

    def look(blocker: Job, future: Job) -> str:
        value: Any = connection.hget(keys.edges(future.id), blocker.id)
        return value.decode() if value else ""

    return look


@pytest.fixture
def dump(connection: redis.Redis) -> Callable[[], dict[bytes, Any]]:
    """`dump()`: the whole keyspace, to compare before and after."""

    def read() -> dict[bytes, Any]:
        # The instant, and not the time that is left, which goes by.
        names = connection.keys("*")
        return {key: (connection.dump(key), connection.pexpiretime(key)) for key in names}

    return read


@pytest.fixture
def run_example(
    connection: redis.Redis,
    work: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Run]:
    """`run_example(file, **inputs)`: run an example as far as it gets, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(file: str, **inputs: Any) -> Run:
        workflow = load(str(HERE.parents[1] / "workflows" / file))
        submitted = submit(compile_plan(workflow, inputs), connection)
        work()
        return submitted

    return run
