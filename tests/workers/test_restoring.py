"""Jobs that a child makes from their hashes: as RQ makes them, also when it copies the last one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import rq
from redis import Redis

from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.workers.child.restore import MAX_FORMS, MAX_KINDS, Restorer
from flowq.workers.messages import Task

MOVING = {"started_at", "last_heartbeat", "ended_at", "worker_name", "_status"}
"""What starting a job changes, and what therefore differs from its hash."""


@pytest.fixture
def restorer(connection: Redis) -> Restorer:
    return Restorer(Job, connection, None, "w")


def task_of(connection: Redis, job: Job) -> Task:
    raw: Any = connection.hgetall(f"rq:job:{job.id}")
    flat = [part for pair in raw.items() if pair[1] for part in pair]
    return Task(1, job.id, "e", job.origin, flat)


def read(connection: Redis, job: Job) -> dict[str, Any]:
    """What RQ's own reading gives, which takes the instants from text too."""
    return vars(Job.fetch(job.id, connection))


def same(made: Job, read: dict[str, Any]) -> None:
    for name, value in read.items():
        if name not in MOVING | {"serializer", "connection"}:
            assert vars(made)[name] == value, name
    assert set(vars(made)) == set(read)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"meta": {"tags": ["a"]}},
    {"retry": rq.Retry(max=3, interval=[1, 2])},
    {"on_success": rq.Callback(print), "on_failure": rq.Callback(print, timeout=7)},
    {"job_timeout": -1, "ttl": 60, "result_ttl": 0, "failure_ttl": 5},
    {"description": "one of many", "at_front": True},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_three_of_a_kind_are_each_as_rq_reads_them(
    connection: Redis, restorer: Restorer, options: dict[str, Any]
) -> None:
    queue = Queue(connection=connection)
    for number in range(3):
        job = queue.enqueue(print, number, name=f"n{number}", **options)
        made = restorer.restore(task_of(connection, job))
        same(made, read(connection, job))
        assert made.args == (number,)
        assert made.worker_name == "w"
        assert made.ended_at is None
        assert abs(datetime.now(UTC) - made.started_at).total_seconds() < 60


def test_kinds_may_come_in_any_order(connection: Redis, restorer: Restorer) -> None:
    queue = Queue(connection=connection)
    for number in range(3):
        for options in OPTIONS:
            job = queue.enqueue(print, number, **options)
            same(restorer.restore(task_of(connection, job)), read(connection, job))


def test_kinds_in_turn_are_read_once_each(
    connection: Redis, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, read_by_rq = [], rq.job.Job.restore

    def restore(job: Job, raw_data: Any) -> None:
        ids.append(job.id)
        read_by_rq(job, raw_data)

    monkeypatch.setattr(rq.job.Job, "restore", restore)
    queue = Queue(connection=connection)
    for number in range(3):
        for timeout in (10, 20):
            job = queue.enqueue(print, number, job_timeout=timeout)
            made = restorer.restore(task_of(connection, job))
            assert (made.args, made.timeout) == ((number,), timeout)
    assert len(ids) == 2


def test_kinds_without_end_are_not_remembered_without_end(
    connection: Redis, restorer: Restorer
) -> None:
    queue = Queue(connection=connection)
    for number in range(3 * MAX_KINDS):
        job = queue.enqueue(print, number, job_timeout=number + 1)
        connection.hset(job.key, f"another{number}" if number % 2 else "field", "1")
        same(restorer.restore(task_of(connection, job)), read(connection, job))
    assert len(restorer._forms) <= MAX_FORMS
    assert all(len(form.kinds) <= MAX_KINDS for form in restorer._forms.values())


def test_the_order_of_the_fields_does_not_matter(connection: Redis, restorer: Restorer) -> None:
    queue = Queue(connection=connection)
    for number in range(4):
        job = queue.enqueue(print, number, name=f"n{number}", description=f"d{number}")
        number_, job_id, execution_id, origin, raw = task_of(connection, job)
        pairs = list(zip(raw[::2], raw[1::2], strict=True))
        flat = [part for pair in (pairs[number:] + pairs[:number]) for part in pair]
        for _ in range(2):
            made = restorer.restore(Task(number_, job_id, execution_id, origin, flat))
            same(made, read(connection, job))


@pytest.mark.parametrize("options", OPTIONS)
def test_what_one_job_does_to_itself_the_next_does_not_see(
    connection: Redis, restorer: Restorer, options: dict[str, Any]
) -> None:
    queue = Queue(connection=connection)
    first, second = (queue.enqueue(print, number, **options) for number in range(2))
    spoilt = restorer.restore(task_of(connection, first))
    spoilt.meta.setdefault("tags", []).append("spoilt")
    spoilt.webhooks.append("spoilt")
    spoilt._dependency_ids.append("spoilt")
    assert spoilt.args == (0,)
    spoilt.timeout, spoilt.new = 1, 2
    same(restorer.restore(task_of(connection, second)), read(connection, second))


def test_a_class_that_reads_more_reads_each_job(connection: Redis) -> None:
    class Counting(Job):
        reads = 0

        def restore(self, raw_data: Any) -> None:
            Counting.reads += 1
            super().restore(raw_data)

    restorer = Restorer(Counting, connection, None, "w")
    queue = Queue(connection=connection)
    for number in range(3):
        restorer.restore(task_of(connection, queue.enqueue(print, number)))
    assert Counting.reads == 3


def test_a_hash_without_data_is_an_error_each_time(connection: Redis, restorer: Restorer) -> None:
    queue = Queue(connection=connection)
    restorer.restore(task_of(connection, queue.enqueue(print)))
    job = queue.enqueue(print)
    connection.hdel(f"rq:job:{job.id}", "data")
    for _ in range(2):
        with pytest.raises(rq.exceptions.NoSuchJobError):
            restorer.restore(task_of(connection, job))
