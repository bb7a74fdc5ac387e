"""The Lua scripts by themselves: loading, robustness, and the promise never to raise."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import redis
from rq.utils import as_text

from flowq.runtime import keys, scripts
from flowq.runtime.job import get_job
from flowq.runtime.queue import Queue
from flowq.runtime.scripts import HotScript, Script
from flowq.runtime.steps import run_steps
from flowq.server import Server
from flowq.workers.redis_side import Capacity, RedisSide

Work = Callable[..., None]
ALL = [value for value in vars(scripts).values() if isinstance(value, Script)]
HOT = [script for script in ALL if isinstance(script, HotScript)]


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.name)
def test_every_script_compiles_without_its_comments(
    connection: redis.Redis, script: Script
) -> None:
    assert "--" not in script.source
    loaded: Any = connection.script_load(script.source)
    assert loaded == script.digest


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.name)
def test_a_script_leaves_room_for_fifty_more_locals(
    connection: redis.Redis, script: Script
) -> None:
    """Lua allows 200 at once in a function, and refuses the whole script beyond that."""
    spare = "\n".join(f"local spare_{number}" for number in range(50))
    assert connection.script_load(f"{spare}\n{script.source}")


def test_ten_thousand_additions_that_were_made_before_are_all_named(
    queue: Queue, connection: redis.Redis
) -> None:
    """Lua's `unpack` ends at some 8,000 values."""
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    ids = [f"blocker-{number}" for number in range(10_000)]
    with connection.pipeline() as pipeline:
        for each in ids:
            pipeline.hset(keys.job(each), "status", "deferred")
        pipeline.hset(keys.edges(future.id), mapping=dict.fromkeys(ids, "pending"))
        pipeline.execute()

    shape = ["default", "", "", "", "", 0]
    again = [[each, future.id, "", "", "", ""] for each in ids]
    answer: Any = scripts.ADD.call(
        connection, "slot", len(ids), *shape, len(ids), *(part for job in again for part in job)
    )

    assert answer == [b"existing", *(each.encode() for each in ids)]


def test_a_call_survives_a_flush_of_the_script_cache(connection: redis.Redis) -> None:
    for _ in range(2):
        connection.script_flush()
        assert scripts.RELEASE.call(connection, "slot", "nothing") == [b"missing"]


@pytest.mark.parametrize("script", HOT, ids=lambda script: script.name)
def test_a_hot_script_is_a_function_of_the_server(
    connection: redis.Redis, script: HotScript
) -> None:
    assert "--" not in script.library
    connection.function_flush()
    assert connection.function_load(script.library) == script.function.encode()
    assert connection.function_list(script.function)


def test_a_call_survives_a_flush_of_the_functions(queue: Queue, connection: redis.Redis) -> None:
    for _ in range(2):
        connection.function_flush()
        assert queue.enqueue("operator.add", 1, 2, deferred=True).get_status() == "deferred"
    assert [row[1] for row in connection.function_list()] == [scripts.ADD.function.encode()]


