"""Slots of limits across runs, and workers that die while their jobs have one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import keys, runs
from flowq.spec import Concurrency, JobSpec, Rate, Shell, Workflow
from tests.workers.forked_workers import ForkedWorker

Start = Callable[..., ForkedWorker]
Wait = Callable[..., None]
LIMIT = "shared:one"


def submit(connection: Redis, run_id: str, *jobs: JobSpec) -> None:
    runs.submit(make_plan(build_graph(Workflow("w", jobs)), {}, run_id), connection)


def state(connection: Redis, run_id: str) -> str:
    return runs.get_status(run_id, connection).jobs["a"].state


@pytest.mark.parametrize("mode", ["warm", "fork"])
def test_a_slot_outlives_a_killed_worker_with_its_job_and_no_other_gets_it(
    connection: Redis, start_worker: Start, wait_until: Wait, mode: str
) -> None:
    once = JobSpec("a", "worker_jobs:hang_once", {"key": "runs"}, concurrency=Concurrency("one"))
    first = start_worker(mode=mode)
    submit(connection, "r1", once)
    wait_until(lambda: connection.get("runs") == b"1")
    submit(connection, "r2", JobSpec("a", run=Shell("echo"), concurrency=Concurrency("one")))
    first.kill()
    assert connection.smembers(keys.slots(LIMIT)) == {b"r1-a"}
    start_worker(mode=mode, concurrency=2)
    wait_until(lambda: state(connection, "r2") == "finished")
    assert state(connection, "r1") == "finished"
    events = [
        (event.job_id, event.state)
        for run_id in ("r1", "r2")
        for event in runs.read_events(run_id, connection)
    ]
    assert events.count(("r1-a", "started")) == 2
    ended = [event for event in runs.read_events("r1", connection) if event.state == "finished"]
    began = [event for event in runs.read_events("r2", connection) if event.state == "started"]
    assert began[0].at >= ended[0].at
    assert connection.keys("*shared:one*") == []


def test_a_running_job_makes_way_for_a_newer_one(
    connection: Redis, start_worker: Start, wait_until: Wait
) -> None:
    start_worker(concurrency=2)
    newer = Concurrency("one", cancel_in_progress=True)
    submit(connection, "r1", JobSpec("a", run=Shell("sleep 600"), concurrency=newer))
    wait_until(lambda: state(connection, "r1") == "started")
    submit(connection, "r2", JobSpec("a", run=Shell("echo"), concurrency=newer))
    wait_until(lambda: state(connection, "r2") == "finished")
    old = runs.get_status("r1", connection)
    assert (old.state, old.jobs["a"].state) == ("canceled", "stopped")
    assert "the newer a of run r2 takes its place" in old.jobs["a"].reason


def test_workers_start_what_waits_for_a_rate_by_themselves(
    connection: Redis, start_worker: Start, wait_until: Wait
) -> None:
    start_worker(concurrency=2)
    for number in range(4):
        submit(connection, f"r{number}", JobSpec("a", run=Shell("echo"), rate=Rate("2/300ms", "g")))
    wait_until(lambda: state(connection, "r3") == "finished")
    starts = [
        event.at.timestamp()
        for number in range(4)
        for event in runs.read_events(f"r{number}", connection)
        if event.state == "started"
    ]
    assert min(starts[2] - starts[0], starts[3] - starts[1]) > 0.298
    wait_until(lambda: connection.keys("*rate:g*") == [])
