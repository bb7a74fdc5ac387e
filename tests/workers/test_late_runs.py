"""A run that takes too long is ended by whoever works, also where its worker has died."""

from __future__ import annotations

from collections.abc import Callable

import redis

from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import keys, maintenance, runs
from flowq.spec import JobSpec, Workflow
from flowq.status import RunStatus
from tests.workers.forked_workers import ForkedWorker

Start = Callable[..., ForkedWorker]
Wait = Callable[..., None]

SLEEP = JobSpec("a", "worker_jobs:sleep", with_={"seconds": 600})


def submit(connection: redis.Redis, workflow: Workflow) -> Callable[[], RunStatus]:
    runs.submit(make_plan(build_graph(workflow), {}, "r1"), connection)
    return lambda: runs.get_status("r1", connection)


def test_a_worker_stops_what_runs_too_long(
    connection: redis.Redis, start_worker: Start, wait_until: Wait
) -> None:
    clean = JobSpec(
        "clean", "worker_jobs:sleep", with_={"seconds": 0}, needs=("a",), if_="always()"
    )
    status = submit(connection, Workflow("demo", (SLEEP, clean), timeout_s=0.5))
    start_worker()
    wait_until(lambda: status().is_ended, 15)
    jobs = {name: job.state for name, job in status().jobs.items()}
    assert (status().state, status().reason) == ("canceled", "timed out after 500ms")
    assert jobs["clean"] == "finished"
    assert jobs["a"] in ("stopped", "canceled")  # it may have begun too late


def test_a_worker_stops_what_runs_inside_of_a_workflow_for_too_long(
    connection: redis.Redis, start_worker: Start, wait_until: Wait
) -> None:
    inner = Workflow("inner", (SLEEP,))
    sub = JobSpec("sub", workflow="inner", timeout_s=0.5)
    status = submit(connection, Workflow("demo", (sub,), workflows={"inner": inner}))
    start_worker()
    wait_until(lambda: status().is_ended, 15)
    assert status().jobs["sub"].state == "canceled"
    assert status().jobs["sub"].reason == "timed out after 500ms"


def test_what_a_dead_worker_had_ends_with_the_run(
    connection: redis.Redis, start_worker: Start, wait_until: Wait
) -> None:
    status = submit(connection, Workflow("demo", (SLEEP,), timeout_s=600))
    worker = start_worker()
    wait_until(lambda: status().jobs["a"].state == "started", 15)
    worker.kill()
    worker.wait()
    wait_until(lambda: not connection.pubsub_numsub(keys.commands(name_of(connection)))[0][1], 15)
    connection.zadd(keys.DEADLINES, {"r1": 1})
    maintenance.tidy(connection)
    assert (status().state, status().jobs["a"].state) == ("canceled", "canceled")
    assert status().jobs["a"].reason == "the run timed out after 10m"


def name_of(connection: redis.Redis) -> str:
    [name] = connection.zrange(keys.WORKERS, 0, -1)
    return name.decode()
