"""Every attempt of a job is kept, with its times, its worker and how it ended."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
import redis

from flowq.client import Run
from flowq.history import Attempt
from flowq.runtime import keys
from flowq.runtime.queue import Queue
from flowq.workers.redis_side import Capacity, RedisSide
from tests.workers.test_true_times import CLOCK, start_plain_run, start_run

ENDS = """
name: ends
jobs:
  twice: {call: worker_jobs:fail_twice, with: {key: twice}, retries: 2}
  died: {call: worker_jobs:exit_hard, with: {code: 3}, retries: 1}
  code: {run: "exit 7", retries: {max: 1, backoff: 10ms}}
  slow: {call: worker_jobs:sleep, with: {seconds: 60}, timeout: 1s, retries: 1}
  long: {call: worker_jobs:fail, with: {text: "${{ 'word ' * 100 }}"}}
"""


def attempts_of(run: Run) -> Mapping[str, tuple[Attempt, ...]]:
    return run.history()[1]


def tell(attempts: tuple[Attempt, ...]) -> list[tuple[int, str, bool, str, int | None]]:
    return [(a.number, a.state, a.is_retried, a.error, a.exit_code) for a in attempts]


@pytest.mark.parametrize("mode", ["warm", "fork"])
def test_each_attempt_says_when_it_ran_and_how_it_ended(
    connection: redis.Redis, drain: Callable[..., Any], mode: str
) -> None:
    run = start_run(connection, ENDS)
    worker = drain(mode=mode)
    found = attempts_of(run)
    assert tell(found["twice"]) == [
        (1, "failed", True, "ValueError: not yet", None),
        (2, "failed", True, "ValueError: not yet", None),
        (3, "finished", False, "", None),
    ]
    died = "The process of the job ended unexpectedly: "
    assert [(a.state, a.exit_code) for a in found["died"]] == [("failed", 3)] * 2
    assert all(a.error.startswith(died) and a.error_type is None for a in found["died"])
    assert [(a.error_type, a.exit_code) for a in found["code"]] == [("ShellFailed", 7)] * 2
    assert [(a.state, a.is_retried) for a in found["slow"]] == [
        ("timed_out", True),
        ("timed_out", False),
    ]
    assert found["slow"][0].error_type == "JobTimeoutException"
    assert len(found["long"][0].error) == 200
    for attempts in found.values():
        for attempt in attempts:
            assert attempt.worker == worker.name
            instants = (attempt.queued_at, attempt.handed_at, attempt.started_at, attempt.ended_at)
            assert None not in instants
            steps = itertools.pairwise(instants)
            assert all(a - CLOCK <= b for a, b in steps), instants  # type: ignore[operator]
    slow = [a.duration_s for a in found["slow"]]
    assert all(0.9 < (each or 0) < 5 for each in slow)
    [host] = run.find_hosts([worker.name]).values()
    assert host == (worker.hostname, worker.pid)
    # RQ keeps a worker's hash for a minute.
    connection.delete(keys.worker(worker.name))
    assert run.find_hosts([worker.name, "nobody"]) == {worker.name: host}


def test_what_lost_its_worker_has_an_attempt_that_says_so(queue: Queue) -> None:
    run = start_plain_run(queue.connection, 2)
    side = RedisSide(queue.connection, "w", ["default"], 30)
    claims = side.turn([], Capacity(2, 2, 2)).claims
    side.beat(5, 60, [(claims[0], False), (claims[1], True)])
    RedisSide(queue.connection, "other", ["default"], 30).recover("w", 3)
    [lost] = attempts_of(run)["j0"]
    assert (lost.state, lost.is_retried, lost.worker) == ("lost", True, "w")


def test_a_worker_that_is_stopped_ends_an_attempt(queue: Queue) -> None:
    run = start_plain_run(queue.connection, 1)
    side = RedisSide(queue.connection, "w", ["default"], 30)
    claims = side.turn([], Capacity(1, 1, 1)).claims
    side.put_back(claims, {claims[0].execution_id})
    again = RedisSide(queue.connection, "v", ["default"], 30)
    again.turn([], Capacity(1, 1, 1))
    first, second = attempts_of(run)["j0"]
    assert (first.state, first.is_retried, first.worker) == ("stopped", True, "w")
    assert (second.number, second.state, second.worker) == (2, "started", "v")


NATIVE = (
    "name: native\njobs:\n  twice: {call: worker_jobs:fail_twice, with: {key: k}, retries: 2}\n"
)


def test_a_worker_of_rqs_own_keeps_them_too(connection: redis.Redis) -> None:
    from rq import SimpleWorker

    from flowq.runtime.job import Job

    run = start_run(connection, NATIVE)
    queue = Queue(connection=connection)
    SimpleWorker([queue], connection=connection, job_class=Job, queue_class=Queue).work(burst=True)
    found = attempts_of(run)["twice"]
    assert [a.state for a in found] == ["failed", "failed", "finished"]
    assert [a.error for a in found] == ["ValueError: not yet", "ValueError: not yet", ""]
    assert all(timedelta(0) <= a.ended_at - a.started_at for a in found)  # type: ignore[operator]
