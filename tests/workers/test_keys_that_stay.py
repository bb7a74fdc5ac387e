"""After all kinds of ends, with short times to live, nothing stays but what is listed here."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue as RQQueue
from rq import SimpleWorker
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job as RQJob
from rq.job import Retry

from flowq.compiling import compile_plan, load
from flowq.errors import FlowqError, WrongState
from flowq.runtime import approvals, keys, maintenance, retry, runs
from flowq.runtime.maintenance import tidy
from flowq.runtime.queue import Queue
from flowq.runtime.steps import run_steps
from flowq.runtime.uninstalling import uninstall
from flowq.workers import Worker
from tests.conftest import LIMIT_S

Drain = Callable[..., Worker]
WaitUntil = Callable[..., None]

STAYS = {
    b"rq:queues",  # RQ never removes a queue from it
    b"rq:flowq:1:metrics",  # one hash of counts, whose number of fields has a limit
    b"rq:workers",
    b"rq:flowq:1:workers",  # those that live
}
CALLS = ("give", "give", "give", "fail", "come_again", "delete_myself", "cancel_myself")


def make_graph(queue: Queue, dice: random.Random, name: str) -> None:
    """Declare future jobs in front of each other with random blockers, and end them at random."""
    ttl = {"result_ttl": dice.choice([0, 1]), "failure_ttl": dice.choice([0, 1])}
    outer = queue.enqueue(
        "leaking_jobs.give", deferred=True, job_id=f"{name}-f0",
        on_blocker_failure=dice.choice(["skip", "run"]), if_empty=dice.choice(["skip", "run"]),
        **ttl,
    )  # fmt: skip
    inner = queue.enqueue(
        "leaking_jobs.give", deferred=True, job_id=f"{name}-f1", blocked_by=outer,
        on_blocker_failure=dice.choice(["skip", "run"]), **ttl,
    )  # fmt: skip
    blockers = []
    for at in range(dice.randint(0, 5)):
        more: dict[str, Any] = dict(ttl)
        if dice.random() < 0.2:
            more["retry"] = Retry(1)
        if dice.random() < 0.1:
            more["ttl"] = 1
        job = queue.enqueue(
            f"leaking_jobs.{dice.choice(CALLS)}", job_id=f"{name}-b{at}",
            blocked_by=dice.choice([[outer], [inner], [outer, inner]]), **more,
        )  # fmt: skip
        blockers.append(job)
    for future in (outer, inner):
        chance, also_blockers = dice.random(), dice.random() < 0.5
        # The inner one may be gone with the outer one.
        with suppress(FlowqError, InvalidJobOperation, NoSuchJobError):
            if chance < 0.1:
                future.cancel(blockers=also_blockers)
            elif chance < 0.2:
                future.delete()
            else:
                future.release()
    for job in blockers:
        if (chance := dice.random()) < 0.05 and queue.connection.exists(job.key):
            job.delete()
        elif chance < 0.1:
            queue.connection.delete(job.key)  # as if its time to live were over


def put_forward(connection: redis.Redis) -> None:
    """Let all that is looked at now and then be due: blockers that ended unnoticed, and runs."""
    for index in (keys.WATCHED, keys.EXPIRING, keys.STAGED, keys.ENDED):
        for member in connection.zrange(index, 0, -1):
            connection.zadd(index, {member: 1}, xx=True)


def list_for_ever(connection: redis.Redis) -> set[bytes]:
    return {key for key in connection.keys("*") if connection.ttl(key) == -1} - STAYS


def clean_up(connection: redis.Redis, drain: Callable[[], object]) -> None:
    """Work and maintain until nothing is left for ever."""
    deadline = time.monotonic() + LIMIT_S
    while list_for_ever(connection) and time.monotonic() < deadline:
        drain()
        put_forward(connection)
        tidy(connection)
        while run_steps(connection):
            pass
        queue = Queue(connection=connection)
        for registry in (queue.finished_job_registry, queue.failed_job_registry):
            registry.cleanup()


@pytest.mark.parametrize("seed", range(4))
def test_of_random_graphs_nothing_stays_that_never_expires(
    queue: Queue, connection: redis.Redis, drain: Drain, wait_until: WaitUntil, seed: int
) -> None:
    dice = random.Random(seed)
    for number in range(40):
        make_graph(queue, dice, f"g{number}")
    drain()

    clean_up(connection, drain)
    assert list_for_ever(connection) == set(), connection.zrange("rq:canceled:default", 0, -1)


def test_the_result_of_an_attempt_does_not_outlive_a_job_that_expires_before_the_next_one(
    queue: Queue, connection: redis.Redis, drain: Drain, wait_until: WaitUntil
) -> None:
    future = queue.enqueue(
        "leaking_jobs.give", deferred=True, job_id="f", result_ttl=1, on_blocker_failure="run"
    )
    job = queue.enqueue(
        "leaking_jobs.come_again", job_id="b", blocked_by=future, ttl=1, failure_ttl=1
    )
    future.release()
    drain(max_jobs=1)
    assert connection.exists("rq:results:b")
    wait_until(lambda: not connection.exists(job.key))

    clean_up(connection, drain)

    assert not connection.exists("rq:results:b")
    assert list_for_ever(connection) == set()


WORKFLOW = """
name: all
concurrency: one-at-a-time
max_parallel: 4
inputs: {file: {type: str, default: nowhere}}
outputs: {last: "${{ jobs.last.result }}"}
jobs:
  list: {call: "leaking_jobs:give", with: {value: [1, 2, 3]}}
  each:
    for_each: ${{ jobs.list.result }}
    max_parallel: 2
    call: leaking_jobs:give
    with: {value: "${{ item }}"}
  grown:
    for_each: [0]
    more: "[result + 1] if result < 3 else []"
    call: leaking_jobs:give
    with: {value: "${{ item }}"}
  fails: {for_each: [1, 2], retries: 1, call: "leaking_jobs:fail", continue_on_error: true}
  inner: {workflow: part, with: {value: 1}}
  skipped: {if: "false", call: "leaking_jobs:give"}
  asks: {needs: [list], approval: true, call: "leaking_jobs:give"}
  last: {needs: [each, grown, fails, inner], call: "leaking_jobs:give"}
