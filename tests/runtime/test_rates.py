"""`rate`: how many jobs start in each period, in all runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from redis import Redis

from flowq.durations import local_time, parse_rate
from flowq.runtime import keys, runs
from flowq.runtime.explain import explain
from flowq.spec import JobSpec, Rate, Retry, Workflow
from flowq.testing.worker import InProcessWorker
from flowq.workers.redis_side import Capacity, RedisSide
from tests.runtime.language import each, job
from tests.runtime.test_limits_across_runs import claim, leftovers, queued, states, submit

Work = Callable[..., None]
GROUP = "mail server"
SPENT = keys.spent("rate:mail%20server")


def rated(name: str = "a", limit: str = "2/h", call: str = "my_id", **more: Any) -> JobSpec:
    return job(name, call, rate=Rate(limit, GROUP), **more)


def pass_time(connection: Redis, seconds: float) -> None:
    """Let so much time pass for what has started; then workers look at their schedules."""
    for member, at in connection.zrange(SPENT, 0, -1, withscores=True):  # type: ignore[misc]
        connection.zadd(SPENT, {member: at - seconds})
    for name, at in connection.zrange(keys.RATES, 0, -1, withscores=True):  # type: ignore[misc]
        connection.zadd(keys.RATES, {name: at - seconds})
    RedisSide(connection, "w", ["default"], 30).queue_due()


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10/m", (10, 60)), ("100 / h", (100, 3600)), ("5/10s", (5, 10)), ("1/0.5s", (1, 0.5))],
)
def test_a_rate_is_read(text: str, rate: tuple[int, float]) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "10", "0/m", "10/0s", "-1/m", "10/week", "10 per m", "1/9999d"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate(text)


def test_so_many_start_in_each_period_in_their_order(connection: Redis, work: Work) -> None:
    for number in range(5):
        submit(connection, f"r{number}", rated(f"job{number % 2}"))
    assert queued(connection) == ["r0-job0", "r1-job1"]
    assert claim(connection, 1) == ["r0-job0"]
    pass_time(connection, 600)
    work()  # r1 starts later than r0
    assert queued(connection) == []
    pass_time(connection, 3_300)  # more than an hour after r0 has started
    assert queued(connection) == ["r2-job0"]
    work()
    pass_time(connection, 300)
    assert queued(connection) == ["r3-job1"]
    work()
    assert queued(connection) == []
    pass_time(connection, 3_600)
    work()
    assert states(connection, "r4") == ["finished"]
    pass_time(connection, 3_600)
    assert leftovers(connection) == []


def test_no_window_has_more_starts_by_the_servers_clock(connection: Redis) -> None:
    """A worker claims whenever it may; the events say when that was."""
    submit(connection, "a", rated("x", "3/200ms", for_each=each(list(range(10)))))
    side = RedisSide(connection, "w", ["default"], 30)
    InProcessWorker(connection).drain()

    def find_starts() -> list[float]:
        events = runs.read_events("a", connection)
        return [e.at.timestamp() for e in events if e.state == "started" and "[" in e.name]

    deadline = time.monotonic() + 60
    while len(find_starts()) < 10 and time.monotonic() < deadline:
        wait_s, _ = side.queue_due()
        side.turn([], Capacity(9, 9, 9))
        time.sleep(min(wait_s or 0.01, 0.05))
    starts = find_starts()
    assert len(starts) == 10
    gaps = [later - start for start, later in zip(starts, starts[3:], strict=False)]
    assert min(gaps) > 0.198  # the instant of an event is in whole milliseconds


def test_each_attempt_counts_and_a_canceled_job_that_has_not_started_does_not(
    connection: Redis, work: Work
) -> None:
    submit(connection, "a", rated(call="fail", retries=Retry(1)))
    submit(connection, "b", rated())
    submit(connection, "c", rated())
    runs.cancel("b", connection)
    assert queued(connection) == ["a-a", "c-a"]
    assert claim(connection, 1) == ["a-a"]
    RedisSide(connection, "other", ["default"], 30).recover("w", 9)  # it begins anew
    assert queued(connection) == ["a-a", "c-a"]
    assert claim(connection, 2, "x") == ["c-a"]
    assert connection.hget(keys.job("a-a"), "status") == b"deferred"
    pass_time(connection, 3_600)
    assert queued(connection) == ["a-a"]


def test_a_rate_of_a_job_alone_counts_in_all_runs_of_its_workflow(
    connection: Redis, work: Work
) -> None:
    for run_id in "ab":
        jobs = [job("x", "my_id", rate=Rate("1/h")), job("y", "my_id", rate=Rate("1/h"))]
        submit(connection, run_id, *jobs, name="same")
    assert queued(connection) == ["a-x", "a-y"]


def test_a_job_whose_if_is_false_does_not_count(connection: Redis, work: Work) -> None:
    before = job("before", "give", with_={"value": 0})
    submit(connection, "a", before, rated(needs=("before",), if_="jobs.before.result == 1"))
    submit(connection, "b", before, rated(needs=("before",), if_="jobs.before.result == 0"))
    work()
    assert states(connection, "a", "b") == ["finished", "skipped", "finished", "finished"]
    assert connection.zcard(SPENT) == 1


def test_a_nested_workflow_counts_once(connection: Redis, work: Work) -> None:
    inner = Workflow("inner", (job("x", "my_id"), job("y", "my_id", needs=("x",))))
    nested = JobSpec("n", workflow="inner", rate=Rate("1/h", GROUP))
    for run_id in "ab":
        submit(connection, run_id, nested, workflows={"inner": inner})
    work()
    assert runs.get_status("a", connection).state == "succeeded"
    assert states(connection, "b")[0] == "deferred"
    assert connection.zcard(SPENT) == 1


def test_tests_do_not_wait_for_a_rate(connection: Redis) -> None:
    submit(connection, "a", rated("x", "1/h", for_each=each(list(range(4)))))
    worker = InProcessWorker(connection)
    worker.drain()
    assert states(connection, "a").count("finished") == 2  # the list, and one of its items
    worker.drain(with_scheduled=True)
    assert runs.get_status("a", connection).state == "succeeded"


def test_explain_says_when_the_next_start_is_allowed(connection: Redis, work: Work) -> None:
    for run_id in "abcd":
        submit(connection, run_id, rated())
    work()
    [reason] = explain("d-a", connection).reasons
    [(_, at_s)] = connection.zrange(SPENT, 0, 0, withscores=True)  # type: ignore[misc]
    at = local_time(datetime.fromtimestamp(at_s, UTC))
    start = f"the rate {GROUP} (2/h) is used up: the next start is allowed at {at}"
    assert (reason.kind, reason.text) == ("slot", f"{start}; 1 before it")