def test_a_function_keeps_nothing_from_a_call_that_failed(
    queue: Queue, connection: redis.Redis
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    edges = keys.edges(future.id)
    connection.set(edges, "not a hash")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        queue.enqueue("operator.add", 1, 2, job_id="a", blocked_by=future)
    connection.delete(edges)
    queue.enqueue("operator.add", 1, 2, job_id="b", blocked_by=future)
    assert connection.hkeys(edges) == [b"b"]


def test_where_there_are_no_functions_scripts_do_the_same(
    test_server: Server, connection: redis.Redis
) -> None:
    connection.function_flush()
    rights = ("~*", "&*", "+@all", "-function", "-fcall")
    connection.execute_command(
        "ACL", "SETUSER", "old", "on", ">old", "reset", "on", ">old", *rights
    )
    try:
        with redis.Redis(
            unix_socket_path=str(test_server.socket), username="old", password="old"
        ) as old:
            queue = Queue(connection=old)
            for _ in range(2):
                assert queue.enqueue("operator.add", 1, 2, deferred=True).get_status() == "deferred"
            redis_side = RedisSide(old, "w", ["default"], 30)
            queue.enqueue("operator.add", 1, 2)
            for count in (1, 0):
                redis_side.send([], Capacity(1, 1, 1))
                assert len(redis_side.receive().claims) == count
            assert old.acl_whoami() == "old"
        assert connection.function_list() == []
    finally:
        connection.execute_command("ACL", "DELUSER", "old")


def test_settling_never_raises_and_leaves_a_note_when_it_cannot(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    """An error in RQ's EXEC would not roll back, and RQ would call a finished job failed."""
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    future.release()
    edges = connection.dump(keys.edges(future.id))
    connection.set(keys.edges(future.id), "broken")
    work(max_jobs=1)
    assert blocker.get_status() == "finished"
    assert future.get_status() == "deferred"
    assert connection.zrange(keys.TODO, 0, -1) == [f"end:{blocker.id}:finished".encode()]
    assert connection.zcard("rq:failed:default") == 0
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        run_steps(connection)
    connection.delete(keys.edges(future.id))
    connection.restore(keys.edges(future.id), 0, edges)
    assert run_steps(connection) == 1
    assert future.get_status() == "queued"


def test_what_follows_from_an_end_is_not_lost_when_it_cannot_be_settled_at_once(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    last = queue.enqueue("operator.add", 1, 2, deferred=True, on_blocker_failure="run")
    middle = queue.enqueue(
        "operator.add", 1, 2, deferred=True, on_blocker_failure="skip", blocked_by=last
    )
    queue.enqueue("runtime_jobs.fail", blocked_by=middle)
    last.release()
    middle.release()
    edges = connection.dump(keys.edges(last.id))
    connection.set(keys.edges(last.id), "broken")
    work(max_jobs=1)
    assert (middle.get_status(), last.get_status()) == ("canceled", "deferred")
    connection.delete(keys.edges(last.id))
    connection.restore(keys.edges(last.id), 0, edges)
    run_steps(connection)
    assert last.get_status() == "queued"


def test_a_long_cascade_is_cut_and_finished_from_the_todo(
    queue: Queue, connection: redis.Redis
) -> None:
    jobs = [queue.enqueue("operator.add", 1, 2, deferred=True, on_blocker_failure="skip")]
    for _ in range(600):
        jobs.append(
            queue.enqueue(
                "operator.add", 1, 2, deferred=True, on_blocker_failure="skip", blocks=jobs[-1]
            )
        )
    for job in jobs[:-1]:
        job.release()
    jobs[-1].cancel()
    assert jobs[300].get_status() == "canceled"
    assert jobs[0].get_status() == "deferred"
    run_steps(connection, max_steps=5_000)
    assert jobs[0].get_status() == "canceled"


def test_starting_never_raises(queue: Queue, connection: redis.Redis, work: Work) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    future.release()
    connection.set(keys.future(future.id), "broken")
    work()
    assert future.get_status() == "finished"


def test_an_end_of_an_older_generation_changes_nothing(
    queue: Queue, connection: redis.Redis
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    connection.hset(blocker.key, "flowq_gen", 2)
    answer = connection.eval(
        scripts.SETTLE.source, 1, "slot", keys.PREFIX, "now", "1", blocker.id, "finished", 1
    )
    assert answer == b"late"
    assert connection.hget(keys.edges(future.id), blocker.id) == b"pending"


def test_nobody_elses_save_overwrites_what_the_scripts_keep(
    queue: Queue, connection: redis.Redis
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    blocker = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    ours = {k: v for k, v in connection.hgetall(blocker.key).items() if k.startswith(b"flowq_")}
    future.release()
    before = connection.hgetall(blocker.key)
    assert ours[b"flowq_gates"] == b"1"
    blocker.save()  # a stale copy
    after = connection.hgetall(blocker.key)
    assert {k: v for k, v in after.items() if k.startswith(b"flowq_")} == {
        k: v for k, v in before.items() if k.startswith(b"flowq_")
    }
    assert before[b"flowq_gates"] == b"0"


def test_another_key_prefix(redis_url: str, connection: redis.Redis) -> None:
    program = (
        "import redis, sys\n"
        "from flowq.runtime.job import Job\n"
        "from flowq.runtime.queue import Queue\n"
        "from rq import SimpleWorker\n"
        "connection = redis.Redis.from_url(sys.argv[1])\n"
        "queue = Queue(connection=connection)\n"
        "future = queue.enqueue('operator.add', 1, 2, deferred=True)\n"
        "queue.enqueue('operator.add', 1, 2, blocked_by=future)\n"
        "future.release()\n"
        "worker = SimpleWorker([queue], connection=connection, job_class=Job, queue_class=Queue)\n"
        "worker.work(burst=True, logging_level='CRITICAL')\n"
        "assert future.get_status() == 'finished'\n"
    )
    environment = {**os.environ, "RQ_KEY_PREFIX": "{other}"}
    subprocess.run([sys.executable, "-c", program, redis_url], env=environment, check=True)
    assert connection.keys("*")
    assert not [key for key in connection.keys("*") if not key.startswith(b"{other}:")]


def test_a_step_of_a_newer_version_is_left_to_it_and_keeps_no_other_waiting(
    queue: Queue, connection: redis.Redis
) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    queue.enqueue("operator.add", 1, 2, blocked_by=future)
    scripts.RELEASE.call(connection, "slot", future.id, 0)
    connection.zadd(keys.TODO, {"polish:something": 1})
    with pytest.raises(redis.ResponseError, match="no such operation: polish:something"):
        run_steps(connection)
    assert connection.zrange(keys.TODO, 0, -1) == [b"polish:something"]
    assert queue.count == 1


# Long queues ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["forth", "back", "mixed"])
def test_what_a_step_calls_off_leaves_its_queue_whatever_stands_around_it(
    connection: redis.Redis, order: str
) -> None:
    queue = Queue(connection=connection)
    future = queue.enqueue("time.time", deferred=True)
    ids = [f"b{number}" for number in range(250)]
    for job_id in ids:
        queue.enqueue("time.time", blocks=future, job_id=job_id)
    future.release()
    given = {"forth": ids, "back": ids[::-1], "mixed": ids[1::2] + ids[::2]}[order]
    others = [f"other{number}" for number in range(2_100)]
    connection.delete(queue.key)
    connection.rpush(queue.key, *others[:1_050], *given, *others[1_050:])
    future.cancel(blockers=True)
    left = [as_text(each) for each in connection.lrange(queue.key, 0, -1)]
    assert left == others
    assert {get_job(job_id, connection).get_status() for job_id in ids} == {"canceled"}


def test_calling_off_many_jobs_of_a_long_queue_looks_through_it_once_a_step(
    connection: redis.Redis,
) -> None:
    queue = Queue(connection=connection)
    future = queue.enqueue("time.time", deferred=True)
    for _ in range(300):
        queue.enqueue("time.time", blocks=future)
    future.release()
    connection.config_resetstat()
    future.cancel(blockers=True)
    stats = connection.info("commandstats")
    looks = sum(stats.get(f"cmdstat_{word}", {"calls": 0})["calls"] for word in ("lrem", "lpos"))
    assert looks < 30


def test_a_turn_passes_over_so_many_ids_of_jobs_that_are_gone_and_no_more(
    connection: redis.Redis,
) -> None:
    queue = Queue(connection=connection)
    connection.rpush(queue.key, *(f"gone{number}" for number in range(2_500)))
    job = queue.enqueue("time.time")
    redis_side = RedisSide(connection, "one", ["default"], 30)
    left, claimed = [], []
    while not claimed:
        turn = redis_side.turn([], Capacity(2, 2, 2))
        claimed = [claim.job_id for claim in turn.claims]
        left.append((connection.llen(queue.key), turn.has_left))
    assert (claimed, len(left)) == ([job.id], 3)
    assert left[-1] == (0, False)
    assert all(has_left for _, has_left in left[:-1])