workflows:
  part:
    inputs: {value: {type: int}}
    jobs:
      one: {call: "leaking_jobs:give"}
      two: {needs: [one], call: "leaking_jobs:fail"}
"""


def submit_all(connection: redis.Redis, folder: Path) -> list[str]:
    """Submit the same workflow in each way there is; return the ids of the runs.

    One lives on in its own queue; one is held; the last one is never committed, as if whoever
    submits it was killed.
    """
    (folder / "all.yaml").write_text(WORKFLOW)
    workflow = load(str(folder / "all.yaml"))
    ids = []
    ways: list[dict[str, Any]] = [{}, {"is_apart": True}, {"is_held": True}, {}]
    for options in ways:
        plan = compile_plan(workflow, {})
        runs.submit(plan, connection, retention_s=1, **options)
        ids.append(plan.run_id)
    connection.hset(keys.run(ids[-1]), "state", "staged")
    connection.zadd(keys.STAGED, {ids[-1]: 1})
    return ids


def test_of_runs_in_every_state_nothing_stays_that_never_expires(
    connection: redis.Redis, drain: Drain, tmp_path: Path
) -> None:
    ids = submit_all(connection, tmp_path)
    queues = ["default", keys.own_queue(ids[1])]
    drain(*queues)
    approvals.approve(ids[0], "asks", connection)
    drain(*queues)
    assert runs.get_record(ids[0], connection).state == "failed"  # and the next one goes
    retry.retry(ids[0], connection)
    drain(*queues)
    for run_id in ids[:3]:
        with suppress(FlowqError):
            runs.cancel(run_id, connection)
        drain(*queues)
    assert list_for_ever(connection)
    clean_up(connection, lambda: drain(*queues))
    assert list_for_ever(connection) == set()
    assert connection.smembers("rq:queues") <= {b"rq:queue:default"}


def test_functions_that_no_worker_uses_any_more_are_removed_and_loaded_again_when_needed(
    queue: Queue, connection: redis.Redis, drain: Drain
) -> None:
    connection.function_flush()  # those of other processes
    old = "#!lua name=flowq_step_0123456789ab\nredis.register_function('flowq_step_0123456789ab', "
    connection.function_load(old + "function() return 1 end)")
    theirs = "#!lua name=theirs\nredis.register_function('theirs', function() return 1 end)"
    connection.function_load(theirs)
    queue.enqueue("operator.add", 1, 1)
    drain()
    assert maintenance.remove_unused_functions(connection) == []  # a worker may just have come
    own = maintenance.list_functions(connection) - {"flowq_step_0123456789ab"}
    assert own
    day_s = maintenance.UNUSED_S
    for name in connection.zrange(keys.FUNCTIONS, 0, -1):
        connection.zincrby(keys.FUNCTIONS, -2 * day_s, name)
    assert maintenance.remove_unused_functions(connection) == ["flowq_step_0123456789ab"]
    assert maintenance.list_functions(connection) == own
    assert connection.fcall("theirs", 0) == 1
    maintenance.delete_functions(connection, own)
    job = queue.enqueue("operator.add", 1, 1)
    drain()
    assert job.get_status() == "finished"
    connection.function_delete("theirs")


def test_an_uninstall_leaves_nothing_but_what_is_of_rq(
    queue: Queue, connection: redis.Redis, drain: Drain, tmp_path: Path
) -> None:
    connection.function_flush()
    future = queue.enqueue("operator.add", 1, 1, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    ids = submit_all(connection, tmp_path)
    drain("default", keys.own_queue(ids[1]))
    with pytest.raises(WrongState, match=r"not all runs have ended .* --force"):
        uninstall(connection)
    waiting = queue.enqueue("operator.add", 1, 1, deferred=True)
    held = queue.enqueue("operator.add", 1, 1, blocked_by=waiting)
    plain = RQQueue(connection=connection).enqueue("operator.add", 1, 1)
    removed = uninstall(connection, is_forced=True)
    assert removed.runs == 3  # a worker has removed the one that was never committed
    assert removed.functions > 0
    assert maintenance.list_functions(connection) == set()
    left = connection.keys("*")
    assert [key for key in left if b"flowq" in key] == []
    assert [key for key in left if any(run_id.encode() in key for run_id in ids)] == []
    assert not [key for key in left if key.startswith(b"rq:deferred:")]
    for job in (future, blocker, waiting, held, plain):
        fields = connection.hkeys(job.key)
        assert fields
        assert not [field for field in fields if field.startswith(b"flowq_")]
    # RQ's own tools and workers go on.
    worker = SimpleWorker(["default"], connection=connection)
    worker.work(burst=True, logging_level="CRITICAL")
    assert RQJob.fetch(plain.id, connection).return_value() == 2
    assert RQJob.fetch(future.id, connection).return_value() == 2
    assert RQJob.fetch(held.id, connection).get_status() == "canceled"
    assert uninstall(connection).keys == 0


def test_an_uninstall_waits_until_no_worker_lives(
    connection: redis.Redis, start_worker: Callable[..., Any], wait_until: WaitUntil
) -> None:
    process = start_worker()
    wait_until(lambda: connection.exists(keys.WORKERS), 20)
    with pytest.raises(WrongState, match=r"workers of flowq are alive .* stop them first"):
        uninstall(connection, is_forced=True)
    process.terminate()
    process.wait(60)
    assert uninstall(connection).runs == 0
    assert not [key for key in connection.keys("*") if b"flowq" in key]
