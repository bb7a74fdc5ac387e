"""Jobs of a run that RQ's own tools delete, cancel or execute: the run has an end all the same."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from redis import Redis
from rq import Queue as RQQueue
from rq import cancel_job
from rq.job import Job as RQJob
from rq.registry import DeferredJobRegistry, FailedJobRegistry, ScheduledJobRegistry
from rq.utils import as_text

from flowq.client import Run
from flowq.errors import NotFound, WrongState
from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import keys, retry, runs
from flowq.runtime.explain import explain
from flowq.runtime.maintenance import Finding, examine
from flowq.runtime.steps import step
from flowq.spec import Approval, Block, Concurrency, JobSpec, Retry, Workflow
from flowq.workers.redis_side import Capacity, RedisSide
from tests.runtime.calls import count_calls
from tests.runtime.language import RUN, Runs, each, job

Work = Callable[..., None]
Tool = Callable[[str, Redis], None]

SQUARES = {"number": "${{ item }}"}
INNER = Workflow("inner", (job("one", "my_id"), job("two", "my_id", needs=("one",))))


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def of_every_kind(run: Runs) -> None:
    """A run whose jobs block nothing, wait for others, for an approval, for a slot …"""
    run.submit(
        job("alone", "my_id"),
        job("first", "my_id"),
        job("middle", "my_id", needs=("first",)),
        job("last", "my_id", needs=("middle", "inner")),
        job("ask", "my_id", approval=Approval()),
        job("list", "make_list", with_={"count": 3}),
        job(
            "squares", "square", for_each=each("${{ jobs.list.result }}"), with_=SQUARES,
            max_parallel=1,
        ),
        job("total", "my_id", needs=("squares",)),
        JobSpec("inner", workflow="inner", max_parallel=1),
        workflows={"inner": INNER},
        max_parallel=2,
    )  # fmt: skip


def unended(connection: Redis) -> list[str]:
    return sorted(as_text(raw) for raw in connection.hkeys(keys.unended(RUN)))


def delete(job_id: str, connection: Redis) -> None:
    RQJob.fetch(job_id, connection).delete()


def cancel(job_id: str, connection: Redis) -> None:
    cancel_job(job_id, connection)


def expire(job_id: str, connection: Redis) -> None:
    connection.delete(keys.job(job_id))


def play_on(run: Runs, work: Work) -> None:
    """Work, approve and look until the run has ended, or nothing happens any more."""
    before = None
    while (seen := run.states) != before and run.state not in ("succeeded", "failed", "canceled"):
        before = seen
        examine(run.connection)
        for name, status in run.status.jobs.items():
            if status.is_asking:
                Run(RUN, run.connection).release(name)
        work()


def leftovers(connection: Redis) -> list[str]:
    """What an ended run must not leave: slots, turns, steps, watches."""
    patterns = ("slots:*", "waiting:*", "behind:*", "todo", "watched", f"unended:{RUN}")
    return [as_text(key) for p in patterns for key in connection.keys(f"rq:flowq:1:{p}")]


@pytest.mark.parametrize(("tool", "worked"), [(expire, 0), (delete, 3), (cancel, 5)])
def test_whatever_job_a_tool_ends_the_run_ends_too(
    run: Runs, work: Work, connection: Redis, tool: Tool, worked: int
) -> None:
    of_every_kind(run)
    if worked:
        work(max_jobs=worked)
    victims = unended(connection)
    assert len(victims) >= 7
    for victim in victims:
        connection.flushdb()
        of_every_kind(run)
        if worked:
            work(max_jobs=worked)
        tool(victim, connection)
        play_on(run, work)
        state = "canceled" if tool is cancel else "deleted"
        ends = {each.job_id: each.state for each in run.status.jobs.values()}
        assert (run.state, ends[victim]) == ("failed", state), (victim, run.states)
        assert not leftovers(connection), victim
        assert connection.hget(keys.run(RUN), "left") == b"0", victim


@pytest.mark.parametrize("tool", [delete, cancel, expire])
def test_a_canceled_run_ends_without_a_worker_whatever_a_tool_did(
    run: Runs, connection: Redis, tool: Tool
) -> None:
    of_every_kind(run)
    for victim in unended(connection)[::2]:
        tool(victim, connection)
    runs.cancel(RUN, connection)
    assert run.state == "canceled"
    assert not leftovers(connection)


@pytest.fixture
def emptied(run: Runs, rq_command: Callable[..., subprocess.Popen[str]]) -> Runs:
    """A run whose only job `rq empty` has deleted, with another one behind it in its group."""
    for run_id in (RUN, "next"):
        workflow = Workflow("demo", (job("only", "my_id"),), concurrency=Concurrency("nightly"))
        runs.submit(make_plan(build_graph(workflow), {}, run_id), run.connection)
    process = rq_command("empty", "default")
    output, _ = process.communicate(timeout=60)
    assert "1 jobs removed" in output
    return run


def test_explain_says_before_and_after_that_a_job_was_deleted(
    emptied: Runs, connection: Redis
) -> None:
    job_id = f"{RUN}-only"
    before = explain(job_id, connection)
    assert before.state == "deleted"
    assert "its run has not noticed yet" in before.reasons[0].text
    assert examine(connection) == [Finding(job_id, "deleted", RUN)]
    after = Run(RUN, connection).explain("only")
    assert "not noticed" not in after.reasons[0].text
    assert "cannot run again" in after.reasons[0].hint
    assert "runs the jobs that do not need it" in after.reasons[0].hint
    assert emptied.reason("only") == "it was deleted by something that does not know flowq"
    with pytest.raises(NotFound):
        explain(f"{RUN}-other", connection)


def test_the_next_run_of_its_group_goes_when_a_run_ends_unnoticed(
    emptied: Runs, connection: Redis, work: Work
) -> None:
    assert runs.get_status("next", connection).state == "waiting"
    examine(connection)
    work()
    assert emptied.state == "failed"
    assert runs.get_status("next", connection).state == "succeeded"


def test_a_run_whose_record_is_gone_keeps_no_other_of_its_group_waiting(
    emptied: Runs, connection: Redis, work: Work
) -> None:
    connection.delete(keys.run(RUN))
    examine(connection)
    work()
    assert runs.get_status("next", connection).state == "succeeded"


def test_what_a_plain_worker_executes_is_noticed_wherever_it_stands(
    run: Runs, work: Work, work_plainly: Work, connection: Redis
) -> None:
    """Also the job that adds the items of a group, and the one that adds a nested workflow."""
    of_every_kind(run)
    for _ in range(12):
        work_plainly()
        examine(connection)
        for name, status in run.status.jobs.items():
            if status.is_asking:
                Run(RUN, connection).release(name)
    assert run.state == "succeeded", run.states
    assert not leftovers(connection)
    assert connection.ttl(keys.job(f"{RUN}-alone")) == -1  # not RQ's 500 s: its run shows it


def test_a_job_that_fails_under_a_plain_worker_counts_as_failed(
    run: Runs, work_plainly: Work, connection: Redis
) -> None:
    run.submit(job("only", "fail"))
    work_plainly()
    explanation = explain(f"{RUN}-only", connection)
    assert "its run has not noticed yet" in explanation.reasons[0].text
    assert examine(connection) == [Finding(f"{RUN}-only", "failed", RUN)]
    assert (run.state, run.states) == ("failed", {"only": "failed"})


def test_a_job_that_rq_deletes_and_makes_anew_while_it_runs_counts_once(
    run: Runs, work_plainly: Work, connection: Redis
) -> None:
    """Its hash is there again afterwards, without our fields."""
    run.submit(job("only", "delete_me"), job("other", "my_id"))
    work_plainly()
    assert connection.hget(keys.job(f"{RUN}-only"), "status") == b"finished"
    assert connection.hget(keys.job(f"{RUN}-only"), "flowq_run") is None
    examine(connection)
    assert (run.state, run.states) == ("succeeded", {"only": "finished", "other": "finished"})


@pytest.mark.parametrize(
    "empty",
    [
        lambda queue: queue.empty(),
        lambda queue: queue.delete(delete_jobs=True),
        lambda queue: [
            registry.remove(job_id, delete_job=True)
            for registry in (queue.deferred_job_registry, queue.scheduled_job_registry)
            for job_id in registry.get_job_ids()
        ],
    ],
)
def test_a_queue_or_a_registry_that_rqs_classes_empty_ends_what_was_in_it(
    run: Runs, connection: Redis, work: Work, empty: Callable[[RQQueue], object]
) -> None:
    of_every_kind(run)
    empty(RQQueue(connection=connection))
    play_on(run, work)
    assert run.state == "failed"
    assert not leftovers(connection)


def test_a_job_that_was_taken_off_the_schedule_or_the_queue_is_queued_again(
    run: Runs, connection: Redis, work: Work, be_missing: Callable[[], None]
) -> None:
    run.submit(
        job("again", "fail", retries=Retry(1, 1000)),
        job("queued", "my_id"),
        job("there", "my_id"),
    )
    work(max_jobs=1)
    queue = RQQueue(connection=connection)
    for registry in (DeferredJobRegistry, ScheduledJobRegistry, FailedJobRegistry):
        connection.delete(registry(queue=queue).key)
    queue.remove(f"{RUN}-queued")
    assert examine(connection) == []
    be_missing()
    found = {(f.job_id, f.what) for f in examine(connection)}
    assert found == {(f"{RUN}-again", "lost"), (f"{RUN}-queued", "lost")}
    work()
    assert run.states == {"again": "failed", "queued": "finished", "there": "finished"}


@pytest.fixture
def be_missing(connection: Redis) -> Callable[[], None]:
    """`be_missing()`: what was missing at the last look has been so for half a minute."""

    def age() -> None:
        for key in connection.keys("rq:job:*"):
            if connection.hexists(key, "flowq_missing"):
                connection.hincrbyfloat(key, "flowq_missing", -31)

    return age


def test_a_started_job_that_no_worker_has_is_queued_again(
    run: Runs, connection: Redis, work: Work, be_missing: Callable[[], None]
) -> None:
    run.submit(job("only", "my_id"))
    connection.lpop(keys.queue("default"))
    connection.hset(keys.job(f"{RUN}-only"), mapping={"status": "started", "worker_name": "gone"})
    assert examine(connection) == []
    be_missing()
    assert examine(connection) == [Finding(f"{RUN}-only", "lost", RUN)]
    work()
    assert run.state == "succeeded"


def test_rqs_requeue_afterwards_lets_the_run_go_on(
    run: Runs, connection: Redis, work: Work, work_plainly: Work
) -> None:
    run.submit(job("bad", "fail_unless", with_={"path": "."}), job("other", "my_id"))
    connection.hset(keys.job(f"{RUN}-bad"), "data", b"broken")
    work_plainly(max_jobs=1)
    examine(connection)
    assert run.states["bad"] == "failed"
    RQJob.fetch(f"{RUN}-bad", connection).requeue()
    work()
    examine(connection)
    assert run.state == "failed"
    assert not leftovers(connection)


def test_a_retry_runs_what_can_run_without_the_deleted_jobs(
    run: Runs, connection: Redis, work: Work, tmp_path: Path
) -> None:
    run.submit(
        job("gone", "my_id"),
        job("after", "my_id", needs=("gone",)),
        job("bad", "fail_unless", with_={"path": f"{tmp_path}/gate"}),
        job("behind", "my_id", needs=("bad",)),
    )
    delete(f"{RUN}-gone", connection)
    examine(connection)
    work()
    assert run.states == {
        "gone": "deleted", "after": "skipped", "bad": "failed", "behind": "skipped",
    }  # fmt: skip
    (tmp_path / "gate").touch()
    assert f"{RUN}-gone" not in retry.retry(RUN, connection)
    work()
    assert run.states == {
        "gone": "deleted", "after": "skipped", "bad": "finished", "behind": "finished",
    }  # fmt: skip
    assert run.reason("after") == "r1-gone was deleted"
    with pytest.raises(WrongState, match="gone was deleted, and nothing else can run"):
        retry.retry(RUN, connection)


@pytest.mark.parametrize("on_failure", ["ignore", None])
def test_a_retry_does_not_wait_for_a_job_that_was_deleted_after_those_behind_it_had_ended(
    run: Runs, connection: Redis, work: Work, on_failure: Literal["ignore"] | None
) -> None:
    edge = Block("last", on_failure)
    run.submit(job("gone", "my_id", blocks=(edge,)), job("last", "my_id", if_="always()"))
    cancel_job(f"{RUN}-last", connection)
    assert examine(connection) == [Finding(f"{RUN}-last", "canceled", RUN)]
    RQJob.fetch(f"{RUN}-gone", connection).delete()
    assert examine(connection) == [Finding(f"{RUN}-gone", "deleted", RUN)]
    assert retry.retry(RUN, connection) == (f"{RUN}-last",)
    work()
    assert run.states == {"gone": "deleted", "last": "finished"}


def test_cancel_ends_at_once_what_runs_where_no_worker_lives(run: Runs, connection: Redis) -> None:
    run.submit(job("only", "my_id"), job("after", "my_id", needs=("only",)))
    dead = RedisSide(connection, "dead", ["default"], 30)
    dead.turn([], Capacity(1, 1, 1))
    dead.beat(5.0, 400, [])  # it has a lease, but is not connected
    assert run.states["only"] == "started"
    runs.cancel(RUN, connection)
    assert (run.state, run.states) == ("canceled", {"only": "canceled", "after": "canceled"})
    assert connection.zcard("rq:wip:default") == 0


def test_cancel_stops_a_job_for_the_end_of_the_run_with_now_alone(
    run: Runs, connection: Redis
) -> None:
    run.submit(job("clean", "my_id", if_="always()"), job("other", "my_id"))
    redis_side = RedisSide(connection, "living", ["default"], 30)
    with connection.pubsub() as commands:
        commands.subscribe(keys.commands("living"))
        assert commands.get_message(timeout=60)
        redis_side.turn([], Capacity(2, 2, 2))
        redis_side.beat(5.0, 400, [])
        runs.cancel(RUN, connection)
        runs.cancel(RUN, connection)
        runs.cancel(RUN, connection, is_now=True)
        told = [commands.get_message(timeout=60) for _ in range(4)]
    stopped = [json.loads(each["data"])["job_id"] for each in told if each]
    assert stopped == [f"{RUN}-other", f"{RUN}-other", f"{RUN}-clean", f"{RUN}-other"]


def test_looking_at_many_healthy_jobs_costs_little_and_goes_in_steps(
    run: Runs, connection: Redis, work: Work
) -> None:
    """Little more than one command a job, of which the server does a million a second."""
    count = 2_000
    run.submit(
        job("many", "square", for_each=each(list(range(count))), with_=SQUARES),
        job("total", "my_id", needs=("many",)),
    )
    work(max_jobs=1)
    connection.zadd(keys.WATCHED, {RUN: 0})
    connection.config_resetstat()
    steps = 1
    while step(connection, "look:due").more:
        steps += 1
    calls = count_calls(connection)
    assert 2 <= steps <= count / 100
    assert calls < 1.2 * count
    connection.zadd(keys.WATCHED, {RUN: 0})
    while step(connection, "look:due").more:  # there is a limit for all processes together
        steps += 1
    assert connection.zscore(keys.WATCHED, RUN) <= time.time()
