"""`flowq.aio`: the same code with `await`, on a client of redis.asyncio."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import api_jobs
import pytest
import redis.asyncio
from redis import Redis

import flowq
from flowq import aio
from flowq.aio.bridge import bridge_to
from flowq.errors import UsageError
from flowq.runtime import keys, runs
from flowq.runtime.maintenance import tidy

Work = Callable[..., None]
Client = redis.asyncio.Redis
Play = Callable[[Callable[[Client], Coroutine[Any, Any, Any]]], Any]


@pytest.fixture
def play(redis_url: str) -> Play:
    """`play(story)`: run a coroutine function with a client in an event loop of its own."""

    def run(story: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            async with Client.from_url(redis_url) as client:
                return await story(client)

        return asyncio.run(main())

    return run


# Runs --------------------------------------------------------------------------------------------


def test_a_run_is_submitted_waited_for_and_read(play: Play, work: Work) -> None:
    async def story(client: Client) -> None:
        labels = {"team": "data"}
        run = await aio.submit(api_jobs.flow, {"n": 3}, connection=client, labels=labels)
        work()
        assert (await run.wait(60)).state == "succeeded"
        assert await run.result("double") == [0, 2, 4]
        assert await run.outputs() == {"total": 6}
        assert (await run.results())["total"] == 6
        assert (await run.views(["total"]))["total"].result == 6
        assert (await run.record()).workflow == "doubling"
        assert (await run.status()).jobs["total"].state == "finished"
        assert await aio.get_run(run.id, connection=client) == run
        assert await aio.runs(state="succeeded", labels=labels, connection=client) == [run]
        part = await aio.submit(api_jobs.flow, connection=client, only="count")
        work()
        assert (await part.status()).jobs["total"].reason == "left out of this run"
        with pytest.raises(UsageError, match=r"job total reads jobs\.double\.results"):
            await aio.run(api_jobs.flow, connection=client, from_=["total"], skip=[])

    threads = threading.active_count()
    play(story)
    assert threading.active_count() == threads


def test_events_come_until_the_end(play: Play, work: Work) -> None:
    async def story(client: Client) -> list[str]:
        run = await aio.submit(api_jobs.elsewhere, connection=client)
        work(None, "pages")
        assert [status.state async for status in run.follow()][-1] == "succeeded"
        return [event.event async for event in run.events(follow=True) if event.name]

    assert play(story) == ["queued", "started", "finished"]


def test_a_run_is_changed(play: Play, work: Work, tmp_path: Path) -> None:
    file = tmp_path / "ask.yaml"
    file.write_text(
        "name: ask\njobs:\n  go: {call: 'time:time', approval: {}}\n"
        "  no: {call: 'time:time', approval: {}, needs: go}\n"
    )

    async def story(client: Client) -> None:
        run = await aio.submit(file, connection=client)
        work()
        assert (await run.explain("go")).reasons
        assert "<html" in await run.report()
        assert await run.approve("go", note="fine") is True
        work()
        assert await run.reject("no", "late") is True
        with pytest.raises(flowq.RunFailed):
            await run.wait()
        assert await run.retry() == ("no",)
        assert await run.cancel() == []
        assert (await run.status()).state == "canceled"
        await run.remove()
        with pytest.raises(flowq.RunNotFound):
            await run.status()

    play(story)


def test_a_failure_is_raised_as_without_await(play: Play, work: Work) -> None:
    async def story(client: Client) -> None:
        run = await aio.submit(api_jobs.failing, connection=client)
        work()
        with pytest.raises(flowq.RunFailed, match="no bread"):
            await run.wait()
        assert "no bread" in (await run.failures(["fail"]))["fail"].traceback
        with pytest.raises(flowq.WorkflowInvalid):
            await aio.run(api_jobs.flow, {"m": 1}, connection=client)

    play(story)


def test_the_event_loop_goes_on_while_a_run_is_waited_for(play: Play, work: Work) -> None:
    async def story(client: Client) -> None:
        run = await aio.submit(api_jobs.flow, {"n": 1}, connection=client)
        waiting = [asyncio.create_task(run.wait(60)) for _ in range(5)]
        for _ in range(100):  # the tasks wait for the server, and others have their turns
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in waiting)
        work()
        assert {status.state for status in await asyncio.gather(*waiting)} == {"succeeded"}

    play(story)


def test_both_kinds_of_timeouts_end_the_wait_and_not_the_run(play: Play, work: Work) -> None:
    async def story(client: Client) -> None:
        run = await aio.submit(api_jobs.flow, connection=client)
        with pytest.raises(flowq.RunNotEnded, match="count is queued"):
            await run.wait("100ms")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await run.wait()
        work()
        assert (await run.wait()).is_ended

    play(story)


def test_waiting_goes_on_when_its_connection_is_cut(
    play: Play, work: Work, connection: Redis
) -> None:
    async def story(client: Client) -> None:
        run = await aio.submit(api_jobs.flow, connection=client)
        waiting = asyncio.create_task(run.wait(60))
        while "xread" not in [client["cmd"] for client in connection.client_list()]:
            await asyncio.sleep(0.01)
        assert connection.client_kill_filter(_type="normal", skipme=True) > 0
        await asyncio.sleep(0.1)
        work()
        assert (await waiting).state == "succeeded"

    play(story)


# Cancellation ------------------------------------------------------------------------------------


class Canceling(Client):
    """Cancels the task that sends the command of this number: before, amid or after it."""

    at = -1
    sent = 0
    when = ""

    async def count(self, send: Callable[[], Awaitable[Any]]) -> Any:
        Canceling.sent += 1
        if Canceling.sent == Canceling.at:
            task = asyncio.current_task()
            assert task is not None
            if self.when == "amid":
                asyncio.get_running_loop().call_soon(task.cancel)
                return await send()
            if self.when == "after":
                await send()
            task.cancel()
            await asyncio.sleep(0)
        return await send()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        return await self.count(lambda: super(Canceling, self).execute_command(*args, **options))

    def pipeline(self, *args: Any, **options: Any) -> Any:
        pipeline = super().pipeline(*args, **options)
        execute = pipeline.execute
        pipeline.execute = lambda *args: self.count(lambda: execute(*args))  # type: ignore[method-assign, misc]
        return pipeline


@pytest.mark.parametrize(
    ("when", "count"),
    [("before", 1), ("amid", 1), ("after", 1), ("amid", 150)],  # a lease is renewed for 50 jobs
)
def test_a_submission_that_is_canceled_at_any_command_is_whole_or_not_at_all(
    when: str, count: int, redis_url: str, connection: Redis, work: Work
) -> None:
    flow = flowq.Workflow("many")
    for at in range(count):
        flow.call(f"job{at}", "time:time")

    async def submit() -> aio.Run:
        async with Canceling.from_url(redis_url) as client:
            return await aio.submit(flow, connection=client, imports=False)

    Canceling.at, Canceling.sent, Canceling.when = -1, 0, when
    asyncio.run(submit())  # loads the scripts
    Canceling.sent = 0
    asyncio.run(submit())
    commands, outcomes = Canceling.sent, set()
    assert commands > 5
    for at in range(1, commands + 1):
        connection.flushdb()
        Canceling.at, Canceling.sent = at, 0
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(submit())
        [found] = flowq.runs(connection=connection) or [None]
        outcomes.add(found is not None)
        if found is None:
            assert not connection.keys(f"{keys.run('*')}")
            assert not connection.exists(keys.STAGED, keys.queue("default"))
        else:
            tidy(connection)
            assert found.status().state == "running"
            assert connection.llen(keys.queue("default")) == count
            if count == 1:
                work()
                assert found.wait(60).state == "succeeded"
    assert outcomes == {False, True}


def test_a_submission_that_is_canceled_twice_is_removed_when_its_lease_ends(
    redis_url: str, connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise asyncio.CancelledError

    async def submit() -> None:
        async with Canceling.from_url(redis_url) as client:
            await aio.submit(api_jobs.flow, connection=client)

    monkeypatch.setattr(aio, "give_up", fail)
    Canceling.at, Canceling.sent, Canceling.when = 4, 0, "after"
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(submit())
    [found] = flowq.runs(state="staged", connection=connection)
    connection.zadd(keys.STAGED, {found.id: 0})
    tidy(connection)
    assert flowq.runs(connection=connection) == []


def test_a_canceled_wait_leaves_the_client_as_it_was(play: Play, work: Work) -> None:
    async def story(client: Client) -> None:
        run = await aio.submit(api_jobs.flow, connection=client)
        for _ in range(20):
            waiting = asyncio.create_task(run.wait())
            await asyncio.sleep(0.002)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        work()
        assert await run.result("count") == [0, 1]
        events = run.events()
        assert (await anext(events)).event == "running"
        await events.aclose()  # type: ignore[attr-defined]
        assert await client.ping()

    play(story)


# Jobs --------------------------------------------------------------------------------------------


def test_blockers_are_enqueued_concurrently(play: Play, work: Work, connection: Redis) -> None:
    async def story(client: Client) -> None:
        queue = aio.Queue(connection=client)
        future = await queue.enqueue("operator.concat", "a ", "report", deferred=True)
        blockers = await asyncio.gather(
            *(queue.enqueue("math.factorial", n, blocked_by=[future]) for n in range(30))
        )
        after = await queue.enqueue("operator.add", 1, 2, depends_on=future)
        assert connection.llen(f"rq:deferred:{future.id}") == 30
        assert await future.release() is True
        assert await future.release() is False
        work()
        assert await future.result() == "a report"
        assert await blockers[4].result() == 24
        assert await after.get_status() == "finished"

    play(story)


def test_a_future_job_with_all_its_blockers_is_canceled(play: Play, work: Work) -> None:
    async def story(client: Client) -> None:
        queue = aio.Queue("pages", connection=client)
        future = await queue.enqueue("operator.add", 1, 2, deferred=True)
        blocker = await queue.enqueue("math.factorial", 3, blocks=future)
        later = await queue.enqueue_in(timedelta(hours=1), "math.factorial", 3)
        await future.cancel()
        assert await blocker.get_status() == "canceled"
        assert await later.get_status() == "scheduled"

    play(story)


def test_errors_of_a_queue_are_raised(play: Play) -> None:
    async def story(client: Client) -> None:
        queue = aio.Queue(connection=client)
        plain = await queue.enqueue("math.factorial", 3)
        with pytest.raises(flowq.NotAFutureJob):
            await queue.enqueue("math.factorial", 3, blocked_by=plain)
        with pytest.raises(flowq.NotAFutureJob):
            await plain.release()

    play(story)


# The bridge --------------------------------------------------------------------------------------


def test_methods_of_an_asynchronous_object_are_refused_without_await(play: Play) -> None:
    async def story(client: Client) -> None:
        job = await aio.Queue(connection=client).enqueue("math.factorial", 3)
        with pytest.raises(flowq.UsageError, match=r"await flowq\.aio\.call"):
            job.job.get_status()
        assert await aio.call(job.job.get_position) == 0

    play(story)


@pytest.mark.parametrize("given", [Redis(), "redis://localhost", None], ids=["sync", "url", "none"])
def test_what_is_no_client_of_redis_asyncio_is_refused(given: Any) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: aio.submit(api_jobs.flow, connection=given),
        lambda: aio.run(api_jobs.flow, connection=given),
        lambda: aio.get_run("abc", connection=given),
        lambda: aio.runs(connection=given),
    ]
    for each in calls:
        with pytest.raises(flowq.UsageError, match=r"a client of redis\.asyncio, not"):
            asyncio.run(each())  # type: ignore[arg-type]
    with pytest.raises(flowq.UsageError, match=r"redis\.asyncio\.Redis\.from_url\(url\)"):
        aio.Queue(connection=given)


def test_a_client_of_a_cluster_is_refused_with_what_works() -> None:
    cluster: Any = redis.asyncio.RedisCluster(host="localhost", port=1)
    with pytest.raises(flowq.UsageError, match=r"supports no clusters: use .* in a thread"):
        aio.Queue(connection=cluster)


def test_a_connection_that_decodes_is_refused_here_too(redis_url: str) -> None:
    async def main() -> None:
        async with Client.from_url(redis_url, decode_responses=True) as client:
            with pytest.raises(flowq.UsageError, match="decode_responses"):
                await aio.submit(api_jobs.flow, connection=client)

    asyncio.run(main())


def test_context_variables_are_those_of_the_coroutine(play: Play) -> None:
    variable = contextvars.ContextVar("variable", default=0)

    async def story(client: Client) -> int:
        variable.set(1)

        def use() -> int:
            bridge_to(client).ping()
            seen = variable.get()
            variable.set(2)
            return seen

        assert await aio.call(use) == 1
        return variable.get()

    assert play(story) == 2


def test_a_transaction_that_watches_keys_works_through_the_bridge(
    play: Play, connection: Redis
) -> None:
    async def story(client: Client) -> None:
        def move() -> Any:
            with bridge_to(client).pipeline() as pipeline:
                pipeline.watch("a")
                before = int(pipeline.get("a") or 0)
                if not before:
                    connection.set("a", 5)  # another client is faster
                pipeline.multi()
                pipeline.set("a", before + 1)
                return pipeline.execute()

        with pytest.raises(redis.WatchError):
            await aio.call(move)
        assert await aio.call(move) == [True]
        assert await client.get("a") == b"6"

    play(story)


def test_without_greenlet_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['greenlet'] = None; import flowq.aio"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "flowq.aio needs the package greenlet: pip install 'rq-flowq[aio]'" in done.stderr


def test_a_run_of_a_submission_is_what_others_find(play: Play, connection: Redis) -> None:
    async def story(client: Client) -> str:
        return (await aio.submit(api_jobs.flow, connection=client)).id

    assert runs.get_record(play(story), connection).state == "running"
