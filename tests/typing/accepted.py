"""What type checkers have to accept, and to see as it is; nothing here is executed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

import flowq
from flowq import aio

queue = flowq.Queue(connection=flowq.connect())
queue = flowq.Queue(connection=Redis())
future = assert_type(queue.enqueue("operator.add", 1, 2, deferred=True), flowq.Job)
assert_type(queue.enqueue("math.factorial", 3, blocked_by=future), flowq.Job)
assert_type(queue.enqueue_call("math.factorial", args=(3,)), flowq.Job)
assert_type(queue.enqueue_in(timedelta(seconds=1), "math.factorial", 3), flowq.Job)
assert_type(queue.create_job("math.factorial", (3,)), flowq.Job)
assert_type(queue.enqueue_job(queue.create_job("math.factorial", (3,))), flowq.Job)
data = flowq.Queue.prepare_data("math.factorial", (3,), blocked_by=future)
assert_type(queue.enqueue_many([data]), list[flowq.Job])
assert_type(queue.fetch_job("id"), flowq.Job | None)
assert_type(flowq.Job.fetch("id", connection=Redis()), flowq.Job)
assert_type(future.release(), bool)
flowq.release_job(future)


@flowq.job
def plain(path: str, size: int = 1) -> int:
    """Count."""
    return len(path) * size


@flowq.job(timeout="30s", retries=3)
def configured(path: str) -> int:
    """Count."""
    return len(path)


@flowq.deferred(queue="reports")
def report(title: str) -> str:
    """Write."""
    return title


assert_type(plain("a", size=2), int)
assert_type(configured("a"), int)
assert_type(plain.enqueue("a"), flowq.Job)
assert_type(plain.enqueue("a", size=2), flowq.Job)
assert_type(plain.enqueue(path="a", size=2, blocks=future), flowq.Job)
assert_type(configured.enqueue("a", blocked_by=[future], timeout=3), flowq.Job)
assert_type(configured.options(blocks=future).enqueue("a"), flowq.Job)
assert_type(report.open("a"), AbstractContextManager[flowq.Job])
assert_type(plain.map(["a", "b"], blocks=future), list[flowq.Job])
with report.open(title="a") as opened:
    assert_type(opened, flowq.Job)

# Workflows and runs: every public name, as a program uses it.

flow = flowq.Workflow("count", inputs={"n": 2})


@flow.job
def count(n: int = flow.inputs.n) -> list[int]:
    """Count."""
    return list(range(n))


loaded = flowq.load("file.yaml")
assert_type(flow.submit(n=3), flowq.Run)
assert_type(flow.run(n=3), flowq.Run)
assert_type(flowq.submit(flow, {"n": 3}, connection="redis://localhost"), flowq.Run)
assert_type(flowq.submit(Path("file.yaml")), flowq.Run)
assert_type(flowq.submit("file.yaml", continue_from="k3v9x0q2m5ab"), flowq.Run)
assert_type(flowq.backfill(flow, "2026-11-01", "2026-11-30", {"n": 3}), list[flowq.Run])
run = assert_type(flowq.run(loaded, timeout="10m"), flowq.Run)
assert_type(flowq.runs(state="failed", since=timedelta(days=1), limit=3), list[flowq.Run])
assert_type(flowq.get_run(run.id), flowq.Run)
assert_type(run.wait(3), flowq.RunStatus)
assert_type(run.status().jobs["count"], flowq.JobStatus)
assert_type(run.record(), flowq.RunRecord)
assert_type(run.result("count"), Any)
assert_type(run.results(["count"]), dict[str, Any])
assert_type(run.outputs(), dict[str, Any])
assert_type(run.report(), str)
assert_type(run.release(), bool)
assert_type(run.views()["count"].result, Any)
assert_type(run.failures()["count"].traceback, str)
assert_type(run.explain("count").job_id, str)
for status in run.follow():
    assert_type(status.is_ended, bool)
for event in run.events(after="now", follow=True):
    assert_type(event.id, str)
run.remove()
assert_type(run.cancel(), list[str])
assert_type(run.retry("count"), tuple[str, ...])
assert_type(run.approve("count", {"n": 1}, note="fine"), bool)
assert_type(run.reject("count", "no"), bool)
with flowq.local(workers=2) as place:
    assert_type(place, flowq.Local)
    assert_type(place.url, str)
try:
    run.wait(1)
except flowq.RunNotEnded as late:
    assert_type(late.waits_for, str)
except flowq.RunFailed as failed:
    assert_type(failed.errors, dict[str, str])
except flowq.WorkflowInvalid as invalid:
    assert_type(invalid.problems, tuple[flowq.Problem, ...])
assert_type(flowq.current_future("name"), flowq.Job)
assert_type(flowq.get_future("id", Redis()), flowq.Job)
assert_type(flowq.Problem("FQ101", "text").where, flowq.Where | None)
flowq.Worker(["default"], connection=Redis())
for event in flowq.events(run, after="now", follow=True):
    assert_type(event, flowq.Event)
    assert_type(event.error, flowq.EventError | None)
    assert_type(event.progress, flowq.Progress | None)
flowq.progress(1, 10, "a message")
flowq.Retry(max=3)
flowq.Edge(future)


async def asynchronous(client: AsyncRedis) -> None:
    """Use flowq.aio."""
    submitted = await aio.submit(flow, {"n": 3}, connection=client)
    assert_type(submitted, aio.Run)
    assert_type(await submitted.wait("1m"), flowq.RunStatus)
    assert_type(await submitted.result("count"), Any)
    async for event in submitted.events(follow=True):
        assert_type(event, flowq.Event)
    job = await aio.Queue(connection=client).enqueue("math.factorial", 3, deferred=True)
    assert_type(job, aio.Job)
    assert_type(await job.release(), bool)
    made = await aio.backfill(flow, "2026-11-01", "2026-11-30", connection=client)
    assert_type(made, list[aio.Run])
    assert_type(await aio.runs(state="failed", connection=client), list[aio.Run])
    run = await aio.run(Path("file.yaml"), connection=client, timeout=3)
    assert_type(await aio.get_run(run.id, connection=client), aio.Run)
    async for event in aio.events(run, after="now"):
        assert_type(event, flowq.Event)
    async for status in run.follow():
        assert_type(status, flowq.RunStatus)
    assert_type(await run.status(), flowq.RunStatus)
    assert_type(await run.record(), flowq.RunRecord)
    assert_type(await run.results(), dict[str, Any])
    assert_type(await run.outputs(), dict[str, Any])
    assert_type(await run.report(), str)
    assert_type(await run.cancel(now=True), list[str])
    assert_type(await run.retry("count"), tuple[str, ...])
    assert_type(await run.approve("count", {"n": 1}, by="Ann"), bool)
    assert_type(await run.reject("count", "no"), bool)
    assert_type(await run.release(), bool)
    assert_type(await aio.call(run.id.upper), str)
    assert_type((await run.views())["count"].result, Any)
    assert_type((await run.failures())["count"].traceback, str)
    assert_type((await run.explain("count")).job_id, str)
    await run.remove()


# The names that are not used above.
NAMES = (
    flowq.Callback,
    flowq.CycleError,
    flowq.DoNotRetry,
    flowq.FlowqError,
    flowq.FutureAlreadyStarted,
    flowq.FutureEnded,
    flowq.JobIdTaken,
    flowq.JobNotFound,
    flowq.MultiprocessingWorker,
    flowq.NewerFormat,
    flowq.NotAFutureJob,
    flowq.NotAllowed,
    flowq.NotFound,
    flowq.NotOpen,
    flowq.PollFailed,
    flowq.RetryLater,
    flowq.RunNotFound,
    flowq.SecretInResult,
    flowq.ServerUnavailable,
    flowq.ShellFailed,
    flowq.StateUnusable,
    flowq.TooManyItems,
    flowq.Unserializable,
    flowq.Unsupported,
    flowq.UsageError,
    flowq.WIPRegistry,
    flowq.WorkflowNotFound,
    flowq.WrongState,
    flowq.__version__,
    flowq.get_current_job,
)
