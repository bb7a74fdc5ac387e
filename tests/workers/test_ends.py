"""What a worker of ours leaves in Redis is what a worker of RQ leaves."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import rq
import worker_jobs
from rq.job import JobStatus
from rq.worker import SimpleWorker

from flowq.runtime.queue import Queue
from flowq.workers.children import Pool
from flowq.workers.claims import Claim
from flowq.workers.supervisor import Waiter
from flowq.workers.turns import MAX_TRIES

NOTED = re.compile(rb"^\d{4}-\d\d-\d\dT[\d:.]+Z$|^\d{10}\.\d+$|^\d+-\d+$")
HEX = re.compile(r"[0-9a-f]{32}")

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ttl": {"ttl": 100},
    "kept for a while": {"result_ttl": 60},
    "kept for ever": {"result_ttl": -1},
    "not kept": {"result_ttl": 0},
    "short timeout": {"timeout": 5},
    "callback": {"on_success": worker_jobs.on_success, "on_failure": worker_jobs.on_failure},
    "retry": {"retry": rq.Retry(max=1)},
    "retry later": {"retry": rq.Retry(max=2, interval=[100, 200])},
    "repeat": {"repeat": rq.Repeat(times=1, interval=100)},
    "failure kept for a while": {"failure_ttl": 60},
    "failure not kept": {"failure_ttl": 0},
    "meta": {"meta": {"color": "red"}},
    "webhook": {"webhooks": [rq.Webhook("http://127.0.0.1:9/", "finished")]},
}


def snapshot(connection: redis.Redis) -> dict[str, Any]:
    """Return every key with its type, content and time to live; without what must differ."""
    found = {}
    for raw in connection.scan_iter():
        key = raw.decode()
        if ":worker" in key or "flowq" in key or "lock" in key or "clean" in key:
            continue
        found[HEX.sub("<hex>", key)] = (_content(connection, key), _round(connection.ttl(key)))
    return found


def _content(connection: redis.Redis, key: str) -> Any:
    kind = connection.type(key)
    if kind == b"hash":
        fields = connection.hgetall(key)
        return {name: _value(name, fields[name]) for name in sorted(fields)}
    if kind == b"zset":
        return [
            (HEX.sub("<hex>", member.decode()), _round(score - connection.time()[0]))
            for member, score in connection.zrange(key, 0, -1, withscores=True)
        ]
    if kind == b"stream":
        return [
            {name: _value(name, value) for name, value in sorted(fields.items())}
            for _, fields in connection.xrange(key)
        ]
    if kind == b"list":
        return connection.lrange(key, 0, -1)
    return sorted(connection.smembers(key))


def _value(name: bytes, value: bytes) -> Any:
    if name in (b"worker_name", b"execution_id") or NOTED.match(value):
        return bool(value)
    # Tracebacks differ in the frames above the function.
    return bool(value) if name == b"exc_string" else value


def _round(seconds: float) -> Any:
    return seconds if abs(seconds) == float("inf") else round(seconds / 10)


@pytest.mark.parametrize("function", [worker_jobs.nothing, worker_jobs.get_dict, worker_jobs.fail])
@pytest.mark.parametrize("name", OPTIONS)
def test_keys_fields_and_ttls_are_those_of_rq(
    connection: redis.Redis, drain: Callable[..., Any], name: str, function: Any
) -> None:
    def enqueue() -> None:
        rq.Queue(connection=connection).enqueue(function, job_id="J", **OPTIONS[name])

    enqueue()
    SimpleWorker(["default"], connection=connection).work(burst=True, logging_level="ERROR")
    theirs = snapshot(connection)
    connection.flushall()
    enqueue()
    drain()
    assert snapshot(connection) == theirs


def test_dependents_are_queued_by_rqs_own_way(
    connection: redis.Redis, drain: Callable[..., Any]
) -> None:
    queue = rq.Queue(connection=connection)
    first = queue.enqueue(worker_jobs.get_dict)
    second = queue.enqueue(worker_jobs.nothing, depends_on=first)
    failing = queue.enqueue(worker_jobs.fail)
    third = queue.enqueue(worker_jobs.nothing, depends_on=failing)
    drain()
    assert first.return_value() == {"a": 1}
    assert second.get_status() is JobStatus.FINISHED
    assert third.get_status() is JobStatus.DEFERRED


def test_a_rate_limited_job_gives_its_slot_back(
    connection: redis.Redis, drain: Callable[..., Any]
) -> None:
    queue = rq.Queue(connection=connection)
    limit = rq.RateLimit(key="k", concurrency=1) if hasattr(rq, "RateLimit") else None
    if limit is None:
        from rq.rate_limit import RateLimit

        limit = RateLimit(key="k", concurrency=1)
    jobs = [queue.enqueue(worker_jobs.nothing, rate_limit=limit) for _ in range(3)]
    drain()
    assert [job.get_status() for job in jobs] == [JobStatus.FINISHED] * 3


def test_a_job_that_is_canceled_while_it_runs_still_finishes(
    queue: Queue, start_worker: Callable[..., Any], wait_until: Callable[..., None], tmp_path: Path
) -> None:
    start_worker()
    began, go = tmp_path / "began", tmp_path / "go"
    job = queue.enqueue(worker_jobs.touch_and_wait, str(began), str(go))
    wait_until(began.exists, 10)
    job.cancel()
    until = time.monotonic() + 2  # longer than it takes until the worker's next heartbeat
    wait_until(lambda: time.monotonic() > until)
    go.touch()
    wait_until(lambda: job.get_status() is JobStatus.FINISHED)


def test_a_returned_retry_runs_again(queue: Queue, drain: Callable[..., Any]) -> None:
    job = queue.enqueue(worker_jobs.return_retry)
    drain()
    assert queue.connection.get("runs") == b"3"
    assert job.get_status() is JobStatus.FAILED


def test_the_statistics_of_the_worker_are_kept(
    queue: Queue, start_worker: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    start_worker(name="w")
    queue.enqueue(worker_jobs.nothing)
    queue.enqueue(worker_jobs.fail)
    key = "rq:worker:w"
    wait_until(lambda: queue.connection.hget(key, "failed_job_count") == b"1", 10)
    assert queue.connection.hget(key, "successful_job_count") == b"1"
    assert float(queue.connection.hget(key, "total_working_time") or 0) > 0


def test_what_rqs_code_has_to_end_is_ended_without_waiting_for_anything_else(
    queue: Queue, drain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    for name in ("TIDY_S", "DUE_S", "SIGN_S"):
        monkeypatch.setattr(f"flowq.workers.periodic.{name}", 60.0)
    waits_in_vain: list[float] = []

    class Watched(Waiter):
        def wait(self, sources: Any, wait_s: float) -> list[Any]:
            ready = super().wait(sources, wait_s)
            if not ready:
                waits_in_vain.append(wait_s)
            return ready

    monkeypatch.setattr("flowq.workers.supervisor.Waiter", Watched)
    first = queue.enqueue(worker_jobs.nothing)
    last = queue.enqueue(worker_jobs.nothing, depends_on=first)  # which our script leaves to RQ
    drain(mode=mode, lease_s=60.0)
    assert last.get_status() is JobStatus.FINISHED
    assert max(waits_in_vain, default=0.0) < 0.5


def test_children_that_die_before_they_begin_to_end_a_job_do_not_cost_it_its_retries(
    queue: Queue, drain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    conclude = Pool.conclude

    def conclude_and_die(pool: Pool, claim: Claim) -> bool:
        is_told = conclude(pool, claim)
        for child in pool.children:
            if child.concluding is claim and len(killed) < MAX_TRIES:
                killed.append(child.process.pid)
                child.process.kill()
        return is_told

    monkeypatch.setattr(Pool, "conclude", conclude_and_die)
    job = queue.enqueue(worker_jobs.fail_once, "runs", retry=rq.Retry(max=1))
    drain(mode="multiprocessing")  # where it takes long until a new child begins anything
    assert len(killed) == MAX_TRIES
    assert job.get_status() is JobStatus.FINISHED


@pytest.mark.parametrize("function", ["fail", "kill_oneself"])
def test_a_failed_job_is_logged_once_at_error_with_its_traceback(
    queue: Queue,
    drain: Callable[..., Any],
    mode: str,
    function: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = queue.enqueue(f"worker_jobs.{function}")
    drain(mode=mode)
    assert job.is_failed
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "rq.worker"
    assert f"worker_jobs.{function}: {job.id} failed in" in record.getMessage()
    assert record.job_id == job.id  # type: ignore[attr-defined]
    assert record.getMessage().endswith(job.latest_result().exc_string)
