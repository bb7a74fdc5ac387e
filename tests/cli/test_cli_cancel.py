"""`flowq cancel`: it ends a run, whoever is there to work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.client import Run, list_runs
from tests.cli.commands import Flowq, Said
from tests.cli.own_runs import OwnRuns, find_supervisors

Call = Callable[..., Said]
WaitUntil = Callable[..., None]

CLEANED = """
name: cleaned
concurrency: one
jobs:
  build: {run: echo 1, approval: true}
  clean: {needs: build, if: always(), run: echo cleaned}
  tell: {needs: clean, if: canceled(), run: echo told, queue: far}
"""


@pytest.fixture(autouse=True)
def cleaned(folder: Path) -> None:
    """A workflow with jobs for its end, on two queues, and its run never gets there by itself."""
    (folder / "cleaned.yaml").write_text(CLEANED)


@pytest.fixture
def worker(
    flowq: Flowq, redis_url: str, connection: Redis, wait_until: WaitUntil
) -> Iterator[subprocess.Popen[str]]:
    """A worker on one of the two queues, which is ready."""
    process = flowq.start("worker", "default", "--redis-url", redis_url)
    wait_until(lambda: connection.pubsub_channels("rq:pubsub:*"), within_s=20)
    yield process
    process.kill()


def _states(run_id: str, connection: Redis) -> dict[str, str]:
    status = Run(run_id, connection).status()
    return {"run": status.state} | {job.name: job.state for job in status.jobs.values()}


def test_without_a_worker_it_ends_the_run_at_once_and_says_what_will_not_run(
    call: Call, redis_url: str, connection: Redis
) -> None:
    url = ("--redis-url", redis_url)
    run_id = call("run", "cleaned.yaml", "--detach", *url).out.strip()
    said = call("cancel", run_id, *url)
    assert said.out == f"run {run_id} is canceled\n"
    assert said.err == (
        "flowq: clean, tell were to run, as their `if` asks for, but no worker listens on the "
        "queues default, far: canceled as well\n"
    )
    assert set(_states(run_id, connection).values()) == {"canceled"}
    assert "no worker listens on its queue" in call("explain", run_id, "clean", *url).out


def test_what_a_worker_listens_for_still_runs_and_a_killed_worker_is_not_waited_for(
    flowq: Flowq,
    redis_url: str,
    connection: Redis,
    wait_until: WaitUntil,
    worker: subprocess.Popen[str],
) -> None:
    url = ("--redis-url", redis_url)
    run_id = flowq("run", "cleaned.yaml", "--detach", *url).stdout.strip()
    said = flowq("cancel", run_id, *url)
    assert "tell was to run, as its `if` asks for, but no worker listens on the queue far" in (
        said.stderr
    )
    wait_until(lambda: Run(run_id, connection).status().is_ended, within_s=20)
    assert _states(run_id, connection) == {
        "run": "canceled", "build": "canceled", "clean": "finished", "tell": "canceled",
    }  # fmt: skip
    second = flowq("run", "cleaned.yaml", "--detach", *url).stdout.strip()
    worker.kill()
    wait_until(lambda: not connection.pubsub_channels("rq:pubsub:*"))
    assert flowq("cancel", second, *url).stdout == f"run {second} is canceled\n"
    assert _states(second, connection)["run"] == "canceled"


@pytest.mark.parametrize("hold", ["--hold", "--detach"])
def test_a_run_that_has_not_begun_ends_altogether(
    call: Call, redis_url: str, connection: Redis, hold: str
) -> None:
    url = ("--redis-url", redis_url)
    first = call("run", "cleaned.yaml", "--detach", *url).out.strip()
    run_id = call("run", "cleaned.yaml", hold, *url).out.strip()
    said = call("cancel", run_id, *url)
    assert (said.out, said.err) == (f"run {run_id} is canceled\n", "")
    assert set(_states(run_id, connection).values()) == {"canceled"}
    assert _states(first, connection)["run"] == "waiting"


def test_now_ends_what_would_still_run(call: Call, redis_url: str, connection: Redis) -> None:
    url = ("--redis-url", redis_url)
    run_id = call("run", "cleaned.yaml", "--detach", *url).out.strip()
    Run(run_id, connection).cancel()  # a program may know that a worker will come
    assert _states(run_id, connection)["clean"] == "queued"
    said = call("cancel", run_id, "--now", *url)
    assert (said.out, said.err) == (f"run {run_id} is canceled\n", "")
    assert set(_states(run_id, connection).values()) == {"canceled"}


def test_on_the_private_server_workers_are_started_for_what_still_runs(
    flowq: Flowq, folder: Path
) -> None:
    runs = OwnRuns(flowq)
    run = runs.start("cleaned.yaml")
    (supervisor,) = find_supervisors(run)
    os.kill(supervisor, signal.SIGKILL)
    runs.wait_until(lambda: not run.is_served())
    said = flowq("cancel", run.run_id)
    assert (
        "clean, tell will run, as their `if` or `finally` asks for; --now ends these too"
        in said.stdout
    )
    assert f"workers were started for that; follow the run with: flowq watch {run.run_id}" in (
        said.stderr
    )
    assert runs.results(run) == {"clean": "cleaned", "tell": "told"}
    assert run.status().state == "canceled"
    runs.connection.close()


def test_ctrl_c_ends_a_run_whose_jobs_nobody_executes(
    flowq: Flowq, redis_url: str, connection: Redis, wait_until: WaitUntil
) -> None:
    process = flowq.start("run", "cleaned.yaml", "--json", "--redis-url", redis_url)
    wait_until(lambda: list_runs(connection), within_s=20)
    wait_until(lambda: list_runs(connection)[0].state == "waiting", within_s=20)
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    document: dict[str, Any] = json.loads(stdout)
    assert document["status"] == "canceled"
    assert {job["status"] for job in document["jobs"].values()} == {"canceled"}
