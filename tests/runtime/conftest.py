"""Short words for what every test of the runtime does: enqueue, work, look."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
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
from flowq.runtime.steps import run_steps
from flowq.server import endpoint
from tests import JOBS_FOLDER
from tests.runtime.server_processes import end


class QuietWorker(SimpleWorker):
    """Without the thread that listens for commands, whose end takes up to a second."""

    def subscribe(self) -> None: ...

    def unsubscribe(self) -> None: ...


@pytest.fixture(params=["unix", "tcp"])
def each_endpoint(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the embedded server is reached: as here, and as where there are no Unix sockets."""
    kind: str = request.param
    if kind == "tcp":
        if not Path("/proc/self").exists():
            pytest.skip("only Linux tells which process is the guardian")
        monkeypatch.setattr(endpoint, "has_unix_sockets", lambda: False)
    return kind


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
        while run_steps(connection):
            pass

    return run


@pytest.fixture
def rq_command(redis_url: str) -> Callable[..., subprocess.Popen[str]]:
    """`rq_command("worker", "--burst")`: RQ's own command as a process."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [str(Path(sys.executable).with_name("rq")), *arguments, "--url", redis_url]
        return subprocess.Popen(
            command, cwd=JOBS_FOLDER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
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
        workflow = load(str(Path(__file__).parents[2] / "workflows" / file))
        submitted = submit(compile_plan(workflow, inputs), connection)
        work()
        return submitted

    return run


@pytest.fixture
def world() -> Iterator[Path]:
    """A folder that other users can reach, and whose path is short."""
    with tempfile.TemporaryDirectory(prefix="flowq-", dir="/tmp") as place:
        Path(place).chmod(0o755)
        yield Path(place).resolve()


@pytest.fixture
def home(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the user, for this test alone; it is not there yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(world / "home"))
    return world / "home"


@pytest.fixture
def project(world: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, whose server ends with the test."""
    place = world / "project"
    place.mkdir()
    monkeypatch.chdir(place)
    yield place
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    shutil.rmtree(place / ".flowq", ignore_errors=True)
    end(place)


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file that must stay as it is."""
    file = tmp_path / "precious"
    file.write_text("precious")
    file.chmod(0o640)
    yield file
    assert file.read_text() == "precious"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
