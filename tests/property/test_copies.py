"""Jobs that `enqueue_many` copies: in Redis and in Python as RQ's own way makes them."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rq import Callback, Repeat, Retry
from rq.job import Job as RQJob
from rq.queue import Queue as RQQueue
from rq.serializers import JSONSerializer
from rq.utils import utcformat

from flowq.errors import JobIdTaken
from flowq.plan import Block, Call, Enqueue
from flowq.runtime import keys
from flowq.runtime.enqueueing import Copier
from flowq.runtime.job import Job, get_job
from flowq.runtime.planned import add_planned
from flowq.runtime.queue import Queue
from flowq.spec import Retry as SpecRetry


class WholeJob(Job):
    """A class of somebody else's, whose jobs are never copied."""


class ShoutingJob(Job):
    """A class that writes something of its own."""

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        fields = super().to_dict(include_meta, include_result)
        return fields | {"description": fields["description"].upper()}


class Adder:
    """Something whose methods can be enqueued."""

    def add(self, a: int, b: int) -> int:
        return a + b


ADDER = Adder()
FUNCTIONS = [operator.add, ADDER.add, "operator.add", print]
OPTIONS: dict[str, list[Any]] = {
    "args": [None, (), [], (1,), [1, "two"], ("x" * 200, b"\x00", None), ({"a": [1]},)],
    "kwargs": [None, {}, {"a": 1}, {"b": 2, "a": "x" * 100}],
    "timeout": [None, 60, 1.0, True, "3m", -1],
    "result_ttl": [None, 0, 500, "1h"],
    "ttl": [None, 30, "2m"],
    "failure_ttl": [None, 0, 60],
    "description": [None, "", "one of many", "ÿ "],
    "at_front": [False, True],
    "meta": [None, {}, {"a": 1}],
    "retry": [None, Retry(3), Retry(max=2, interval=[5, 6])],
    "repeat": [None, Repeat(times=2, interval=3)],
    "on_success": [None, Callback(print)],
    "on_failure": [None, Callback(print, timeout=7)],
    "depends_on": [None, [], "nothing", ["nothing"]],
    "blocked_by": [None, "future-a", ["future-a", "future-b"], ["future-b"]],
    "deferred": [False, True],
}
NOT_COMPARED = {
    "_id",
    "created_at",
    "serializer",
    "connection",
    "log",
    "hold",
    "redis_server_version",
}
Options = dict[str, Any]


def one_of_each(choices: dict[str, list[Any]]) -> st.SearchStrategy[Options]:
    """Any options; the same ones come as the same objects."""
    return st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(values) for name, values in choices.items()}
    )


def batches() -> st.SearchStrategy[list[tuple[Any, Options]]]:
    """Jobs that are much like each other: each may have a few options of its own."""
    own = one_of_each({name: OPTIONS[name] for name in ("args", "kwargs", "blocked_by")})
    other = st.sampled_from(sorted(OPTIONS)).flatmap(
        lambda name: st.sampled_from(OPTIONS[name]).map(lambda value: {name: value})
    )
    one = st.tuples(st.sampled_from(FUNCTIONS), own, st.one_of(st.just({}), other))
    most = st.lists(st.tuples(st.sampled_from(sorted(OPTIONS)), st.integers(0, 5)), max_size=3)
    return st.tuples(most, st.lists(one, min_size=2, max_size=8)).map(_compose)


def _compose(drawn: Any) -> list[tuple[Any, Options]]:
    chosen, jobs = drawn
    most = {name: OPTIONS[name][number % len(OPTIONS[name])] for name, number in chosen}
    return [(function, most | own | other) for function, own, other in jobs]


def enqueue(
    connection: redis.Redis, batch: list[tuple[Any, Options]], job_class: type[Job], **more: Any
) -> list[Job]:
    connection.flushall()
    queue = Queue("q", connection=connection, job_class=job_class, **more)
    for name in ("future-a", "future-b"):
        queue.enqueue("operator.add", 1, 2, job_id=name, deferred=True)
    held = [
        options | {"blocked_by": options.get("blocked_by") or "future-a"} for _, options in batch
    ]
    functions = [function for function, _ in batch]
    return queue.enqueue_many(
        [
            Queue.prepare_data(function, **options)
            for function, options in zip(functions, held, strict=True)
        ]
    )  # type: ignore[return-value]


def what_is_kept(connection: redis.Redis, jobs: list[Job]) -> dict[str, Any]:
    """All of Redis, with the jobs' places in the batch instead of their ids."""
    places = {job.id: f"job-{place}" for place, job in enumerate(jobs)}

    def named(value: Any) -> Any:
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        for job_id, place in places.items():
            text = text.replace(job_id, place)
        return text

    kept: dict[str, Any] = {}
    for key in connection.keys("rq:*"):
        kind = connection.type(key)
        if kind == b"hash":
            fields = {
                named(field): named(value) for field, value in connection.hgetall(key).items()
            }
            fields.pop("created_at", None)
            kept[named(key)] = fields
        elif kind == b"list":
            kept[named(key)] = [named(each) for each in connection.lrange(key, 0, -1)]
        elif kind == b"zset":
            kept[named(key)] = sorted(named(each) for each in connection.zrange(key, 0, -1))
        else:
            kept[named(key)] = sorted(map(named, connection.smembers(key)))
    return kept


