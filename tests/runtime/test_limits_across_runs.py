"""`concurrency` of jobs: how many of a group are executed at the same time, in all runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from rq.job import Job as RQJob
from rq.utils import str_to_date

from flowq.durations import local_time
from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import keys, maintenance, retry, runs
from flowq.runtime.explain import explain
from flowq.runtime.scripts import STEP
from flowq.spec import Concurrency, JobSpec, Rate, Retry, Workflow
from flowq.testing import run_inline
from flowq.workers.redis_side import Capacity, RedisSide
from tests.runtime.calls import calls_per_command, count_calls
from tests.runtime.language import each, job

Work = Callable[..., None]
GROUP = "a shop=1"
LIMIT = "shared:a%20shop%3D1"
SLOTS, WAITING = keys.slots(LIMIT), keys.waiting(LIMIT)


def submit(connection: Redis, run_id: str, *jobs: JobSpec, name: str = "", **more: Any) -> None:
    inputs = more.pop("inputs", {})
    workflow = Workflow(name or f"w-{run_id}", jobs, **more)
    runs.submit(make_plan(build_graph(workflow), inputs, run_id), connection)


def limited(name: str = "a", most: int = 1, call: str = "my_id", **more: Any) -> JobSpec:
    return job(name, call, concurrency=Concurrency(GROUP, limit=most), **more)


def queued(connection: Redis, queue: str = "default") -> list[str]:
    return [raw.decode() for raw in connection.lrange(keys.queue(queue), 0, -1)]  # type: ignore[union-attr]


def states(connection: Redis, *run_ids: str) -> list[str]:
    return [
        status.state
        for run_id in run_ids
        for status in runs.get_status(run_id, connection).jobs.values()
    ]


def holders(connection: Redis) -> set[str]:
    return {raw.decode() for raw in connection.smembers(SLOTS)}  # type: ignore[union-attr]


def leftovers(connection: Redis) -> list[bytes]:
    """Keys of limits that stay although nobody has a slot or waits for one."""
    kinds = (
        "shared:*",
        "rate:*",
        "slots:shared*",
        "waiting:shared*",
        "spent:*",
        "rates",
    )
    return [key for kind in kinds for key in connection.keys(f"rq:flowq:1:{kind}")]  # type: ignore[union-attr]


def claim(connection: Redis, count: int = 1, worker: str = "w") -> list[str]:
    """Claim jobs as a worker of flowq does, which has children for so many."""
    side = RedisSide(connection, worker, ["default"], 30)
    return [each.job_id for each in side.turn([], Capacity(count, count, count)).claims]


def test_jobs_of_different_workflows_take_turns_in_their_order(
    connection: Redis, work: Work
) -> None:
    for number in range(20):
        submit(connection, f"r{number}", limited(f"job{number % 3}"))
    assert queued(connection) == ["r0-job0"]
    assert connection.zcard(WAITING) == 19
    order = []
    while now := queued(connection):
        assert holders(connection) == set(now)
        order += now
        work(max_jobs=1)
    assert order == [f"r{number}-job{number % 3}" for number in range(20)]
    assert leftovers(connection) == []


def test_items_of_groups_share_a_limit_that_the_item_names(connection: Redis, work: Work) -> None:
    one = job(
        "items",
        "give",
        for_each=each(["x", "y", "x", "y", "x"]),
        with_={"value": "${{ item }}"},
        concurrency=Concurrency("", limit=1),
        settings={"concurrency.group": "host-${{ item }}", "concurrency.limit": "${{ inputs.n }}"},
    )
    submit(connection, "a", one, inputs={"n": 2})
    work(max_jobs=1)
    assert queued(connection) == [f"a-items--{index}" for index in (0, 1, 2, 3)]
    submit(connection, "b", one, inputs={"n": 2})
    work()
    assert {runs.get_status(run, connection).state for run in "ab"} == {"succeeded"}
    assert leftovers(connection) == []


@pytest.mark.parametrize("dies", ["canceled by RQ", "deleted by RQ", "its run is removed"])
def test_a_slot_is_given_back_whoever_ends_its_holder(
    connection: Redis, work: Work, dies: str
) -> None:
    submit(connection, "a", limited())
    submit(connection, "b", limited())
    assert claim(connection) == ["a-a"]
    if dies == "its run is removed":
        runs.remove("a", connection)
    elif dies == "deleted by RQ":
        RQJob.fetch("a-a", connection).delete()
    else:
        RQJob.fetch("a-a", connection).cancel()
    maintenance.examine(connection)
    assert queued(connection) == ["b-a"]
    work()
    assert states(connection, "b") == ["finished"]
    assert leftovers(connection) == []


def test_a_canceled_run_leaves_the_line_and_gives_its_slot_back(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    for run_id in "abc":
        submit(connection, run_id, limited())
    runs.cancel("b", connection)
    runs.cancel("a", connection)
    tidy()
    assert queued(connection) == ["c-a"]
    work()
    assert leftovers(connection) == []


def test_the_first_that_waits_finds_a_holder_that_is_gone_without_a_trace(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    connection.sadd(SLOTS, "gone-a")
    submit(connection, "a", limited())
    tidy()
    assert queued(connection) == ["a-a"]
    work()
    assert leftovers(connection) == []


def test_a_job_that_waits_for_its_retry_has_no_slot(connection: Redis, work: Work) -> None:
    submit(connection, "a", limited(call="fail", retries=Retry(1, 3_600)))
    submit(connection, "b", limited())
    work()
    assert states(connection, "a", "b") == ["scheduled", "finished"]
    submit(connection, "c", limited())
    connection.zadd(keys.scheduled("default"), {"a-a": 0})
    RedisSide(connection, "w", ["default"], 30).queue_due()
    assert states(connection, "a", "c") == ["deferred", "queued"]
    work()
    assert states(connection, "a", "c") == ["failed", "finished"]
    assert leftovers(connection) == []


def test_a_lost_worker_keeps_the_slot_for_the_next_attempt(connection: Redis, work: Work) -> None:
    submit(connection, "a", limited())
    submit(connection, "b", limited())
    assert claim(connection, 2, "lost") == ["a-a"]
    assert RedisSide(connection, "other", ["default"], 30).recover("lost", 9) == []
    assert queued(connection) == ["a-a"]
    assert holders(connection) == {"a-a"}
    work()
    assert states(connection, "a", "b") == ["finished", "finished"]
    assert leftovers(connection) == []


def test_whoever_queues_a_job_a_worker_takes_it_only_with_a_slot(
    connection: Redis, work: Work
) -> None:
    submit(connection, "a", limited(call="fail"))
    work()
    submit(connection, "b", limited())
    RQJob.fetch("a-a", connection).requeue()
    assert claim(connection, 9) == ["b-a"]
    assert connection.hget(keys.job("a-a"), "status") == b"deferred"
    assert holders(connection) == {"b-a"}
    assert connection.zrange(WAITING, 0, -1) == [b"a-a"]


def test_a_job_that_nobody_starts_passes_its_slot_on(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    submit(connection, "a", limited(queue="nobody", needs=("before",)), job("before", "my_id"))
    work(max_jobs=1)
    submit(connection, "b", limited())
    assert queued(connection, "nobody") == ["a-a"]
    maintenance.examine(connection)
    assert queued(connection) == []  # it may be started soon
    connection.hset(keys.job("a-a"), "enqueued_at", "2020-01-01T00:00:00.000000Z")
    maintenance.examine(connection)
    assert (queued(connection), queued(connection, "nobody")) == (["b-a"], [])
    (reason,) = explain("a-a", connection).reasons
    assert reason.job_ids == ("b-a",)
    work()
    assert queued(connection, "nobody") == ["a-a"]
    work(None, "nobody")
    assert states(connection, "a") == ["finished", "finished"]
    assert leftovers(connection) == []


def test_nobody_overtakes_whose_own_limit_is_higher(connection: Redis, work: Work) -> None:
    submit(connection, "a", limited(most=3))
    submit(connection, "b", limited(most=1))
    submit(connection, "c", limited(most=3))
    assert queued(connection) == ["a-a"]
    work(max_jobs=1)
    assert queued(connection) == ["b-a", "c-a"]


def test_a_job_takes_all_its_slots_or_none_and_keeps_its_turn(
    connection: Redis, work: Work
) -> None:
    """Its turn comes while its run has no place for it: it waits there, and loses none."""
    submit(connection, "a", limited())
    submit(connection, "b", limited("x"), limited("y"), job("z", "my_id"), max_parallel=1)
    submit(connection, "c", limited())
    assert queued(connection) == ["a-a", "b-z"]
    work(max_jobs=1)  # the turns of b's jobs come, and z has the only place
    assert queued(connection) == ["b-z", "c-a"]
    assert connection.zcard(WAITING) == 0
    work(max_jobs=1)
    submit(connection, "d", limited())
    assert queued(connection) == ["c-a"]
    work(max_jobs=1)
    assert queued(connection) == ["b-x"]
    work()
    assert leftovers(connection) == []


def test_a_nested_workflow_has_one_slot_from_its_first_start_to_its_end(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    inner = Workflow("inner", (job("x", "my_id"), limited("y"), job("z", "my_id", needs=("y",))))
    nested = JobSpec("n", workflow="inner", concurrency=Concurrency(GROUP))
    for run_id in "ab":
        submit(connection, run_id, nested, workflows={"inner": inner})
    submit(connection, "c", limited())
    assert queued(connection) == ["a-n--0"]
    order = []
    while now := queued(connection):
        order += now[:1]
        assert holders(connection) == {now[0][0] + ("-a" if now == ["c-a"] else "-n")}
        work(max_jobs=1)
        tidy()
    expected = ["n--0", "n--x", "n--y", "n--z", "n"]
    assert order == [*(f"{run}-{each}" for run in "ab" for each in expected), "c-a"]
    assert leftovers(connection) == []


def test_a_nested_workflow_that_waits_for_its_next_round_has_no_slot(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    inner = Workflow("inner", (job("x", "fail"),))
    nested = JobSpec("n", workflow="inner", concurrency=Concurrency(GROUP), retries=Retry(1, 3_600))
    submit(connection, "a", nested, workflows={"inner": inner})
    submit(connection, "b", limited())
    work()
    tidy()
    work()
    assert states(connection, "b") == ["finished"]
    assert leftovers(connection) == []


def test_an_if_is_judged_before_a_slot_is_taken(connection: Redis, work: Work) -> None:
    submit(
        connection,
        "a",
        job("before", "give", with_={"value": 0}),
        limited(needs=("before",), if_="jobs.before.result == 1"),
    )
    connection.sadd(SLOTS, "other")
    work()
    assert states(connection, "a") == ["finished", "skipped"]


def test_explain_names_the_holder_its_worker_and_how_many_wait_before(connection: Redis) -> None:
    for run_id in "abc":
        submit(connection, run_id, limited())
    claim(connection, worker="w7")
    started = str_to_date(connection.hget(keys.job("a-a"), "started_at"))
    [reason] = explain("c-a", connection).reasons
    holder = f"a of run a since {local_time(started)} on worker w7"
    used_up = f"the `concurrency` group {GROUP} (limit 1) is used up: {holder}; 1 before it"
    assert (reason.kind, reason.text, reason.job_ids) == ("slot", used_up, ("a-a",))
    assert reason.hint == "look at the first one: flowq explain a a"


def test_explain_shows_a_name_in_several_lines_as_one(connection: Redis) -> None:
    for run_id in "ab":
        submit(connection, run_id, job("a", "my_id", concurrency=Concurrency("x\n  y")))
    [reason] = explain("b-a", connection).reasons
    assert reason.text.startswith("the `concurrency` group x y (limit 1)")


def test_an_attempt_that_waits_for_its_rate_has_no_slot_of_its_group(
    connection: Redis, work: Work
) -> None:
    submit(connection, "a", limited(call="fail", retries=Retry(1), rate=Rate("1/h")))
    submit(connection, "b", limited())
    work(max_jobs=1)
    assert queued(connection) == ["a-a"]
    assert claim(connection, 9) == []
    assert states(connection, "a", "b") == ["deferred", "queued"]
    assert holders(connection) == {"b-a"}
    assert ["rate" in each.text for each in explain("a-a", connection).reasons] == [True]


def test_a_lost_attempt_that_waits_for_its_rate_has_no_slot_of_its_group(
    connection: Redis, work: Work
) -> None:
    submit(connection, "a", limited(rate=Rate("1/h")))
    submit(connection, "b", limited())
    assert claim(connection, 1, "lost") == ["a-a"]
    RedisSide(connection, "other", ["default"], 30).recover("lost", 9)
    assert claim(connection, 9) == []
    assert states(connection, "a", "b") == ["deferred", "queued"]


def until_next_start(connection: Redis, rate: str) -> None:
    """As if the period of a rate were over; then workers look at what is due."""
    limit = f"rate:{rate}"
    starts: Any = connection.zrange(keys.spent(limit), 0, -1)
    for start in starts:
        connection.zadd(keys.spent(limit), {start: 1})
    connection.zadd("rq:flowq:1:rates", {limit: 1})
    RedisSide(connection, "w", ["default"], 30).queue_due()


def test_a_job_that_needs_two_limits_is_not_overtaken_once_its_rate_has_a_start(
    connection: Redis, work: Work
) -> None:
    """Others of its group go ahead only while its rate has none for it, of its rate nobody."""
    rate = Rate("1/h", "api")
    submit(connection, "group", *(limited(f"j{index}") for index in range(3)))
    submit(connection, "rate", *(job(f"j{index}", "my_id", rate=rate) for index in range(2)))
    submit(connection, "both", limited(rate=rate))
    submit(connection, "late", *(limited(f"j{index}") for index in range(4)))
    submit(connection, "more", *(job(f"j{index}", "my_id", rate=rate) for index in range(2)))
    assert queued(connection) == ["group-j0", "rate-j0"]
    work(max_jobs=2)
    work(max_jobs=2)
    assert queued(connection) == ["late-j0"]  # the rate of `both` is used up
    until_next_start(connection, "api")
    assert queued(connection) == ["late-j0", "rate-j1"]
    work(max_jobs=2)
    until_next_start(connection, "api")
    assert queued(connection) == ["late-j1"]  # nobody gets the start that is for `both`
    work(max_jobs=1)
    assert queued(connection) == ["both-a"]
    work(max_jobs=1)
    assert queued(connection) == ["late-j2"]
    work()
    for _ in range(2):
        until_next_start(connection, "api")
        work()
    assert states(connection, "late", "more") == ["finished"] * 6
    until_next_start(connection, "api")
    assert leftovers(connection) == []


def test_a_job_of_a_workflow_that_has_a_slot_does_not_wait_for_those_that_wait_for_it(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    rate = Rate("1/h", "api")
    inner = Workflow("inner", (job("x", "my_id", rate=rate),))
    nested = JobSpec("n", workflow="inner", concurrency=Concurrency(GROUP))
    submit(connection, "a", nested, workflows={"inner": inner})
    work(max_jobs=1)
    assert claim(connection) == ["a-n--x"]  # its worker is lost
    submit(connection, "both", limited(rate=rate))
    RedisSide(connection, "other", ["default"], 30).recover("w", 9)
    assert claim(connection, 9) == []
    until_next_start(connection, "api")
    assert queued(connection) == ["a-n--x"]
    work()
    tidy()
    work()
    until_next_start(connection, "api")
    work()
    assert states(connection, "both") == ["finished"]


@pytest.mark.parametrize("is_removed", [False, True])
def test_jobs_whose_hashes_are_gone_cost_the_same_however_many_groups_their_run_has(
    connection: Redis, tidy: Callable[[], None], is_removed: bool
) -> None:
    """Of the run's own hash no field is read for each of them, and no step looks at all limits."""

    def count(size: int) -> float:
        connection.flushall()
        names = [f"j{index}" for index in range(size)]
        jobs = [job(name, "my_id", concurrency=Concurrency(name)) for name in names]
        submit(connection, "a", *jobs)
        connection.delete(*(keys.job(f"a-{name}") for name in names))
        connection.config_resetstat()
        if is_removed:
            runs.remove("a", connection)
        maintenance.examine(connection)
        tidy()
        calls = count_calls(connection)
        assert bool([*leftovers(connection), *connection.keys("*a-j*")]) is not is_removed
        return calls / size

    few, many = count(50), count(300)
    assert many < 1.1 * few


