"""Metrics: what is counted, when, and what a scrape costs."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
import worker_jobs
from prometheus_client.parser import text_string_to_metric_families
from rq import Retry
from rq.job import Job as RQJob

from flowq.client import submit
from flowq.errors import UsageError
from flowq.graph import build_graph
from flowq.metrics import BOUNDS, render_metrics
from flowq.planner import make_plan
from flowq.runtime import keys, runs, scripts
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.spec import ALL_TOLERATED, Workflow
from flowq.workers.messages import failed
from flowq.workers.redis_side import Capacity, RedisSide
from tests.runtime.calls import calls_per_command, count_calls
from tests.runtime.conftest import QuietWorker
from tests.runtime.language import job

Drain = Callable[..., Any]
Samples = dict[tuple[str, ...], float]


def scrape(connection: redis.Redis) -> Samples:
    """The value of each sample, by its name and the values of its labels, as Prometheus reads."""
    found: Samples = {}
    for family in text_string_to_metric_families(render_metrics(connection)):
        for sample in family.samples:
            key = (sample.name, *sample.labels.values())
            assert key not in found, key
            found[key] = sample.value
    return found


def ends(connection: redis.Redis) -> dict[str, float]:
    """How many jobs of the default queue have ended, by state."""
    found = scrape(connection)
    name = "flowq_jobs_ended_total"
    return {key[2]: found[key] for key in found if key[:2] == (name, "default")}


@pytest.fixture(params=["flowq", "rq"])
def work(request: pytest.FixtureRequest, connection: redis.Redis, drain: Drain) -> Drain:
    """`work()`: flowq's worker, or RQ's own with our classes, until all is done."""

    def run() -> None:
        if request.param == "flowq":
            drain()
            return
        queue = Queue(connection=connection)
        worker = QuietWorker([queue], connection=connection, job_class=Job, queue_class=Queue)
        worker.work(burst=True, logging_level="CRITICAL")

    return run


def test_the_bounds_are_those_of_the_script() -> None:
    text = (Path(scripts.__file__).parent / "lua" / "metrics.lua").read_text("utf-8")
    for kind, bounds in BOUNDS.items():
        (found,) = re.findall(rf"{kind} = {{ (.*) }}", text)
        assert tuple(map(float, found.split(","))) == tuple(bounds)


def test_ends_of_jobs_and_runs_are_counted_once_each_whoever_executes_them(
    connection: redis.Redis, work: Drain
) -> None:
    jobs = (
        job("good", "give", with_={"value": 1}),
        job("bad", "fail"),
        job("tolerated", "fail", continue_on_error=ALL_TOLERATED),
        job("after", "give", needs=("bad",)),
        job("not", "give", with_={"value": 1}, if_="false"),
        job("join", "give", with_={"value": 1}, needs=("good", "tolerated")),
    )
    run = submit(make_plan(build_graph(Workflow("demo", jobs)), {}, "r1"), connection)
    assert scrape(connection)["flowq_runs", "running"] == 1
    work()
    expected = {"finished": 2, "failed": 2, "skipped": 2}
    assert ends(connection) == expected
    found = scrape(connection)
    assert found["flowq_runs", "running"] == 0
    assert found["flowq_runs", "failed"] == found["flowq_runs_ended_total", "failed"] == 1
    assert found["flowq_job_seconds_count",] == found["flowq_job_seconds_bucket", "+Inf"] == 4
    assert found["flowq_join_seconds_count",] == 1
    assert 0 < found["flowq_job_seconds_sum",] < 60

    run.retry("good")  # and what follows it, and the whole run, end once more
    work()
    assert ends(connection) == {**expected, "finished": 4}
    assert scrape(connection)["flowq_runs_ended_total", "failed"] == 2
    runs.remove(run.run_id, connection)
    assert ends(connection) == {**expected, "finished": 4}
    assert scrape(connection)["flowq_runs", "failed"] == 0


def test_a_job_that_is_retried_ends_once_and_one_that_is_requeued_again(
    queue: Queue, work: Drain
) -> None:
    future = queue.enqueue(worker_jobs.nothing, deferred=True)
    bad = queue.enqueue(worker_jobs.fail, retry=Retry(max=2), blocks=[future])
    future.release()
    assert ends(queue.connection) == {}
    work()
    assert ends(queue.connection) == {"failed": 1}  # the future job waits for a success
    bad.requeue()
    work()
    assert ends(queue.connection) == {"failed": 2}


def test_plain_jobs_of_flowqs_worker_count_and_an_end_that_is_refused_does_not(
    queue: Queue,
) -> None:
    queue.enqueue(worker_jobs.nothing)
    queue.enqueue(worker_jobs.nothing, result_ttl=0)
    queue.enqueue(worker_jobs.nothing)
    side = RedisSide(queue.connection, "w", ["default"], 30)
    claims = [side.turn([], Capacity(1, 1, 1)).claims[0] for _ in range(3)]
    for claim, number in zip(claims, count(1), strict=False):
        claim.number = number
        claim.finish(failed(number, "no", 1.0, 1.5, ttl="0" if number == 2 else "500"))
    lost = claims[2]
    queue.connection.zrem("rq:wip:default", f"{lost.job_id}:{lost.execution_id}")
    side.turn(claims, Capacity(0, 0, 1))
    assert ends(queue.connection) == {"failed": 2}
    side.turn(claims, Capacity(0, 0, 1))  # sent again after a lost reply
    found = scrape(queue.connection)
    assert ends(queue.connection) == {"failed": 2}
    assert found["flowq_job_seconds_bucket", "0.1"] == 0
    assert found["flowq_job_seconds_bucket", "0.5"] == found["flowq_job_seconds_count",] == 2
    assert found["flowq_job_seconds_sum",] == 1


def test_an_end_that_is_settled_twice_counts_once(queue: Queue) -> None:
    blocker = queue.enqueue(worker_jobs.nothing)
    future = queue.enqueue(worker_jobs.nothing, deferred=True)
    blocker = queue.enqueue(worker_jobs.nothing, blocks=[future])
    for _ in range(2):  # RQ sends its transaction again after a lost reply
        scripts.SETTLE.call(queue.connection, blocker.key, blocker.id, "finished", 0, "1500")
    scripts.SETTLE.call(queue.connection, blocker.key, blocker.id, "failed", -1, "")  # late
    assert ends(queue.connection) == {"finished": 1}
    assert scrape(queue.connection)["flowq_job_seconds_bucket", "2.5"] == 1


def test_jobs_of_dead_workers_count_as_lost_and_end_once(queue: Queue, drain: Drain) -> None:
    queue.enqueue(worker_jobs.nothing)
    side = RedisSide(queue.connection, "dead", ["default"], 30)
    side.turn([], Capacity(1, 1, 1))
    assert scrape(queue.connection)["flowq_jobs", "default", "started"] == 1
    scripts.GIVE_BACK.call(queue.connection, queue.key, "dead", "dead", "heir", 3, 0)
    assert scrape(queue.connection)["flowq_lost_total",] == 1
    assert ends(queue.connection) == {}
    drain()
    assert ends(queue.connection) == {"finished": 1}


def test_queues_are_counted_as_rq_has_them_also_with_jobs_that_are_not_flowqs(
    queue: Queue,
) -> None:
    connection = queue.connection
    plain = RQJob.create(worker_jobs.nothing, connection=connection, origin="mails")
    plain.save()
    connection.sadd("rq:queues", "rq:queue:mails")
    connection.rpush("rq:queue:mails", plain.id, "without a hash")
    connection.hset(plain.key, "enqueued_at", "2026-11-29T12:00:00.000000Z")
    connection.zadd("rq:wip:mails", {"x:1": 1, "y:1": 1})
    connection.zadd("rq:scheduled:mails", {"z": 1})
    connection.rpush("rq:deferred:mails", "a list, for a queue named like a future job")
    connection.sadd("rq:workers:mails", "rq:worker:one")
    queue.enqueue(worker_jobs.nothing, deferred=True)
    found = scrape(connection)
    states = ("queued", "started", "deferred", "scheduled")
    assert [found["flowq_jobs", "mails", state] for state in states] == [2, 2, 0, 1]
    assert [found["flowq_jobs", "default", state] for state in states] == [0, 0, 1, 0]
    assert found["flowq_queue_oldest_seconds", "mails"] >= 0
    assert found["flowq_queue_oldest_seconds", "default"] == 0
    assert found["flowq_workers", "mails"] == 1
    connection.hset(plain.key, "enqueued_at", "2020-11-29T12:00:00.000000Z")
    assert scrape(connection)["flowq_queue_oldest_seconds", "mails"] > 1e8
    for nonsense in ("never", "2020-99-99T12:00:00Z", "\x00" * 50):
        connection.hset(plain.key, "enqueued_at", nonsense)
        assert scrape(connection)["flowq_queue_oldest_seconds", "mails"] == 0


HOSTILE = (
    'a"b',
    "new\nline",
    "back\\slash",
    "x" * 10_000,
    "{}=,#",
    "ü" * 60,
    "run.abc",
    "other",
)


def test_hostile_names_of_queues_stay_labels_and_there_is_a_limit_of_them(
    connection: redis.Redis,
) -> None:
    names = [*HOSTILE, *(f"q{number:03}" for number in range(150))]
    for name in names:
        Queue(name, connection=connection).enqueue(worker_jobs.nothing)
    side = RedisSide(connection, "w", names, 30)
    for _ in names:
        (claim,) = side.turn([], Capacity(1, 1, 1)).claims
        claim.number = 1
        claim.finish(failed(1, "no", 1.0, 1.5, ttl="500"))
        side.turn([claim], Capacity(0, 0, 1))
    connection.sadd("rq:queues", b"rq:queue:\xff\xfe", b"rq:queue:\xff\xfd")
    found = scrape(connection)
    for name in ("flowq_jobs", "flowq_jobs_ended_total", "flowq_queue_oldest_seconds"):
        labels = {key[1] for key in found if key[0] == name}
        assert {'a"b', "new\nline", "back\\slash", "run.*", "other"} <= labels, name
        assert len(labels) <= 102, name
        assert max(map(len, labels)) <= 100, name
    total = sum(value for key, value in found.items() if key[0] == "flowq_jobs_ended_total")
    assert total == len(names)


def test_a_scrape_costs_the_same_however_many_jobs_there_are(connection: redis.Redis) -> None:
    Queue("mails", connection=connection).enqueue(worker_jobs.nothing)

    def cost() -> int:
        before = count_calls(connection)
        render_metrics(connection)
        return count_calls(connection) - before

    cost()  # the server gets the script
    jobs = [f"job{number}" for number in range(10_000)]
    connection.rpush("rq:queue:mails", *jobs[:10])
    few = cost()
    connection.rpush("rq:queue:mails", *jobs)
    for registry in ("wip", "deferred", "scheduled"):
        connection.zadd(f"rq:{registry}:mails", dict.fromkeys(jobs, 1.0))
    connection.zadd(keys.runs_in("succeeded"), dict.fromkeys(jobs, 1.0))
    assert cost() == few
    before = calls_per_command(connection)["cmdstat_evalsha"]
    render_metrics(connection)
    assert calls_per_command(connection)["cmdstat_evalsha"] == before + 1


def test_metrics_that_cannot_be_written_keep_no_job_from_ending(queue: Queue, work: Drain) -> None:
    queue.connection.set(keys.METRICS, "something else")
    future = queue.enqueue(worker_jobs.add, 1, 2, deferred=True)
    queue.enqueue(worker_jobs.nothing, blocks=[future])
    future.release()
    work()
    assert future.return_value() == 3


def test_sums_stay_whole_when_they_are_large(queue: Queue) -> None:
    future = queue.enqueue(worker_jobs.nothing, deferred=True)
    blocker = queue.enqueue(worker_jobs.nothing, blocks=[future])
    took_ms = 300 * 86_400 * 1000
    scripts.SETTLE.call(queue.connection, blocker.key, blocker.id, "finished", 0, str(took_ms))
    found = scrape(queue.connection)
    assert found["flowq_job_seconds_sum",] == took_ms / 1000
    assert found["flowq_job_seconds_bucket", "3600.0"] == 0
    assert math.isclose(found["flowq_job_seconds_bucket", "+Inf"], 1)


def test_without_the_extra_the_error_says_what_to_install(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(UsageError, match=r"pip install 'rq-flowq\[metrics\]'"):
        render_metrics(connection)


def test_metrics_of_no_server_are_those_of_an_empty_one(connection: redis.Redis) -> None:
    text = render_metrics(None)
    assert text == render_metrics(connection)
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {"flowq_jobs", "flowq_jobs_ended", "flowq_job_seconds", "flowq_lost"} <= families
