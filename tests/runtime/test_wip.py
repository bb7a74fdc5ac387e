"""What is listed as being executed, and the workers that are listed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import redis
from rq import SimpleWorker
from rq.job import Job as RQJob

from flowq.cells import count_cells
from flowq.client import submit
from flowq.plan import Call, Commit, Enqueue, Plan, Release
from flowq.render.lines import plain
from flowq.render.wip import wip_document, wip_table, workers_document, workers_table
from flowq.runtime import keys
from flowq.runtime.queue import Queue
from flowq.runtime.wip import Executing, list_executing, list_workers, read_wip
from flowq.workers.claims import Claim
from flowq.workers.redis_side import Capacity, RedisSide

SHORT = {"operator.neg": 0.0001}


def claim(
    connection: redis.Redis, jobs: int, *, short: bool = False
) -> tuple[RedisSide, list[Claim]]:
    """What a worker does that has got so many jobs of a run, and has sent one heartbeat before."""
    enqueues = [
        Enqueue(f"r-j{i}", f"j{i}", Call("operator:neg", {"a": 1}), deferred=True)
        for i in range(jobs)
    ]
    releases = [Release(each.job_id) for each in enqueues]
    submit(Plan("r", "demo", {}, (*enqueues, Commit("r"), *releases)), connection)
    side = RedisSide(connection, "w", ["default"], 30)
    side.beat(5.0, 400, [])
    connection.sadd("rq:workers", "rq:worker:w")
    costs = SHORT if short else {}
    return side, side.turn([], Capacity(jobs, jobs, jobs, cost_by_kind=costs)).claims


def state_by_name(connection: redis.Redis) -> dict[str, str]:
    return {each.name: each.state for each in list_executing(connection)}


def listening(connection: redis.Redis, wait_until: Callable[..., None]) -> redis.client.PubSub:
    """Be connected as the worker `w` is."""
    subscription = connection.pubsub()
    subscription.subscribe(keys.commands("w"))
    wait_until(lambda: connection.pubsub_numsub(keys.commands("w"))[0][1])
    return subscription


def test_a_job_that_a_child_holds_and_has_not_begun_was_handed_over(
    connection: redis.Redis, wait_until: Callable[..., None]
) -> None:
    side, claims = claim(connection, 3, short=True)
    with listening(connection, wait_until):
        assert state_by_name(connection) == {"j0": "handed", "j1": "handed", "j2": "handed"}
        claims[0].note_begun(time.time() - 2, 4711)
        side.beat(5.0, 400, [(claims[0], False), (claims[1], True)])
        assert state_by_name(connection) == {"j0": "started", "j1": "handed", "j2": "handed"}
        first, second, _ = list_executing(connection)
    assert (first.pid, first.workflow, first.run_id, first.worker) == (4711, "demo", "r", "w")
    assert first.started_at is not None
    assert first.seen_at is not None
    assert timedelta(seconds=1.9) < first.seen_at - first.started_at < timedelta(seconds=10)
    assert (second.started_at, second.pid) == (None, None)


def test_since_when_a_job_runs_is_not_when_it_was_handed_over(
    connection: redis.Redis, wait_until: Callable[..., None]
) -> None:
    side, claims = claim(connection, 2)
    side.beat(5.0, 400, [(claims[0], False), (claims[1], True)])
    claims[1].note_begun(time.time() + 100, 1)
    side.beat(5.0, 400, [(claims[0], False), (claims[1], False)])
    began = {each.name: each.started_at for each in list_executing(connection)}
    assert began["j0"] is not None
    assert began["j1"] is not None
    assert began["j1"] - began["j0"] > timedelta(seconds=90)


def test_a_job_that_is_canceled_while_it_runs_is_listed_until_its_execution_ends(
    connection: redis.Redis, wait_until: Callable[..., None]
) -> None:
    side, claims = claim(connection, 2)
    side.beat(5.0, 400, [(each, False) for each in claims])
    with listening(connection, wait_until):
        RQJob.fetch("r-j0", connection).cancel()
        assert connection.zcard("rq:wip:default") == 1
        assert state_by_name(connection) == {"j0": "started", "j1": "started"}
        assert [each.queue for each in list_executing(connection, ["default"])] == ["default"] * 2
        assert list_executing(connection, ["other"]) == []
        (worker,) = list_workers(connection)
        assert worker.jobs == 2
        connection.srem(keys.held("w"), *connection.smembers(keys.held("w")))
        assert state_by_name(connection) == {"j1": "started"}


def test_the_jobs_of_a_worker_that_is_not_heard_are_lost(
    connection: redis.Redis, wait_until: Callable[..., None]
) -> None:
    _, claims = claim(connection, 1)
    subscription = listening(connection, wait_until)
    assert state_by_name(connection) == {"j0": "started"}
    assert [worker.state for worker in list_workers(connection)] == ["busy"]
    subscription.close()
    wait_until(lambda: state_by_name(connection) == {"j0": "lost"})
    (worker,) = list_workers(connection)
    assert (worker.name, worker.state, worker.jobs) == ("w", "lost", 1)
    assert claims[0].job_id == "r-j0"


def test_what_has_ended_between_two_looks_is_not_listed(connection: redis.Redis) -> None:
    claim(connection, 2)
    connection.hset("rq:job:r-j0", "status", "finished")
    assert list(state_by_name(connection)) == ["j1"]


def test_jobs_and_workers_of_rq_are_listed_too(connection: redis.Redis) -> None:
    from rq import Queue as PlainQueue

    job = PlainQueue("mails", connection=connection).enqueue("marking_jobs.look", job_timeout=50)
    worker = SimpleWorker(["mails"], connection=connection, name="plain")
    worker.work(burst=True, logging_level="CRITICAL")
    (found,) = job.return_value()
    assert (found["job_id"], found["name"], found["run"]) == (job.id, None, None)
    assert (found["status"], found["queue"], found["worker"]) == ("started", "mails", "plain")
    assert (found["timeout_s"], found["host"]) == (50.0, worker.hostname)
    assert 49.0 < found["left_s"] <= 50.0


def test_a_worker_of_rq_that_has_gone_has_lost_its_job(connection: redis.Redis) -> None:
    job = Queue("mails", connection=connection).enqueue("operator.neg", 1)
    connection.hset(f"rq:job:{job.id}", mapping={"status": "started", "worker_name": "plain"})
    connection.zadd("rq:wip:mails", {f"{job.id}:e": time.time() - 1})
    connection.sadd("rq:workers", "rq:worker:plain")
    (found,) = list_executing(connection, ["mails"])
    assert (found.state, found.worker) == ("lost", "plain")
    assert [(each.name, each.state) for each in list_workers(connection)] == [("plain", "lost")]


def test_ten_thousand_jobs_that_were_handed_over_are_counted_and_some_of_them_listed(
    connection: redis.Redis,
) -> None:
    ids = [f"job{i}" for i in range(10_000)]
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.sadd("rq:queues", "rq:queue:default")
        pipeline.zadd("rq:flowq:1:workers", {"w": time.time() + 1000})
        for job_id in ids:
            pipeline.zadd("rq:wip:default", {f"{job_id}:e": time.time() + 100})
            pipeline.hset(f"rq:job:{job_id}", mapping={"status": "started", "worker_name": "w"})
        pipeline.execute()
    subscription = connection.pubsub()
    subscription.subscribe(keys.commands("w"))
    subscription.get_message(timeout=60)
    wip = read_wip(connection)
    assert (len(wip.executions), dict(wip.counts)) == (100, {"handed": 10_000})
    lines = [plain(line) for line in wip_table(wip, 80)]
    assert len(lines) == 102
    assert lines[-1] == "and 9,900 more; of all: 10,000 handed over"
    document = wip_document(wip)
    assert document["counts"] == {"started": 0, "handed": 10_000, "lost": 0}
    assert len(document["jobs"]) == 100
    subscription.close()


def test_no_line_is_wider_than_the_terminal(connection: redis.Redis) -> None:
    _, claims = claim(connection, 2)
    connection.hset(
        f"rq:job:{claims[0].job_id}", mapping={"flowq_name": "処理" * 60, "description": "x" * 500}
    )
    connection.hset("rq:worker:w", mapping={"hostname": "h" * 60, "queues": "q" * 90, "pid": 12345})
    wip = read_wip(connection)
    for width in (80, 120, 200):
        for table in (
            wip_table(wip, width),
            workers_table(list_workers(connection), wip.at, width),
        ):
            assert max(count_cells(plain(line)) for line in table) <= width
    assert "demo" in plain(wip_table(wip, 80)[1])
    assert "処理" * 60 in plain(wip_table(wip)[1]) or "処理" * 60 in plain(wip_table(wip)[2])


def test_a_worker_says_which_run_it_serves_alone(connection: redis.Redis) -> None:
    RedisSide(connection, "w", [keys.own_queue("r1")], 30).beat(5.0, 400, [])
    connection.sadd("rq:workers", "rq:worker:w")
    connection.hset(
        "rq:worker:w",
        mapping={"queues": "run.r1", "flowq_mode": "warm", "flowq_concurrency": 3, "state": "idle"},
    )
    resting = redis.Redis(
        connection_pool=redis.ConnectionPool(
            connection_class=connection.connection_pool.connection_class,
            **{**connection.connection_pool.connection_kwargs, "client_name": "flowq-run-r2"},
        )
    )
    resting.ping()
    subscription = connection.pubsub()
    subscription.subscribe(keys.commands("w"))
    subscription.get_message(timeout=60)
    first, second = workers_document(list_workers(connection))["workers"]
    assert (first["status"], first["run"], first["queues"]) == ("idle", "r1", [])
    assert (first["mode"], first["concurrency"]) == ("warm", 3)
    assert (second["worker"], second["status"], second["run"]) == (None, "resting", "r2")
    resting.close()
    subscription.close()


def test_the_registry_of_one_queue_lists_its_own(connection: redis.Redis) -> None:
    from flowq import WIPRegistry

    claim(connection, 2)
    names: list[Executing] = WIPRegistry("default", connection).executing()
    assert [each.name for each in names] == ["j0", "j1"]
    assert WIPRegistry("other", connection).executing() == []