def test_the_limits_of_a_removed_run_are_looked_at_in_bounded_steps(connection: Redis) -> None:
    names = [f"j{index}" for index in range(30)]
    submit(connection, "a", *(job(each, "my_id", concurrency=Concurrency(each)) for each in names))
    connection.delete(*(keys.job(f"a-{name}") for name in names))
    is_left = 1
    while is_left:
        connection.config_resetstat()
        _, is_left, *_ = STEP.call(connection, keys.TODO, "purge:a", 5)
        assert calls_per_command(connection).get("cmdstat_smembers", 0) <= 5
    assert leftovers(connection) == []


def test_a_run_whose_id_begins_another_one_leaves_that_its_slots(connection: Redis) -> None:
    submit(connection, "a", limited(most=2))
    submit(connection, "a-b", limited(most=2))
    connection.delete(keys.job("a-a"))
    runs.remove("a", connection)
    assert holders(connection) == {"a-b-a"}


def test_many_that_have_slots_are_looked_at_in_bounded_steps(connection: Redis) -> None:
    submit(connection, "a", limited(most=1_200))
    submit(connection, "b", limited())
    connection.sadd(SLOTS, *(f"gone-{index}" for index in range(1_200)))
    connection.config_resetstat()
    STEP.call(connection, keys.TODO, f"holders:{LIMIT}", 100)
    assert calls_per_command(connection)["cmdstat_hmget"] < 400
    while STEP.call(connection, keys.TODO, f"holders:{LIMIT}", 100)[1]:
        pass
    assert holders(connection) == {"a-a"}
    assert connection.hget(f"rq:flowq:1:{LIMIT}", "looked") is None


