"""A server that is away for a moment fails no job that has to ask it something."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import SimpleWorker
from server_processes import guardian_of, kill, pid_of

from flowq import server
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.runtime.work import _Performance


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

        assert _Performance(job, work).run() == {"sum": 3}
        revival.join()
