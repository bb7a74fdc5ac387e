"""`deferred: true` in a workflow: code may add blockers to that job, and to no other of its run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.errors import NotOpen
from flowq.runtime import keys, retry
from flowq.runtime.futures import get_future
from flowq.runtime.job import get_job
from flowq.runtime.queue import Queue
from flowq.spec import Block, JobSpec, Workflow
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def visits(log: str, name: str = "explore", *, blocks: str = "report", **more: Any) -> JobSpec:
    """A job that adds two more to the one that it blocks."""
    arguments = {"log": log, "depth": 1, "width": 2}
    return JobSpec(name, "addition_jobs:visit", with_=arguments, blocks=(Block(blocks),), **more)


def report(log: str, **more: Any) -> JobSpec:
    return JobSpec("report", "addition_jobs:finish", with_={"log": log}, **more)


def lines(log: str) -> list[str]:
    return Path(log).read_text().splitlines()


def test_code_adds_blockers_to_a_job_that_is_declared_as_deferred(
    run: Runs, work: Work, log: str
) -> None:
    run.submit(visits(log), report(log, deferred=True))
    work()
    assert run.state == "succeeded"
    assert lines(log) == ["visit 1", "visit 0", "visit 0", "last"]


def test_code_is_refused_at_any_other_job_and_told_what_to_declare(
    run: Runs, work: Work, connection: Redis, log: str
) -> None:
    run.submit(visits(log), report(log))
    with pytest.raises(NotOpen, match=r"^job report is not declared as open.*`deferred: true`"):
        Queue(connection=connection).enqueue("operator.add", 1, 1, blocks=f"{RUN}-report")
    with pytest.raises(NotOpen):
        Queue(connection=connection).enqueue(
            "operator.add", 1, 1, blocks=get_future(f"{RUN}-report", connection)
        )
    work()
    assert run.states == {"explore": "failed", "report": "skipped"}
    assert "NotOpen: job report is not declared as open" in run.error("explore")
    assert connection.llen(keys.blockers(f"{RUN}-report")) == 1
    assert lines(log) == ["visit 1"]


def test_one_closed_job_among_several_refuses_the_addition_to_all(
    run: Runs, connection: Redis, log: str
) -> None:
    run.submit(visits(log), report(log, deferred=True), job("other", "my_id", needs=("explore",)))
    queue = Queue(connection=connection)
    with pytest.raises(NotOpen, match="job other "):
        queue.enqueue("operator.add", 1, 1, blocks=[f"{RUN}-report", f"{RUN}-other"])
    assert connection.llen(keys.blockers(f"{RUN}-report")) == 1
    plain = queue.enqueue("operator.add", 1, 1, deferred=True)
    added = queue.enqueue("operator.add", 1, 1, blocks=[plain, f"{RUN}-report"])
    assert get_job(added.id, connection).run_id == RUN


def test_the_open_job_is_the_current_one_where_others_wait_too(
    run: Runs, work: Work, log: str
) -> None:
    run.submit(visits(log), report(log, deferred=True), job("after", "my_id", needs=("explore",)))
    work()
    assert run.state == "succeeded"
    assert lines(log)[-1] == "last"


def test_a_future_job_that_code_adds_to_a_run_is_open(
    run: Runs, work: Work, connection: Redis, log: str
) -> None:
    run.submit(visits(log), report(log, deferred=True))
    queue = Queue(connection=connection)
    inner = queue.enqueue("operator.add", 1, 1, deferred=True, blocks=f"{RUN}-report")
    queue.enqueue("operator.add", 1, 1, blocks=inner)
    inner.release()
    work()
    assert run.state == "succeeded"


def test_all_that_one_call_adds_before_an_open_job_belongs_to_the_run(
    run: Runs, work: Work, connection: Redis, log: str
) -> None:
    run.submit(visits(log), report(log, deferred=True))
    queue = Queue(connection=connection)
    inner, before = queue.enqueue_many(
        [
            Queue.prepare_data("os.getpid", deferred=True, job_id="i", blocked_by=f"{RUN}-report"),
            Queue.prepare_data("os.getpid", blocked_by="i"),
        ]
    )
    assert {connection.hget(each.key, "flowq_run") for each in (inner, before)} == {RUN.encode()}
    get_future("i", connection).release()
    work()
    assert run.state == "succeeded"


def test_jobs_inside_of_a_nested_workflow_add_to_an_open_job_there_by_its_name(
    run: Runs, work: Work, log: str
) -> None:
    by_name = JobSpec(
        "adder",
        "addition_jobs:add_by_name",
        with_={"log": log, "name": "report"},
        blocks=(Block("report"),),
    )
    inner = Workflow("inner", (visits(log), by_name, report(log, deferred=True)))
    run.submit(job("outer", workflow="inner"), workflows={"inner": inner})
    work()
    assert run.state == "succeeded"
    assert sorted(lines(log)[:-1]) == ["for report", "visit 0", "visit 0", "visit 1"]


@pytest.mark.parametrize("is_open", [True, False])
def test_what_a_declaration_says_holds_for_its_groups_and_its_nested_workflow(
    is_open: bool, run: Runs, work: Work, connection: Redis, log: str
) -> None:
    inner = Workflow("inner", (job("a", "my_id"),))
    run.submit(
        visits(log, blocks="group"),
        visits(log, "again", blocks="outer"),
        job("group", "my_id", for_each=each([1]), deferred=is_open),
        job("outer", workflow="inner", deferred=is_open),
        workflows={"inner": inner},
    )
    work()
    assert run.state == ("succeeded" if is_open else "failed")
    if not is_open:
        assert "NotOpen: job outer is" in run.error("again")
        assert "NotOpen: job group is" in run.error("explore")


def test_jobs_of_a_run_that_an_older_version_has_submitted_are_open(
    run: Runs, work: Work, connection: Redis, log: str
) -> None:
    run.submit(visits(log), report(log))
    connection.hdel(keys.run(RUN), keys.DECLARES_OPEN_FIELD)
    work()
    assert run.state == "succeeded"


def test_a_job_that_is_executed_again_meets_what_it_has_added(
    run: Runs, work: Work, connection: Redis, log: str, tmp_path: Path
) -> None:
    call = "addition_jobs:add_then_fail_once"
    arguments = {"log": log, "marker": str(tmp_path / "marker"), "children": 2}
    adder = JobSpec("adder", call, with_=arguments, blocks=(Block("report"),))
    run.submit(adder, report(log, deferred=True))
    work()
    assert run.state == "failed"
    retry.retry(RUN, connection)
    work()
    assert run.state == "succeeded"
    assert sorted(lines(log)[-3:]) == ["child 0", "child 1", "last"]


def test_release_by_code_changes_nothing_because_the_run_has_released_its_jobs(
    run: Runs, work: Work, connection: Redis, log: str
) -> None:
    run.submit(visits(log), report(log, deferred=True))
    assert get_future(f"{RUN}-report", connection).release() is False
    work()
    assert run.state == "succeeded"
