"""Decorated functions: plain calls, jobs on a real server, and the connection they use."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import redis
from rq import SimpleWorker
from rq.job import JobStatus
from rq.serializers import JSONSerializer

import flowq
from flowq import server
from flowq.functions import _connect_once, get_connection
from flowq.runtime.queue import get_queue, remember

RAN: list[str] = []


@flowq.job(timeout="1.5s", retries={"max": 2, "backoff": "1s"})
def cut(thing: str = "bread", parts: int = 2) -> str:
    """Cut a thing into parts."""
    RAN.append(thing)
    return f"{parts} x {thing}"


@flowq.deferred(queue="pages")
def serve(title: str) -> str:
    RAN.append(title)
    return title


@flowq.job
async def fetch(url: str) -> str:
    RAN.append(url)
    return url


@flowq.job
def carry(queue: str, **rest: Any) -> str:
    return f"{queue} {rest}"


@flowq.job
def add_more(future_id: str) -> None:
    cut.enqueue("late", blocks=future_id)


kitchen = flowq.Workflow("kitchen")


@kitchen.job
async def boil(water: str) -> str:
    return f"hot {water}"


class Kitchen:
    @staticmethod
    @flowq.job
    def cook(dish: str) -> str:
        return dish


@pytest.fixture(autouse=True)
def default_connection(connection: redis.Redis) -> Iterator[None]:
    RAN.clear()
    remember(connection)
    yield
    remember(None)
    get_queue.cache_clear()
    _connect_once.cache_clear()


@pytest.fixture
def work(connection: redis.Redis) -> Callable[..., None]:
    def run(*queues: str) -> None:
        worker = SimpleWorker(
            list(queues or ("default", "pages")),
            connection=connection,
            job_class=flowq.Job,
            queue_class=flowq.Queue,
        )
        worker.work(burst=True, logging_level="ERROR")

    return run


def status_of(job: flowq.Job) -> JobStatus | None:
    return job.get_status(refresh=True)


# The function


def test_a_decorated_function_is_the_function_it_was() -> None:
    assert isinstance(cut, FunctionType)
    assert cut("ham", parts=3) == "3 x ham"
    assert cut.__doc__ == "Cut a thing into parts."
    assert asyncio.run(fetch("u")) == "u"
    assert asyncio.iscoroutinefunction(fetch)
    assert pickle.loads(pickle.dumps(cut)) is cut


@pytest.mark.parametrize("thing", [len, Kitchen, staticmethod(len)])
def test_only_functions_are_decorated(thing: Any) -> None:
    with pytest.raises(flowq.UsageError, match="written with def"):
        flowq.job(thing)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"time_out": 3}, "did you mean 'timeout'"),
        ({"timeout": "soon"}, "timeout 'soon' is not a duration"),
        ({"retries": "x"}, "retries must be a whole number"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_at_once(options: Any, words: str) -> None:
    with pytest.raises(flowq.UsageError, match=words):
        flowq.job(**options)


# enqueue


def test_enqueue_makes_a_job_that_a_worker_runs(work: Callable[..., None]) -> None:
    job = cut.enqueue("ham", parts=3)
    assert isinstance(job, flowq.Job)
    assert job.func_name == f"{__name__}.cut"
    assert job.timeout == 2  # RQ counts in whole seconds
    assert (job.retries_left, job.retry_intervals) == (2, [1])
    work()
    assert job.return_value() == "3 x ham"


def test_async_functions_and_static_methods_run_in_workers(work: Callable[..., None]) -> None:
    jobs = [fetch.enqueue("u"), Kitchen.cook.enqueue("soup")]
    work()
    assert [job.return_value() for job in jobs] == ["u", "soup"]


def test_jobs_of_a_workflow_are_callable_where_workers_import_them(
    connection: redis.Redis, work: Callable[..., None]
) -> None:
    (declared,) = kitchen.spec().jobs
    job = flowq.Queue(connection=connection).enqueue(declared.call.replace(":", "."), "water")
    work()
    assert job.return_value() == "hot water"


def test_the_options_of_a_call_win_over_those_of_the_decorator() -> None:
    job = cut.enqueue(
        "ham", queue="kitchen", timeout=30, retries=0, job_id="first", description="Cut it"
    )
    assert (job.origin, job.timeout, job.retries_left) == ("kitchen", 30, None)
    assert (job.id, job.description) == ("first", "Cut it")
    assert job.kwargs == {}


def test_a_timeout_of_minus_one_is_rqs_word_for_none() -> None:
    assert cut.enqueue("ham", timeout=-1).timeout == -1


def test_retries_may_be_rqs_own() -> None:
    retry = flowq.Retry(max=3, interval=[1, 5])
    assert cut.enqueue("ham", retries=retry).retry_intervals == [1, 5]


def test_a_parameter_with_the_name_of_an_option_is_the_functions() -> None:
    job = carry.enqueue(queue="a", timeout=30)
    assert (job.kwargs, job.origin, job.timeout) == ({"queue": "a"}, "default", 30)
    job = carry.options(queue="b").enqueue(queue="a", timeout=30)
    assert (job.kwargs, job.origin) == ({"queue": "a", "timeout": 30}, "b")


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "missing a required argument: 'title'"),
        (("a", "b"), {}, "too many positional arguments"),
        (("a",), {"block": "x"}, "unexpected keyword argument 'block'; did you mean 'blocks'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_enqueued(
    args: Any, kwargs: Any, words: str, connection: redis.Redis
) -> None:
    with pytest.raises(flowq.UsageError, match=words):
        serve.enqueue(*args, **kwargs)
    assert connection.dbsize() == 0


def test_functions_that_workers_cannot_import_are_refused(connection: redis.Redis) -> None:
    @flowq.job
    def nested() -> int:
        return 1

    assert nested() == 1
    with pytest.raises(flowq.UsageError, match="nested is defined inside test_functions_that"):
        nested.enqueue()
    assert connection.dbsize() == 0


def test_a_queue_can_be_given_as_an_object(connection: redis.Redis) -> None:
    queue = flowq.Queue("json", connection=connection, serializer=JSONSerializer)
    assert cut.enqueue("ham", queue=queue).serializer is JSONSerializer
    with pytest.raises(flowq.UsageError, match="connection already"):
        cut.enqueue("ham", queue=queue, connection=connection)
    with pytest.raises(flowq.UsageError, match=r"a name or a flowq\.Queue"):
        cut.enqueue("ham", queue=3)


# open and deferred


def test_needs_are_jobs_or_ids_that_run_before_beside_those_of_depends_on(
    work: Callable[..., None], connection: redis.Redis
) -> None:
    first, second, third = (cut.enqueue(name) for name in ("one", "two", "three"))
    last = cut.enqueue("last", needs=[first, second.id], depends_on=third)
    after = serve.enqueue("after", needs=last, deferred=False, queue="default")
    assert [job.get_status() for job in (last, after)] == [JobStatus.DEFERRED] * 2
    assert set(last.dependency_ids) == {first.id, second.id, third.id}
    work()
    assert [job.get_status() for job in (last, after)] == [JobStatus.FINISHED] * 2
    assert RAN[-2:] == ["last", "after"]


def test_needs_and_blocks_stand_at_the_decorator_too(work: Callable[..., None]) -> None:
    first = cut.enqueue("first")
    with serve.open("page", queue="default") as page:
        again = cut.options(needs=first, blocks=page).enqueue("again")
    assert again.future_ids == (page.id,)
    work()
    assert RAN[-3:] == ["first", "again", "page"]


@pytest.mark.parametrize("wrong", [cut, 3, "", ["x", None]])
def test_needs_that_are_no_jobs_are_refused(wrong: Any) -> None:
    with pytest.raises(flowq.UsageError, match="needs takes jobs that have been enqueued, or"):
        flowq.job(needs=wrong)(lambda: None)


def test_deferred_makes_a_future_job_that_waits_for_its_release(
    work: Callable[..., None],
) -> None:
    future = serve.enqueue("dinner")
    assert future.is_future
    cut.enqueue("ham", blocks=future)
    work()
    assert RAN == []
    assert flowq.release_job(future)
    work()
    assert RAN == ["ham", "dinner"]


def test_leaving_an_open_block_releases_the_future_job(work: Callable[..., None]) -> None:
    with serve.open("dinner") as future:
        blockers = [cut.enqueue(thing, blocks=future) for thing in ("ham", "bread")]
        work()
        assert RAN == []
    assert [status_of(job) for job in (future, *blockers)] == ["deferred", "queued", "queued"]
    work()
    assert RAN == ["ham", "bread", "dinner"]


def test_any_decorated_function_can_be_opened(work: Callable[..., None]) -> None:
    with cut.open("last", queue="pages") as future:
        cut.enqueue("first", blocks=future)
    work()
    assert RAN == ["first", "last"]


def test_an_exception_in_an_open_block_cancels_everything(work: Callable[..., None]) -> None:
    with pytest.raises(ZeroDivisionError), serve.open("dinner") as future:  # noqa: PT012
        inner = serve.enqueue("inner", blocks=future)
        blockers = [cut.enqueue("ham", blocks=future), cut.enqueue("jam", blocks=inner)]
        1 / 0  # noqa: B018
    work()
    assert RAN == []
    assert [status_of(job) for job in (future, inner, *blockers)] == ["canceled"] * 4


def test_a_future_job_that_its_block_canceled_is_not_released() -> None:
    with serve.open("dinner") as future:
        future.cancel()
    assert status_of(future) == "canceled"


def test_the_exception_of_the_block_survives_a_cancel_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise redis.ConnectionError("gone")

    with pytest.raises(ZeroDivisionError) as caught, serve.open("dinner") as future:  # noqa: PT012
        monkeypatch.setattr(future, "cancel", fail)
        1 / 0  # noqa: B018
    assert caught.value.__notes__ == [f"The future job {future.id} could not be canceled: gone"]


# map


def test_map_enqueues_one_job_for_each_item_in_order(work: Callable[..., None]) -> None:
    with serve.open("dinner") as future:
        jobs = cut.map(["a", "b", "c"], parts=4, blocks=future, queue="pages")
    assert [(job.args, job.kwargs) for job in jobs] == [((thing,), {"parts": 4}) for thing in "abc"]
    work()
    assert RAN == ["a", "b", "c", "dinner"]


def test_map_without_edges_and_with_several_iterables(work: Callable[..., None]) -> None:
    jobs = cut.map(["a", "b"], [1, 2])
    work()
    assert [job.return_value() for job in jobs] == ["1 x a", "2 x b"]


def test_map_reads_its_items_in_batches(connection: redis.Redis) -> None:
    enqueued_before = []

    def items() -> Iterator[str]:
        for number in range(250):
            enqueued_before.append(connection.llen("rq:queue:default"))
            yield str(number)

    assert len(cut.map(items())) == 250
    assert sorted(set(enqueued_before)) == [0, 100, 200]


def test_map_refuses_what_is_for_one_job() -> None:
    with pytest.raises(flowq.UsageError, match="job_id is for one job"):
        cut.map(["a"], job_id="x")
    with pytest.raises(flowq.UsageError, match="at least one iterable"):
        cut.map()


# The connection


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(None)
    monkeypatch.delenv("FLOWQ_REDIS_URL", raising=False)
    monkeypatch.delenv("RQ_REDIS_URL", raising=False)


def database_of(connection: redis.Redis) -> int:
    return int(connection.connection_pool.connection_kwargs.get("db") or 0)


@pytest.mark.usefixtures("no_connection")
def test_without_a_connection_the_ways_to_give_one_are_named() -> None:
    with pytest.raises(flowq.UsageError) as caught:
        cut.enqueue("ham")
    for way in ("connection=", "flowq.connect(url)", "FLOWQ_REDIS_URL", "RQ_REDIS_URL"):
        assert way in str(caught.value)


@pytest.mark.usefixtures("no_connection")
def test_the_connection_is_looked_for_in_the_order_that_is_promised(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def url(database: int) -> str:
        return f"{redis_url.partition('?')[0]}?db={database}"

    monkeypatch.setenv("RQ_REDIS_URL", url(5))
    assert database_of(get_connection()) == 5
    monkeypatch.setenv("FLOWQ_REDIS_URL", url(4))
    assert database_of(get_connection()) == 4
    remembered = flowq.connect(url(3))
    assert get_connection() is remembered
    running = get_connection(url(2))
    job = flowq.Queue(connection=running).enqueue(where_am_i)
    worker = SimpleWorker(["default"], connection=running)
    worker.work(burst=True, logging_level="ERROR")
    assert job.return_value() == 2
    explicit = get_connection(url(1))
    assert get_connection(explicit) is explicit
    assert get_connection(url(1)) is explicit


def where_am_i() -> int:
    return database_of(get_connection())


def test_connecting_to_nothing_says_so_and_keeps_the_default(connection: redis.Redis) -> None:
    with pytest.raises(flowq.ServerUnavailable, match=r"the server at .* cannot be used"):
        flowq.connect("redis://:secret@127.0.0.1:1/0")
    assert get_connection() is connection


def test_connecting_without_a_url_leads_to_the_server_of_the_commands(
    connection: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    private = flowq.connect()
    assert get_connection() is private
    started = server.find(tmp_path)
    assert started is not None
    assert private.connection_pool.connection_kwargs["path"] == str(started.socket)
    private.close()
    started.stop()
    monkeypatch.setenv("FLOWQ_REDIS_URL", redis_url)
    socket = connection.get_connection_kwargs()["path"]
    assert flowq.connect().get_connection_kwargs()["path"] == socket


def test_a_running_job_adds_blockers_on_its_own_connection(work: Callable[..., None]) -> None:
    future = serve.enqueue("dinner")
    add_more.enqueue(future.id, blocks=future)
    future.release()
    remember(None)
    work()
    assert RAN == ["late", "dinner"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
def test_a_forked_child_can_use_the_connection_of_its_parent(connection: redis.Redis) -> None:
    connection.ping()
    child = os.fork()
    if child == 0:
        try:
            cut.enqueue("in the child")
        finally:
            os._exit(0)
    cut.enqueue("in the parent")
    os.waitpid(child, 0)
    assert connection.llen("rq:queue:default") == 2
    assert connection.ping()