def test_those_of_an_unserved_queue_do_not_each_keep_the_slot_for_a_while(
    connection: Redis,
) -> None:
    RedisSide(connection, "w", ["default"], 30)
    connection.sadd("rq:workers:default", "rq:worker:w")
    connection.hset("rq:worker:w", "last_heartbeat", "x")
    for run_id in "abc":
        submit(connection, run_id, limited(queue="nobody"))
    submit(connection, "d", limited())
    connection.hset(keys.job("a-a"), "enqueued_at", "2020-01-01T00:00:00.000000Z")
    maintenance.examine(connection)
    assert queued(connection) == ["d-a"]
    assert connection.zrange(WAITING, 0, -1) == [b"b-a", b"c-a", b"a-a"]


def test_many_jobs_wait_at_the_same_cost_each(connection: Redis, work: Work) -> None:
    def count(size: int) -> float:
        connection.flushall()
        submit(connection, "first", limited())
        names = [f"j{index}" for index in range(size)]
        connection.config_resetstat()
        submit(connection, "a", *map(limited, names))
        waiting = count_calls(connection) / size
        connection.config_resetstat()
        for _ in range(20):
            work(max_jobs=1)
        return waiting + count_calls(connection) / 20

    few, many = count(40), count(400)
    assert many < 1.05 * few


