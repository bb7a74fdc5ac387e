"""`attempt` in expressions, and the variables that tell a job which one it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.client import Run
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.runtime.variables import NAMES, variables_of
from flowq.spec import JobSpec, Matrix, Retry, Shell, Workflow
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]
LOOK = {"attempt": "${{ attempt }}"}


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """RQ's worker executes the jobs in the process of the test."""
    yield
    for name in NAMES:
        os.environ.pop(name, None)


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def told(name: str, attempt: int = 1, item: str | None = None) -> dict[str, Any]:
    found = {"FLOWQ_RUN": RUN, "FLOWQ_JOB": name, "FLOWQ_ATTEMPT": str(attempt)}
    return {**found, **({} if item is None else {"FLOWQ_ITEM": item}), "attempt": attempt}


def test_each_job_of_a_run_is_told_which_one_it_is(run: Runs, work: Work) -> None:
    inner = Workflow("inner", (job("x", "read_variables", with_=LOOK),))
    run.submit(
        job("plain", "read_variables", with_=LOOK),
        job("each", "read_variables", with_=LOOK, for_each=each(["a]", "b"], key="item")),
        job("legs", "read_variables", with_=LOOK, matrix=Matrix({"os": ["linux"]})),
        JobSpec("sub", workflow="inner"),
        workflows={"inner": inner},
    )
    work()
    assert run.result("plain") == told("plain")
    assert run.result("each--0") == told("each[a]]", item="a]")
    assert run.result("each--1") == told("each[b]", item="b")
    assert run.result("legs--0") == told("legs[linux]", item="linux")
    assert run.result("sub--x") == told("sub.x")


def test_the_number_goes_up_with_each_attempt_and_each_retry_of_the_run(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    command = f"echo ${{{{ attempt }}}} $FLOWQ_ATTEMPT >> {tmp_path}/log; test -e {tmp_path}/gate"
    run.submit(
        JobSpec("a", run=Shell(command), retries=Retry(1)),
        job("look", "give", with_={"value": "${{ jobs.a.attempts }}"}, if_="always()"),
    )
    work()
    (tmp_path / "gate").touch()
    Run(RUN, run.connection).retry("a")
    work()
    assert (tmp_path / "log").read_text().split() == ["1", "1", "2", "2", "3", "3"]
    assert run.result("look") == 3


@pytest.mark.parametrize(
    ("name", "group_id", "item"),
    [
        ("each[3]", f"{RUN}-each", "3"),
        ("each[a[b].each[c]]", f"{RUN}-each", "a[b].each[c]"),
        ("sub.each[3]", f"{RUN}-sub--each", "3"),
        ("outer[x].each[3]", f"{RUN}-outer--0--each", "3"),
    ],
)
def test_an_item_is_what_stands_in_the_brackets(name: str, group_id: str, item: str) -> None:
    job = Job(connection=object())  # type: ignore[arg-type]  # nothing is asked
    job.run_id, job.name, job.group_of_items = RUN, name, group_id
    assert variables_of(job)["FLOWQ_ITEM"] == item


def test_a_plain_job_is_told_nothing_of_a_run(
    queue: Queue, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWQ_JOB", "that of a job which has started this worker")
    plain = queue.enqueue("language_jobs.read_variables")
    work()
    assert plain.return_value() == {"attempt": None}
