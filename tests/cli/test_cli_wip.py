"""`flowq wip` and `flowq workers`, as programs and people read them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from flowq.runtime.queue import Queue
from flowq.workers import start
from tests import JOBS_FOLDER
from tests.cli.commands import Flowq, Said
from tests.cli.terminal import run_on_terminal, screen

KEYS_OF_A_JOB = {
    *("run", "workflow", "name", "job_id", "execution_id", "status", "queue", "description"),
    *("worker", "host", "pid", "started_at", "timeout_s", "left_s", "seen_at"),
}


@pytest.fixture
def busy(connection: redis.Redis, redis_url: str, tmp_path: Path) -> Iterator[str]:
    """A worker that executes a job, whose id this is, until the end of the test."""
    job = Queue(connection=connection).enqueue("marking_jobs.mark", str(tmp_path / "marks"), 60.0)
    worker = start(url=redis_url, mode="warm", paths=[JOBS_FOLDER], name="w", quiet=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "marks").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    yield job.id
    worker.kill()
    worker.wait()


def test_programs_read_one_document(
    busy: str, call: Callable[..., Said], redis_url: str, wait_until: Callable[..., None]
) -> None:
    def read() -> dict[str, object]:
        document: dict[str, object] = json.loads(
            call("wip", "--json", "--redis-url", redis_url).out
        )
        return document

    wait_until(lambda: read()["jobs"][0]["pid"])  # type: ignore[index] # after a heartbeat
    document = read()
    assert document["counts"] == {"started": 1, "handed": 0, "lost": 0}
    (job,) = document["jobs"]  # type: ignore[misc]
    assert job.keys() == KEYS_OF_A_JOB
    assert (job["job_id"], job["worker"]) == (busy, "w")
    os.kill(job["pid"], 0)
    (worker,) = json.loads(call("workers", "--json", "--redis-url", redis_url).out)["workers"]
    assert (worker["worker"], worker["status"], worker["executing"]) == ("w", "busy", 1)
    assert call("wip", "other", "--redis-url", redis_url).out == "no job is being executed\n"
    assert busy in call("wip", "default", "--redis-url", redis_url).out


def test_a_health_check_sees_the_workers_of_this_host(
    busy: str,
    call: Callable[..., Said],
    redis_url: str,
    connection: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    healthy = call("workers", "--here", "--redis-url", redis_url)
    assert healthy.code == 0
    assert healthy.out.splitlines()[1].startswith("w ")
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "another-host")
        assert call("workers", "--here", "--redis-url", redis_url).code == 1
    connection.hset("rq:worker:w", "hostname", "another-host")
    assert call("workers", "--here", "--redis-url", redis_url).code == 1
    assert call("workers", "--redis-url", redis_url).code == 0


def test_on_a_terminal_the_table_changes_in_place_until_ctrl_c(
    busy: str, flowq: Flowq, folder: Path, redis_url: str
) -> None:
    seen: list[str] = []

    def look(written: str) -> None:
        if "started" in written and not seen:
            seen.append(written)
            os.kill(children_of(os.getpid())[-1], signal.SIGINT)

    words = ["wip", "--watch", "--redis-url", redis_url]
    code, written = run_on_terminal(words, folder, flowq.env, 80, 24, look)
    assert code == 130
    lines = [line for line in screen(written) if line]
    assert len(lines) == 3, "the time, the heads and one job"
    assert max(map(len, lines)) <= 80
    assert "Traceback" not in written


def children_of(pid: int) -> list[int]:
    """Return the processes that this one has started, the oldest first."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(word) for word in text.split()]


def test_into_a_pipe_comes_a_table_only_when_something_has_changed(
    busy: str, flowq: Flowq, redis_url: str, connection: redis.Redis
) -> None:
    process = flowq.start("wip", "--watch", "--json", "--redis-url", redis_url)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert [job["job_id"] for job in first["jobs"]] == [busy]
    from rq.command import send_stop_job_command

    send_stop_job_command(connection, busy)
    second = json.loads(process.stdout.readline())
    assert second["jobs"] == [], "though a second had passed, or several, without a line"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