def test_what_runs_in_a_test_waits_for_no_slot_and_no_rate() -> None:
    jobs = [
        limited("a", for_each=each([1, 2, 3])),
        job("b", "my_id", for_each=each([1, 2, 3]), rate=Rate("1/h")),
    ]
    assert run_inline(Workflow("w", tuple(jobs))).state == "succeeded"


# cancel_in_progress --------------------------------------------------------------------------


NEWER = Concurrency(GROUP, cancel_in_progress=True)


def run_states(connection: Redis, *run_ids: str) -> list[str]:
    return [runs.get_status(run_id, connection).state for run_id in run_ids]


def test_a_newer_job_cancels_those_that_wait_and_those_that_have_a_slot(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    for run_id in "ab":
        submit(connection, run_id, limited(), job("after", "my_id", needs=("a",)))
    submit(connection, "c", job("a", "my_id", concurrency=NEWER))
    tidy()
    assert states(connection, "a", "b") == ["canceled", "skipped"] * 2
    assert run_states(connection, "a", "b") == ["canceled", "canceled"]
    why = f"the newer a of run c takes its place in the `concurrency` group {GROUP}"
    assert runs.get_status("a", connection).jobs["a"].reason == why
    work()
    assert run_states(connection, "c") == ["succeeded"]
    retry.retry("a", connection)
    work()
    assert run_states(connection, "a") == ["succeeded"]
    assert leftovers(connection) == []


def test_a_newer_job_leaves_as_many_as_there_is_room_for(
    connection: Redis, tidy: Callable[[], None]
) -> None:
    for run_id in "abc":
        submit(connection, run_id, limited(most=2))
    submit(connection, "d", job("a", "my_id", concurrency=replace(NEWER, limit=2)))
    tidy()
    assert run_states(connection, "a", "b", "c", "d") == [
        *("canceled", "canceled", "running", "running")
    ]
    assert queued(connection) == ["c-a", "d-a"]


def test_a_newer_workflow_cancels_what_is_inside_of_an_older_one(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    inner = Workflow("inner", (job("x", "my_id"), job("y", "my_id", needs=("x",))))
    nested = JobSpec("n", workflow="inner", concurrency=NEWER, retries=Retry(2))
    submit(connection, "a", nested, workflows={"inner": inner})
    work(max_jobs=2)
    submit(connection, "b", nested, workflows={"inner": inner})
    tidy()
    assert run_states(connection, "a") == ["canceled"]
    assert runs.get_status("a", connection).jobs["n"].state == "canceled"
    work()
    tidy()
    work()
    assert run_states(connection, "b") == ["succeeded"]
    assert leftovers(connection) == []


def test_an_older_job_makes_way_before_a_newer_workflow(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    submit(connection, "z", limited(most=2))
    inner = Workflow("inner", (job("x", "my_id"),))
    nested = JobSpec("n", workflow="inner", concurrency=Concurrency(GROUP, limit=2))
    submit(connection, "b", nested, workflows={"inner": inner})
    [reason] = [each for each in explain_next(connection) if each.kind == "slot"]
    assert "a of run z since" in reason.text.partition("n of run b since")[0]
    submit(connection, "c", job("a", "my_id", concurrency=replace(NEWER, limit=2)))
    tidy()
    assert run_states(connection, "z", "b") == ["canceled", "running"]


def explain_next(connection: Redis) -> list[Any]:
    submit(connection, "y", limited(most=2))
    found = list(explain("y-a", connection).reasons)
    runs.cancel("y", connection)
    return found


def test_a_run_with_a_failure_of_its_own_has_failed(
    connection: Redis, work: Work, tidy: Callable[[], None]
) -> None:
    submit(connection, "a", job("bad", "fail", at_front=True), limited())
    work(max_jobs=1)
    submit(connection, "b", job("a", "my_id", concurrency=NEWER))
    tidy()
    assert run_states(connection, "a") == ["failed"]
