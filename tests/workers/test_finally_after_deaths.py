"""`finally` when workers die: it runs, and runs to its end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import worker_jobs
from redis import Redis

from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import maintenance, runs
from flowq.runtime.queue import Queue
from flowq.runtime.results import get_result
from flowq.spec import ForEach, JobSpec, Workflow
from tests.workers.forked_workers import ForkedWorker

Start = Callable[..., ForkedWorker]
Wait = Callable[..., None]
RUN = "r1"


def call(name: str, function: Callable[..., object], **more: object) -> JobSpec:
    return JobSpec(name, f"worker_jobs:{function.__name__}", **more)  # type: ignore[arg-type]


def submit(connection: Redis, *jobs: JobSpec) -> None:
    runs.submit(make_plan(build_graph(Workflow("w", jobs)), {}, RUN), connection)


def states(connection: Redis) -> dict[str, str]:
    return {n: job.state for n, job in runs.get_status(RUN, connection).jobs.items()}


def has_ended(connection: Redis) -> bool:
    return runs.get_status(RUN, connection).is_ended


def test_a_worker_is_killed_in_the_last_job_before_them(
    queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    connection = queue.connection
    submit(
        connection,
        call("work", worker_jobs.hang_once, with_={"key": "runs"}, on_crash="fail"),
        JobSpec(
            "end",
            "worker_jobs:count_run",
            with_={"key": "ends"},
            is_final=True,
            if_="run.status == 'failed'",
        ),
    )
    first = start_worker()
    wait_until(lambda: connection.get("runs") == b"1", 10)
    first.kill()
    start_worker()
    wait_until(lambda: has_ended(connection), 15)
    assert states(connection) == {"work": "failed", "end": "finished"}
    assert connection.get("ends") == b"1"


def test_a_worker_is_killed_while_one_of_them_runs(
    queue: Queue, start_worker: Start, wait_until: Wait
) -> None:
    """Also in a run that was canceled before."""
    connection = queue.connection
    submit(
        connection,
        call("work", worker_jobs.nothing),
        call("end", worker_jobs.hang_once, with_={"key": "runs"}, is_final=True),
        call("last", worker_jobs.nothing, needs=("end",), is_final=True),
    )
    first = start_worker()
    wait_until(lambda: connection.get("runs") == b"1", 10)
    runs.cancel(RUN, connection)
    first.kill()
    start_worker()
    wait_until(lambda: has_ended(connection), 15)
    assert states(connection) == {"work": "finished", "end": "finished", "last": "finished"}
    assert get_result(f"{RUN}-end", connection) == "done"


@pytest.mark.parametrize("items", [None, ForEach((1, 2))])
def test_a_child_is_killed_that_has_added_jobs_and_not_released_them(
    items: ForEach | None, queue: Queue, drain: Callable[..., object]
) -> None:
    connection = queue.connection
    inside = tuple(
        JobSpec(name, "worker_jobs:count_run", with_={"key": "inside"}, **more)  # type: ignore[arg-type]
        for name, more in {"a": {}, "b": {"needs": ("a",)}, "z": {"is_final": True}}.items()
    )
    workflow = Workflow(
        "outer",
        (
            call("arm", worker_jobs.die_before_release),
            JobSpec("w", workflow="inner", needs=("arm",), for_each=items),
            call("end", worker_jobs.count_run, with_={"key": "ends"}, is_final=True),
        ),
        workflows={"inner": Workflow("inner", inside)},
    )
    runs.submit(make_plan(build_graph(workflow), {}, RUN), connection)
    drain()
    maintenance.tidy(connection)
    drain()
    assert has_ended(connection)
    assert (connection.get("inside"), connection.get("ends")) == (None, b"1")
    kinds = {name: state for name, state in states(connection).items() if name.startswith("w")}
    assert kinds.pop("w(start)" if items is None else "w(list)") == "failed"
    assert set(kinds.values()) <= {"canceled", "failed"}
