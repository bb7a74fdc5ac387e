"""What a run says of its jobs is what happened: which began, how often, when, and for how long."""

from __future__ import annotations

import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
import redis

from flowq.client import Run, submit
from flowq.compiling import compile_plan
from flowq.plan import Call, Commit, Enqueue, Plan, Release
from flowq.runtime import keys, runs
from flowq.runtime.queue import Queue
from flowq.status import Event, JobStatus
from flowq.workers.redis_side import Capacity, RedisSide
from tests.reading import parse_workflow
from tests.workers.forked_workers import ForkedWorker

Start = Callable[..., ForkedWorker]
Wait = Callable[..., None]

CLOCK = timedelta(milliseconds=2)
"""By so much an event's instant, a whole millisecond of the server, may differ from a child's."""

SHORT = {"operator.neg": 0.0001}

HEALTHY = """
name: healthy
jobs:
  each: {call: worker_jobs:measure_oneself, for_each: "${{ range(400) }}", with: {n: "${{ item }}"}}
"""
FEWER = HEALTHY.replace("400", "60")
"""For the mode without batches, which takes a process for each job."""


def start_run(connection: redis.Redis, text: str, run_id: str = "r") -> Run:
    plan = compile_plan(parse_workflow(text, "flow.yaml"), {}, run_id=run_id, imports=False)
    return submit(plan, connection)


def start_plain_run(connection: redis.Redis, count: int) -> Run:
    """A run of jobs that depend on nothing."""
    ids = [f"r-j{index}" for index in range(count)]
    enqueues = [
        Enqueue(i, i.removeprefix("r-"), Call("operator:neg", {"a": 1}), deferred=True) for i in ids
    ]
    plan = Plan("r", "demo", {}, (*enqueues, Commit("r"), *map(Release, ids)))
    return submit(plan, connection)


def events_by_name(run: Run) -> dict[str, list[Event]]:
    by_name: dict[str, list[Event]] = {}
    for event in runs.read_events(run.run_id, run.connection):
        by_name.setdefault(event.name, []).append(event)
    return by_name


def states(run: Run, name: str) -> list[str]:
    return [event.state for event in events_by_name(run)[name]]


def counters(run: Run) -> Mapping[str, int]:
    """How often the jobs have been started, as their hashes say."""
    ids = {job.name: job.job_id for job in run.status().jobs.values()}
    read = run.connection.hget
    return {name: int(read(keys.job(i), "flowq_attempts") or 0) for name, i in ids.items()}


def items_of(run: Run) -> list[JobStatus]:
    return [job for job in run.status().jobs.values() if job.name.startswith("each[")]


def test_healthy_jobs_that_are_handed_over_in_batches_have_one_attempt_each(
    connection: redis.Redis, drain: Callable[..., Any], mode: str
) -> None:
    run = start_run(connection, FEWER if mode == "fork" else HEALTHY)
    drain(mode=mode, concurrency=2)
    status = run.status()
    assert status.state == "succeeded"
    assert Counter(job.attempts for job in status.jobs.values()) == {1: len(status.jobs)}
    assert set(counters(run).values()) == {1}
    events = list(itertools.chain.from_iterable(events_by_name(run).values()))
    assert not [event for event in events if "worker" in event.reason]
    is_batched = any(event.state == "handed" for event in events)
    assert is_batched == (mode != "fork"), "so the test has tried what it is for"


def test_the_time_of_a_job_is_its_own_and_not_that_of_its_batch(
    connection: redis.Redis, drain: Callable[..., Any]
) -> None:
    run = start_run(connection, HEALTHY)
    drain(mode="warm")
    measured = run.results([job.name for job in items_of(run)])
    for name, events in events_by_name(run).items():
        if not name.startswith("each["):
            continue
        end, given = events[-1], next(e for e in events if e.state in ("handed", "started"))
        assert end.began_at is not None, name
        assert end.took_ms is not None, name
        assert end.took_ms >= measured[name] * 1000
        assert given.at - CLOCK <= end.began_at
        assert end.began_at + timedelta(milliseconds=end.took_ms) <= end.at + CLOCK
        job = run.status().jobs[name] if name == "each[7]" else None
        assert job is None or (job.started_at, job.duration_s) == (
            end.began_at,
            pytest.approx(end.took_ms / 1000, abs=1e-5),
        )
    # One child: it executes one job at a time.
    spans = sorted((job.started_at, job.ended_at) for job in items_of(run))  # type: ignore[type-var]
    slips = [earlier[1] - later[0] for earlier, later in itertools.pairwise(spans)]  # type: ignore[operator]
    assert max(slips) < CLOCK


