"""`expires`: jobs that may only wait for so long."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import approvals, keys, maintenance, retry, runs
from flowq.spec import JobSpec, Matrix, Workflow
from flowq.workers.redis_side import Capacity, RedisSide
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def lapse(connection: Redis, name: str) -> None:
    """As if the time of a job was over; it must be one that has a time."""
    assert connection.zadd(keys.EXPIRING, {f"{RUN}-{name}": 1}, xx=True, ch=True) == 1
    maintenance.tidy(connection)


def test_a_job_that_waits_for_others_or_for_a_worker_is_canceled_in_time(
    run: Runs, connection: Redis
) -> None:
    run.submit(
        job("free", "my_id", expires_s=60),
        job("first", "my_id"),
        job("late", "my_id", needs=("first",), expires_s=3600),
        job("after", "my_id", needs=("late",)),
    )
    due = dict(connection.zrange(keys.EXPIRING, 0, -1, withscores=True))
    assert 3500 < due[f"{RUN}-late".encode()] - time.time() < 3700
    lapse(connection, "late")
    lapse(connection, "free")
    assert run.states == {
        "free": "canceled",
        "first": "queued",
        "late": "canceled",
        "after": "skipped",
    }
    assert run.reason("free") == run.reason("late") == "it expired before it started"
    assert connection.lrange(keys.queue("default"), 0, -1) == [f"{RUN}-first".encode()]
    assert connection.zcard(keys.EXPIRING) == 0


def test_an_operation_that_fails_does_not_keep_maintenance_from_the_rest(
    run: Runs, connection: Redis
) -> None:
    run.submit(job("late", "my_id", expires_s=60))
    connection.zadd(keys.TODO, {"defragment:r1": 1})  # a newer version's
    with pytest.raises(ResponseError, match="no such operation: defragment:r1"):
        lapse(connection, "late")
    assert run.states == {"late": "canceled"}


def test_a_job_that_has_started_in_time_goes_on(run: Runs, work: Work, connection: Redis) -> None:
    run.submit(job("first", "my_id"), job("late", "my_id", needs=("first",), expires_s=60))
    work(max_jobs=1)
    RedisSide(connection, "w", ["default"], 30).turn([], Capacity(1, 1, 1))
    lapse(connection, "late")
    assert run.states["late"] == "started"
    RedisSide(connection, "other", ["default"], 30).recover("w", 9)
    work()
    assert run.state == "succeeded"
    assert connection.zcard(keys.EXPIRING) == 0


def test_time_counts_from_the_moment_when_the_run_goes(
    run: Runs, work: Work, connection: Redis
) -> None:
    workflow = Workflow("demo", (job("only", "my_id", expires_s=60),))
    runs.submit(make_plan(build_graph(workflow), {}, RUN), connection, is_held=True)
    assert connection.zcard(keys.EXPIRING) == 0
    approvals.release_run(RUN, connection)
    lapse(connection, "only")
    assert run.state == "failed"
    retry.retry(RUN, connection)
    assert connection.zcard(keys.EXPIRING) == 1
    work()
    assert run.state == "succeeded"


def test_groups_and_workflows_expire_before_they_begin(
    run: Runs, work: Work, connection: Redis
) -> None:
    inner = Workflow("inner", (job("a", "my_id", expires_s=60),))
    run.submit(
        job("first", "my_id"),
        job(
            "items",
            "give",
            for_each=each([1]),
            with_={"value": "${{ item }}"},
            needs=("first",),
            expires_s=60,
        ),
        job("legs", "my_id", matrix=Matrix({"n": [1]}), expires_s=60),
        JobSpec("chain", workflow="inner", needs=("first",), expires_s=60),
        JobSpec("other", workflow="inner"),
        workflows={"inner": inner},
    )
    for name in ("items", "legs--0", "chain--0"):
        lapse(connection, name)
    assert run.states["items(list)"] == run.states["legs[1]"] == "canceled"
    assert (run.states["chain(start)"], run.states["chain"]) == ("canceled", "canceled")
    work(max_jobs=2)
    lapse(connection, "other--a")
    assert run.states["other.a"] == "canceled"
    assert run.reason("other") == "other.a was canceled"