def what_it_is(job: Job) -> dict[str, Any]:
    compared = {name: value for name, value in vars(job).items() if name not in NOT_COMPARED}
    return compared | {"blocks": job.hold.blocks, "is_deferred": job.hold.deferred}


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(
    batch=batches(), serializer=st.sampled_from([None, None, "rq.serializers.DefaultSerializer"])
)
def test_whatever_is_asked_for_copies_are_what_rqs_own_way_makes(
    connection: redis.Redis, batch: list[tuple[Any, Options]], serializer: str | None
) -> None:
    jobs = enqueue(connection, batch, Job, serializer=serializer)
    kept = what_is_kept(connection, jobs)
    for job in jobs:
        assert connection.hget(job.key, "created_at") == utcformat(job.created_at).encode()
    whole = enqueue(connection, batch, WholeJob, serializer=serializer)
    assert kept == what_is_kept(connection, whole)
    for job, other in zip(jobs, whole, strict=True):
        assert what_it_is(job) == what_it_is(other)
    assert len({job.id for job in jobs}) == len(jobs)


def alike(
    connection: redis.Redis, count: int, job_class: type[Job] = Job, **options: Any
) -> list[Job]:
    batch: list[tuple[Any, Options]] = [
        ("operator.add", {"args": (number,), **options}) for number in range(count)
    ]
    return enqueue(connection, batch, job_class)