def test_a_failed_job_says_when_it_began_too(
    connection: redis.Redis, drain: Callable[..., Any]
) -> None:
    text = (
        "name: bad\njobs:\n  bad: {call: worker_jobs:fail}\n  died: {call: worker_jobs:exit_hard}\n"
    )
    run = start_run(connection, text)
    drain()
    for name in ("bad", "died"):
        end = events_by_name(run)[name][-1]
        assert end.state == "failed"
        assert end.began_at is not None
        assert run.status().jobs[name].attempts == 1


TOLERATED = """
name: tolerated
jobs:
  each:
    call: worker_jobs:fail
    for_each: "${{ range(60) }}"
    continue_on_error: true
"""


def test_tolerated_failures_of_a_batch_were_attempts_too(
    connection: redis.Redis, drain: Callable[..., Any]
) -> None:
    run = start_run(connection, TOLERATED)
    drain()
    assert run.status().state == "succeeded"
    assert any(event.state == "handed" for event in events_by_name(run)["each[59]"])
    assert {(job.state, job.attempts) for job in items_of(run)} == {("failed", 1)}
    assert all(job.started_at is not None for job in items_of(run))
    assert len(run.failures()) == 60


def test_what_was_handed_over_and_not_begun_was_no_attempt(queue: Queue) -> None:
    run = start_plain_run(queue.connection, 3)
    side = RedisSide(queue.connection, "w", ["default"], 30)
    claims = side.turn([], Capacity(1, 1, 3, cost_by_kind=SHORT)).claims
    assert [states(run, f"j{i}")[-1] for i in range(3)] == ["handed"] * 3
    assert {job.state for job in run.status().jobs.values()} == {"queued"}
    assert set(counters(run).values()) == {1}, "so that it knows its number when it begins"

    side.beat(5, 60, [(claims[0], False), (claims[1], True)])
    assert states(run, "j0")[-1] == "started"
    side.beat(5, 60, [(claims[0], False), (claims[1], True)])
    assert states(run, "j0").count("started") == 1
    side.put_back(claims, {claims[0].execution_id})
    assert [states(run, f"j{i}")[-1] for i in range(3)] == ["queued", "returned", "returned"]
    assert counters(run) == {"j0": 1, "j1": 0, "j2": 0}
    status = run.status()
    assert {name: job.attempts for name, job in status.jobs.items()} == {"j0": 1, "j1": 0, "j2": 0}
    assert status.jobs["j0"].reason == "its worker stopped"
    assert status.jobs["j1"].reason == ""


def test_of_what_a_lost_worker_held_only_what_had_begun_was_an_attempt(queue: Queue) -> None:
    run = start_plain_run(queue.connection, 3)
    side = RedisSide(queue.connection, "w", ["default"], 30)
    claims = side.turn([], Capacity(3, 3, 3, cost_by_kind=SHORT)).claims
    side.beat(5, 60, [(claims[0], False), (claims[1], True)])
    RedisSide(queue.connection, "other", ["default"], 30).recover("w", 3)
    last = {name: events[-1] for name, events in events_by_name(run).items() if name}
    assert {name: event.state for name, event in last.items()} == {
        "j0": "queued",
        "j1": "returned",
        "j2": "returned",
    }
    assert {event.reason for event in last.values()} == {"its worker was lost"}
    assert counters(run) == {"j0": 1, "j1": 0, "j2": 0}


def test_a_job_that_waits_behind_another_begins_when_it_is_told_so(queue: Queue) -> None:
    run = start_plain_run(queue.connection, 2)
    side = RedisSide(queue.connection, "w", ["default"], 30)
    claims = side.turn([], Capacity(2, 2, 2)).claims  # alone, so it is expected to begin at once
    assert states(run, "j1")[-1] == "started"
    side.beat(5, 60, [(claims[0], False), (claims[1], True)])
    side.beat(5, 60, [(claims[0], False), (claims[1], False)])
    assert run.status().jobs["j1"].attempts == 1


def test_a_second_signal_puts_back_what_has_begun_as_an_attempt(
    connection: redis.Redis, start_worker: Start, wait_until: Wait
) -> None:
    text = "name: hangs\njobs:\n  job: {call: worker_jobs:tell_pid, with: {key: pid}}\n"
    run = start_run(connection, text)
    worker = start_worker(mode="warm", name="w")
    wait_until(lambda: connection.get("pid"), 10)
    worker.send_signal(signal.SIGINT)
    wait_until(lambda: connection.hget("rq:worker:w", "shutdown_requested_date"))
    at = time.monotonic() + 0.3  # a second signal that follows at once is the first one again
    wait_until(lambda: time.monotonic() > at)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(60) == 0
    last = events_by_name(run)["job"][-1]
    assert (last.state, last.reason) == ("queued", "its worker stopped")
    assert counters(run) == {"job": 1}
    assert run.status().jobs["job"].attempts == 1
