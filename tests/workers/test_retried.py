"""What is tried again in each kind of worker: how an attempt ended is known also where it died."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
import worker_jobs

import flowq
from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import runs
from flowq.runtime.job import get_job
from flowq.runtime.results import read_end
from flowq.spec import JobSpec, Retry, Shell, Workflow

RUN = "r1"
TIMEOUT = "rq.timeouts:BaseTimeoutException"


def job(name: str, call: str, path: Path, *, retries: Retry, **more: Any) -> JobSpec:
    return JobSpec(name, f"worker_jobs:{call}", {"path": f"{path}/{name}", **more}, retries=retries)


def test_the_death_of_a_process_and_what_it_raises_are_told_apart(
    connection: redis.Redis, drain: Callable[..., Any], mode: str, tmp_path: Path
) -> None:
    workflow = Workflow(
        "demo",
        (
            job("killed", "die_once", tmp_path, retries=Retry(2, on=("137",))),
            job("exits", "die_once", tmp_path, retries=Retry(2, on=("137",)), code=3),
            job("late", "raise_timeout_once", tmp_path, retries=Retry(2, on=(TIMEOUT,))),
            JobSpec(
                "tells", run=Shell("echo $FLOWQ_RUN $FLOWQ_JOB ${FLOWQ_ITEM-none} $FLOWQ_ATTEMPT")
            ),
            JobSpec("next", "worker_jobs:read_variables", needs=("tells",)),
        ),
    )
    runs.submit(make_plan(build_graph(workflow), {}, RUN), connection)
    drain(mode=mode)
    jobs = runs.get_status(RUN, connection).jobs
    assert {name: (each.state, each.attempts) for name, each in jobs.items()} == {
        "killed": ("finished", 2),
        "exits": ("failed", 1),
        "late": ("finished", 2),
        "tells": ("finished", 1),
        "next": ("finished", 1),
    }
    assert jobs["exits"].reason == "not tried again: `on` does not name exit code 3"
    assert read_end(f"{RUN}-exits", connection).exit_code == 3
    assert get_job(f"{RUN}-tells", connection).return_value() == f"{RUN} tells none 1"
    told = {"FLOWQ_RUN": RUN, "FLOWQ_JOB": "next", "FLOWQ_ATTEMPT": "1"}
    assert get_job(f"{RUN}-next", connection).return_value() == told


def test_a_plain_job_has_none_of_the_variables_of_the_one_before(
    connection: redis.Redis, drain: Callable[..., Any], tmp_path: Path
) -> None:
    workflow = Workflow("demo", (JobSpec("first", "worker_jobs:read_variables"),))
    runs.submit(make_plan(build_graph(workflow), {}, RUN), connection)
    plain = flowq.Queue(connection=connection).enqueue(worker_jobs.read_variables)
    drain(mode="warm")
    assert len(get_job(f"{RUN}-first", connection).return_value()) == 3
    assert get_job(plain.id, connection).return_value() == {}
