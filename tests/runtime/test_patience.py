"""A server that is away for a moment fails no job that has to ask it something."""

from __future__ import annotations

import base64
import pickle
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from rq import SimpleWorker

from flowq import server
from flowq.runtime.connections import retry_while_unavailable
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.runtime.work import _Execution
from tests.runtime.server_processes import guardian_of, kill, pid_of


@pytest.fixture
def started(tmp_path: Path) -> Any:
    started = server.ensure(tmp_path)
    yield started
    server.ensure(tmp_path).stop()


def test_a_job_waits_for_a_server_that_has_the_results_it_needs(
    started: server.Server, tmp_path: Path
) -> None:
    with closing(started.connect()) as connection:
        queue = Queue(connection=connection)
        job: Any = queue.enqueue("operator.add", 1, 2)
        SimpleWorker([queue], connection=connection, job_class=Job).work(burst=True)
        work = {
            "outputs": {"sum": "${{ jobs.before.result }}"},
            "result_of": {"before": job.id},
        }
        for pid in (guardian_of(started), pid_of(started)):
            kill(pid)
        with pytest.raises(RedisConnectionError):
            connection.ping()
        revival = threading.Timer(0.3, server.ensure, [tmp_path])
        revival.start()

        assert _Execution(job, work).run() == {"sum": 3}
        revival.join()


class Troublesome:
    """A list that cannot be read; it counts how often somebody tried."""

    def __init__(self, error: Exception) -> None:
        self.error, self.tries = error, 0

    def __iter__(self) -> Iterator[Any]:
        self.tries += 1
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("no such file"),
        PermissionError("not yours"),
        BrokenPipeError("their own socket"),
        ConnectionRefusedError("their own server"),
        TimeoutError("their own wait"),
        OSError("their own trouble"),
        ResponseError("ERR unknown command"),
    ],
)
def test_what_users_code_raises_is_not_waited_for(error: Exception) -> None:
    items = Troublesome(error)
    with pytest.raises(type(error)):
        retry_while_unavailable(lambda: list(items), within_s=60)
    assert items.tries == 1


class Unreadable:
    """A result that looks for a file when it is read."""

    def __reduce__(self) -> Any:
        return open, ("/no/such/file",)


def test_a_result_that_cannot_be_read_fails_the_job_that_needs_it_at_once(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expression of a list, of arguments, or of inputs reads the results of other jobs."""
    waits: list[float] = []
    monkeypatch.setattr("flowq.runtime.connections.time.sleep", waits.append)
    before = queue.enqueue("operator.add", 1, 2)
    connection = queue.connection
    value = base64.b64encode(pickle.dumps(Unreadable()))
    connection.xadd(f"rq:results:{before.id}", {"type": 1, "return_value": value})
    connection.hset(before.key, "status", "finished")
    work = {"outputs": "${{ jobs.before.result }}", "result_of": {"before": before.id}}
    with pytest.raises(FileNotFoundError):
        _Execution(before, work).run()
    assert waits == []