def test_rqs_own_way_is_gone_once_for_each_kind(
    connection: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[Any] = []
    create_job = RQQueue.create_job

    def counting(queue: RQQueue, func: Any, **options: Any) -> RQJob:
        whole.append(func)
        return create_job(queue, func, **options)

    monkeypatch.setattr(RQQueue, "create_job", counting)
    batch: list[tuple[Any, Options]] = [(name, {"args": (n,)}) for n in range(5) for name in "abc"]
    enqueue(connection, batch, Job)
    assert sorted(whole) == ["a", "b", "c", "operator.add", "operator.add"]


def test_options_that_are_gone_are_not_taken_for_others(connection: redis.Redis) -> None:
    queue, copier = Queue(connection=connection), Copier()
    queue.enqueue("operator.add", job_id="future", deferred=True)
    for number in range(1, 20):
        # Nothing else holds the Retry, so that the next one may come to lie in its place.
        data = Queue.prepare_data("operator.add", retry=Retry(number), blocked_by="future")
        assert queue.describe(data, copier).job.retries_left == number


def test_copies_share_nothing_that_a_job_may_change(connection: redis.Redis) -> None:
    first, second, third = alike(connection, 3)
    second.meta["tags"] = ["spoilt"]
    second.webhooks.append("spoilt")  # type: ignore[arg-type]
    second._dependency_ids.append("spoilt")
    for other in (first, third):
        assert (other.meta, other.webhooks, other._dependency_ids) == ({}, [], [])
    assert [job.args for job in (first, second, third)] == [(0,), (1,), (2,)]


def test_ids_look_as_rqs_and_are_different(connection: redis.Redis) -> None:
    ids = {job.id for job in alike(connection, 50)}
    assert len(ids) == 50
    assert {(len(each), each[14], each[19] in "89ab") for each in ids} == {(36, "4", True)}


def test_what_a_class_writes_it_writes_for_every_job(connection: redis.Redis) -> None:
    jobs = alike(connection, 3, ShoutingJob)
    descriptions = [connection.hget(job.key, "description") for job in jobs]
    assert descriptions == [f"OPERATOR.ADD({number})".encode() for number in range(3)]


def test_jobs_of_another_serializer_can_be_read_with_it(connection: redis.Redis) -> None:
    queue = Queue(connection=connection, serializer=JSONSerializer)
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    datas = [Queue.prepare_data("operator.add", (n, n), blocked_by=future) for n in range(3)]
    for number, job in enumerate(queue.enqueue_many(datas)):
        assert get_job(job.id, connection, JSONSerializer).args == [number, number]


def cannot_be_pickled() -> tuple[Any, ...]:
    return (lambda: None,)


class Unspeakable:
    """Something that cannot even be described."""

    def __repr__(self) -> str:
        raise ValueError("no words for it")


@pytest.mark.parametrize(
    "bad",
    [
        {"args": cannot_be_pickled()},
        {"args": (Unspeakable(),)},
        {"args": 7},
        {"kwargs": 7},
        {"job_id": "not an id"},
        {"job_id": 7},
        {"timeout": 0},
        {"ttl": -1},
        {"job_id": "twice"},
        {"blocked_by": "missing"},
    ],
)
def test_a_mistake_in_the_last_of_many_enqueues_none(
    connection: redis.Redis, bad: dict[str, Any]
) -> None:
    queue = Queue(connection=connection)
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    good: list[Any] = [
        Queue.prepare_data("operator.add", (n,), blocked_by=future) for n in range(600)
    ]
    good.append(Queue.prepare_data("operator.add", job_id="twice", blocked_by=future))
    last = Queue.prepare_data("operator.add", **{"blocked_by": future, **bad})
    with pytest.raises(Exception) as raised:
        queue.enqueue_many([*good, last])
    with pytest.raises(raised.type):
        queue.enqueue_many([*good[-1:], last])  # none is like it, so it is made the whole way
    assert connection.exists(f"rq:deferred:{future.id}") == 0
    assert len(connection.keys("rq:job:*")) == 1
    queue.enqueue_many(good)
    assert connection.llen(f"rq:deferred:{future.id}") == 601


def planned(number: int) -> Enqueue:
    return Enqueue(
        f"r1-j{number}",
        f"j{number}",
        Call("operator:add", {"a": number}),
        deferred=number == 0,
        blocks=(Block("r1-j0", "ignore" if number % 7 == 0 else None),) if number else (),
        queue="slow" if number % 2 else "default",
        timeout_s=600 if number % 3 else None,
        retries=SpecRetry(2, 300) if number % 5 else None,
        description=f"add {number}" if number % 4 else "",
        on_crash="fail" if number % 11 < 5 else "requeue",
        at_front=number % 8 == 0,
    )


def test_jobs_of_a_plan_are_each_as_if_they_came_alone(connection: redis.Redis) -> None:
    enqueues = [planned(number) for number in range(40)]
    kept = []
    for calls in ([enqueues], [[each] for each in enqueues]):
        connection.flushall()
        connection.hset(keys.run("r1"), "state", "staged")
        for call in calls:
            add_planned(call, "r1", connection)
        kept.append(what_is_kept(connection, []))
    assert kept[0] == kept[1]
    last = kept[0]["rq:job:r1-j39"]
    assert (last["origin"], last["description"], last["flowq_name"]) == ("slow", "add 39", "j39")
    assert "timeout" in last


@pytest.mark.parametrize("number", [1, 2, 5, 7, 8, 16])
def test_the_job_of_a_plan_has_the_fields_that_rqs_own_way_gives_it(
    connection: redis.Redis, number: int
) -> None:
    job, kept = planned(number), []
    for is_planned in (True, False):
        connection.flushall()
        connection.hset(keys.run("r1"), "state", "staged")
        add_planned([planned(0), job], "r1", connection)
        if not is_planned:
            connection.delete(keys.job(job.job_id))
            Queue(job.queue, connection=connection).enqueue_call(
                "operator.add",
                kwargs={"a": number},
                job_id=job.job_id,
                timeout=job.timeout_s and int(job.timeout_s),
                retry=Retry(2, 300) if job.retries else None,
                result_ttl=-1,
                at_front=bool(job.at_front),
                description=job.description or None,
                blocked_by="r1-j0",
            )
        fields = connection.hgetall(keys.job(job.job_id))
        kept.append({k: v for k, v in fields.items() if not k.startswith((b"flowq", b"created"))})
    assert kept[0] == kept[1]


def test_rq_warns_of_each_function_that_should_be_a_callback(connection: redis.Redis) -> None:
    with pytest.warns(DeprecationWarning, match="on_success") as warned:
        alike(connection, 3, on_success=print)
    assert len(warned) == 3


def test_dependencies_that_can_be_read_once_are_read_once(connection: redis.Redis) -> None:
    first, second, third = alike(connection, 3, depends_on=iter(["nothing"]))
    assert [job._dependency_ids for job in (first, second, third)] == [["nothing"], [], []]
    assert connection.hget(second.key, "dependency_ids") is None


def test_what_an_earlier_job_of_an_id_has_left_is_swept(connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    queue.enqueue("operator.add", 3, job_id="again", blocked_by=future, meta={"a": 1})
    future.cancel()
    ids = [None, None, "again", "never"]
    other = queue.enqueue("operator.add", 1, 2, deferred=True)
    jobs = queue.enqueue_many(
        [Queue.prepare_data("operator.add", job_id=each, blocked_by=other) for each in ids]
    )
    assert [connection.hexists(job.key, "meta") for job in jobs] == [False] * 4
    assert [connection.hexists(job.key, "ended_at") for job in jobs] == [False] * 4


def test_an_id_of_a_copy_that_is_taken_is_refused(connection: redis.Redis) -> None:
    queue = Queue(connection=connection)
    first, second = (queue.enqueue("operator.add", deferred=True) for _ in range(2))
    queue.enqueue("operator.add", job_id="n1", blocked_by=first)
    datas = [
        Queue.prepare_data("operator.add", job_id=f"n{n}", blocked_by=second) for n in range(3)
    ]
    with pytest.raises(JobIdTaken):
        queue.enqueue_many(datas)
    assert connection.exists("rq:job:n0", "rq:job:n2") == 0
