"""Work that is discovered while it runs: rq issue 1419."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import addition_jobs as jobs
import pytest
import redis
from rq import Retry

from flowq.errors import FutureAlreadyStarted, FutureEnded, NotAFutureJob, UsageError
from flowq.plan import Call, Commit, Enqueue, Plan, Release
from flowq.runtime import keys, runs
from flowq.runtime.futures import current_future, get_future
from flowq.runtime.queue import Queue
from flowq.spec import Block

Work = Callable[..., None]


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def lines(log: str) -> list[str]:
    return Path(log).read_text().splitlines()


def test_hundreds_of_discoveries_end_in_one_job_after_all_of_them(
    queue: Queue, work: Work, log: str
) -> None:
    last = queue.enqueue(jobs.finish, log, deferred=True)
    queue.enqueue(jobs.visit, log, 3, 7, blocks=last)
    last.release()
    work()
    count = 1 + 7 + 7**2 + 7**3
    assert last.return_value() == count
    assert lines(log).count("last") == 1
    assert queue.connection.llen(keys.blockers(last.id)) == count


def test_an_adder_that_is_retried_does_not_double_its_children(
    queue: Queue, work: Work, log: str, tmp_path: Path
) -> None:
    last = queue.enqueue(jobs.finish, log, deferred=True)
    marker = str(tmp_path / "marker")
    queue.enqueue(jobs.add_then_fail_once, log, marker, 3, blocks=last, retry=Retry(max=1))
    last.release()
    work()
    assert sorted(lines(log)) == ["child 0", "child 1", "child 2", "last"]
    assert queue.connection.llen(keys.blockers(last.id)) == 4


def test_the_children_of_a_run_s_job_belong_to_the_run(
    connection: redis.Redis, work: Work, log: str
) -> None:
    plan = Plan(
        "r1",
        "demo",
        {},
        (
            Enqueue(
                "r1-last", "last", Call(_call("finish"), {"log": log}), deferred=True, is_open=True
            ),
            Enqueue(
                "r1-first",
                "first",
                Call(_call("visit"), {"log": log, "depth": 2, "width": 2}),
                blocks=(Block("r1-last"),),
            ),
            Commit("r1"),
            Release("r1-last"),
        ),
    )
    runs.submit(plan, connection)
    work()
    status = runs.get_status("r1", connection)
    assert status.state == "succeeded"
    assert len(status.jobs) == 2 + 2 + 4
    assert {job.state for job in status.jobs.values()} == {"finished"}
    runs.remove("r1", connection)
    assert not [key for key in connection.scan_iter() if b"r1" in key]


def test_a_job_that_blocks_several_says_which_one_it_adds_to(
    connection: redis.Redis, work: Work, log: str
) -> None:
    blocks = (Block("r1-left"), Block("r1-right"))
    plan = Plan(
        "r1",
        "demo",
        {},
        (
            Enqueue(
                "r1-left", "left", Call(_call("finish"), {"log": log}), deferred=True, is_open=True
            ),
            Enqueue(
                "r1-right",
                "right",
                Call(_call("finish"), {"log": log}),
                deferred=True,
                is_open=True,
            ),
            Enqueue(
                "r1-adder",
                "adder",
                Call(_call("add_by_name"), {"log": log, "name": "right"}),
                blocks=blocks,
            ),
            Enqueue("r1-asker", "asker", Call(_call("ask_without_name"), {}), blocks=blocks),
            Commit("r1"),
            Release("r1-left"),
            Release("r1-right"),
        ),
    )
    runs.submit(plan, connection)
    work()
    assert "for right" in lines(log)
    assert connection.llen(keys.blockers("r1-right")) == 3
    assert connection.llen(keys.blockers("r1-left")) == 2
    assert runs.get_status("r1", connection).jobs["asker"].state == "failed"


def test_any_process_adds_by_id_until_the_future_job_is_queued(
    queue: Queue, work: Work, log: str, connection: redis.Redis
) -> None:
    last = queue.enqueue(jobs.finish, log, deferred=True)
    first = queue.enqueue(jobs.visit, log, 0, 0, blocks=last)
    last.release()
    again = get_future(last.id, connection)
    queue.enqueue(jobs.visit, log, 0, 0, blocks=again)
    work(2)
    assert first.is_finished
    with pytest.raises(FutureAlreadyStarted):
        queue.enqueue(jobs.visit, log, 0, 0, blocks=again)
    work()
    with pytest.raises(FutureEnded):
        queue.enqueue(jobs.visit, log, 0, 0, blocks=again)


def test_only_a_future_job_is_got_as_one(queue: Queue, connection: redis.Redis) -> None:
    plain = queue.enqueue("time.time")
    with pytest.raises(NotAFutureJob):
        get_future(plain.id, connection)


def test_outside_of_a_job_there_is_no_current_future() -> None:
    with pytest.raises(UsageError, match="inside a running job"):
        current_future()


def test_two_additions_in_one_job_get_two_ids_and_a_second_execution_the_same(
    queue: Queue, work: Work, log: str
) -> None:
    last = queue.enqueue(jobs.finish, log, deferred=True)
    adder = queue.enqueue(jobs.visit, log, 1, 2, blocks=last, job_id="adder")
    last.release()
    work()
    ids = [key.decode() for key in queue.connection.lrange(keys.blockers(last.id), 0, -1)]
    assert ids == ["adder", "adder--0-0", "adder--0-1"]
    assert adder.is_finished


def test_a_future_job_that_joins_a_run_is_skipped_after_a_failure_so_that_the_run_ends(
    connection: redis.Redis, work: Work, log: str
) -> None:
    plan = Plan(
        "r1",
        "demo",
        {},
        (
            Enqueue(
                "r1-last", "last", Call(_call("finish"), {"log": log}), deferred=True, is_open=True
            ),
            Enqueue(
                "r1-adder",
                "adder",
                Call(_call("add_nested_that_fails"), {"log": log}),
                blocks=(Block("r1-last"),),
            ),
            Commit("r1"),
            Release("r1-last"),
        ),
    )
    runs.submit(plan, connection)
    work()
    status = runs.get_status("r1", connection)
    assert (status.state, status.jobs["last"].state) == ("failed", "skipped")


def _call(name: str) -> str:
    return f"addition_jobs:{name}"
