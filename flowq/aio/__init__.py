"""flowq with `await`, on a client of `redis.asyncio`.

    client = redis.asyncio.Redis.from_url(url)
    run = await flowq.aio.submit("report.yaml", {"month": "2026-11"}, connection=client)
    async for event in run.events(follow=True):
        print(event.name, event.event)
    async with asyncio.timeout(60):
        await run.wait()

Everything here runs the same code and the same scripts as the functions without `await`
(`bridge.py`), in the event loop and without threads. A canceled submission is submitted as a whole
or not at all. Checking a workflow takes CPU time in the event loop: some milliseconds for ten jobs,
a second for ten thousand.
"""

from __future__ import annotations

from asyncio import CancelledError, timeout
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from datetime import date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import RedisError

from flowq import api, client, compiling  # noqa: F401 - loaded now, not in the event loop
from flowq.aio.bridge import Bridge, bridge_to, call
from flowq.runtime import job as jobs
from flowq.runtime import queue as queues
from flowq.runtime.connections import refuse_unusable
from flowq.runtime.maintenance import give_up
from flowq.selecting import make_selection

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from flowq.api import AnyWorkflow
    from flowq.event import Event
    from flowq.runtime.explain import Explanation
    from flowq.runtime.results import Failure, JobView
    from flowq.status import RunRecord, RunState, RunStatus

__all__ = ["Job", "Queue", "Run", "backfill", "call", "events", "get_run", "run", "runs", "submit"]

T = TypeVar("T")

GIVE_UP_S = 1.0
"""How long a canceled submission may take to remove what it has written."""


async def submit(
    workflow: AnyWorkflow,
    inputs: Mapping[str, Any] | None = None,
    *,
    connection: Redis,
    imports: bool = True,
    labels: Mapping[str, str] | None = None,
    only: str | Iterable[str] = (),
    from_: str | Iterable[str] = (),
    skip: str | Iterable[str] = (),
    continue_from: Run | str | None = None,
) -> Run:
    """Do as `flowq.submit`. If it is canceled, the run is submitted as a whole or not at all."""
    bridge = bridge_to(connection)
    refuse_unusable(bridge)
    part = make_selection(only, from_, skip)
    options: dict[str, Any] = {"imports": imports, "labels": labels, "selection": part}
    if continue_from is None:
        plan = api.make_plan(workflow, inputs, **options)
    else:
        given = continue_from._run if isinstance(continue_from, Run) else continue_from
        before = await call(api.find_before, given, bridge)
        plan = await call(api.make_plan, workflow, inputs, **options, before=before)
    try:
        return Run(await call(api.submit_plan, plan, bridge))
    except CancelledError:
        # Without this, or if it fails, the lease of the run ends, and workers remove it.
        with suppress(RedisError, TimeoutError):
            async with timeout(GIVE_UP_S):
                await call(give_up, plan.run_id, bridge)
        raise


async def run(
    workflow: AnyWorkflow,
    inputs: Mapping[str, Any] | None = None,
    *,
    connection: Redis,
    timeout: float | str | None = None,
    imports: bool = True,
    labels: Mapping[str, str] | None = None,
    only: str | Iterable[str] = (),
    from_: str | Iterable[str] = (),
    skip: str | Iterable[str] = (),
    continue_from: Run | str | None = None,
) -> Run:
    """Do as `flowq.run`. If it is canceled, the run goes on."""
    submitted = await submit(
        workflow,
        inputs,
        connection=connection,
        imports=imports,
        labels=labels,
        only=only,
        from_=from_,
        skip=skip,
        continue_from=continue_from,
    )
    await submitted.wait(timeout)
    return submitted


async def backfill(
    workflow: AnyWorkflow,
    begin: date | str,
    end: date | str,
    inputs: Mapping[str, Any] | None = None,
    *,
    connection: Redis,
    max_parallel: int | None = None,
    imports: bool = True,
) -> list[Run]:
    """Do as `flowq.backfill`. If it is canceled, the same call goes on."""
    found = await call(
        api.backfill,
        workflow,
        begin,
        end,
        inputs,
        max_parallel=max_parallel,
        connection=bridge_to(connection),
        imports=imports,
    )
    return [Run(each) for each in found]


async def get_run(run_id: str, *, connection: Redis) -> Run:
    """Do as `flowq.get_run`."""
    return Run(await call(api.get_run, run_id, connection=bridge_to(connection)))


async def events(
    run: Run | str | None = None,
    *,
    after: Event | str | None = None,
    follow: bool = False,
    connection: Redis | None = None,
) -> AsyncIterator[Event]:
    """Yield the events of a run, or of all runs, as `flowq.events` does.

    A run of this module has its connection already.
    """
    given = run._run if isinstance(run, Run) else run
    bridge = None if isinstance(run, Run) and connection is None else bridge_to(connection)
    read = partial(api.events, given, after=after, follow=follow, connection=bridge)
    async with aclosing(_iterate(read)) as found:
        async for event in found:
            yield event


async def runs(
    *,
    connection: Redis,
    state: RunState | None = None,
    workflow: str | None = None,
    since: datetime | timedelta | str | None = None,
    labels: Mapping[str, str] | None = None,
    limit: int = 50,
) -> list[Run]:
    """Do as `flowq.runs`."""
    found = await call(
        api.runs,
        state=state,
        workflow=workflow,
        since=since,
        labels=labels,
        limit=limit,
        connection=bridge_to(connection),
    )
    return [Run(each) for each in found]


class Run:
    """A handle to one run, as `flowq.Run`; each method does as the one of the same name."""

    def __init__(self, run: client.Run) -> None:
        self._run = run

    def __repr__(self) -> str:
        return f"<flowq.aio.Run {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self._run == other._run

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def id(self) -> str:
        """The id of the run."""
        return self._run.run_id

    async def wait(self, timeout: float | str | None = None) -> RunStatus:
        """Wait for the end of the run. Errors: RunFailed; RunNotEnded after `timeout`."""
        return await call(self._run.wait, timeout)

    async def status(self) -> RunStatus:
        """Return the status of the run and its jobs."""
        return await call(self._run.status)

    async def record(self) -> RunRecord:
        """Return the run's record, without its jobs."""
        return await call(self._run.record)

    async def result(self, job: str) -> Any:
        """Return the result of one job, not masked."""
        return await call(self._run.result, job)

    async def results(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the results of jobs, by name, not masked."""
        return await call(self._run.results, names)

    async def outputs(self) -> dict[str, Any]:
        """Return the workflow's outputs, by name, once the run has ended."""
        return await call(self._run.outputs)

    async def views(self, names: Iterable[str] | None = None) -> dict[str, JobView]:
        """Return views of the ended jobs, by name, masked."""
        return await call(self._run.views, names)

    async def failures(self, names: Iterable[str] | None = None) -> dict[str, Failure]:
        """Return why jobs failed, by name."""
        return await call(self._run.failures, names)

    async def explain(self, job: str, *, status: RunStatus | None = None) -> Explanation:
        """Return why a job has not run. `status` spares a read."""
        return await call(self._run.explain, job, status=status)

    async def follow(self) -> AsyncIterator[RunStatus]:
        """Yield the status now, and after each change, until that of the ended run."""
        async with aclosing(_iterate(self._run.follow)) as statuses:
            async for status in statuses:
                yield status

    async def events(
        self, *, after: Event | str | None = None, follow: bool = False
    ) -> AsyncIterator[Event]:
        """Yield the events of the run, as `flowq.events` does."""
        read = partial(self._run.events, after=after, follow=follow)
        async with aclosing(_iterate(read)) as events:
            async for event in events:
                yield event

    async def cancel(
        self, *, now: bool = False, may_wait: bool = True, by: str | None = None
    ) -> list[str]:
        """Cancel the run."""
        return await call(self._run.cancel, now=now, may_wait=may_wait, by=by)

    async def retry(self, job: str | None = None, *, by: str | None = None) -> tuple[str, ...]:
        """Rerun what did not succeed, or one job, and everything after it."""
        return await call(self._run.retry, job, by=by)

    async def release(self, *, by: str | None = None) -> bool:
        """Release a held run."""
        return await call(self._run.release, by=by)

    async def approve(
        self,
        job: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        note: str = "",
        by: str | None = None,
    ) -> bool:
        """Approve a job that waits for approval."""
        return await call(self._run.approve, job, inputs, note=note, by=by)

    async def reject(self, job: str, reason: str = "", *, by: str | None = None) -> bool:
        """Reject a job that waits for approval."""
        return await call(self._run.reject, job, reason, by=by)

    async def report(self) -> str:
        """Return a report of the run, one HTML page."""
        return await call(self._run.report)

    async def remove(self) -> None:
        """Remove the run, its jobs and all of its data."""
        await call(self._run.remove)


class Queue:
    """A queue, as `flowq.Queue`; the jobs that it returns have methods to be awaited."""

    def __init__(self, name: str = "default", *, connection: Redis, **options: Any) -> None:
        self._name = name
        self._bridge: Bridge = bridge_to(connection)
        self._options = options
        self._queue: queues.Queue | None = None

    def __repr__(self) -> str:
        return f"<flowq.aio.Queue {self._name}>"

    async def enqueue(self, f: Any, *args: Any, **kwargs: Any) -> Job:
        """Enqueue a call, with `deferred=`, `blocked_by=` and RQ's options.

        Jobs of this class may be given to `blocked_by=`, `blocks=` and `depends_on=`.
        """
        return Job(await call(self._enqueue, f, args, kwargs))

    async def enqueue_in(self, time_delta: timedelta, func: Any, *args: Any, **kwargs: Any) -> Job:
        """Enqueue a call after a delay."""
        options = {name: _unwrap(value) for name, value in kwargs.items()}

        def enqueue() -> jobs.Job:
            return self._get().enqueue_in(time_delta, func, *args, **options)

        return Job(await call(enqueue))

    def _enqueue(self, f: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> jobs.Job:
        return self._get().enqueue(f, *args, **{key: _unwrap(kwargs[key]) for key in kwargs})

    def _get(self) -> queues.Queue:
        if self._queue is None:  # asks the server, so not before
            self._queue = queues.Queue(self._name, connection=self._bridge, **self._options)
        return self._queue


class Job:
    """A job, as `flowq.Job`. `job` is that itself: its properties, not its methods, can be used."""

    def __init__(self, job: jobs.Job) -> None:
        self.job = job

    def __repr__(self) -> str:
        return f"<flowq.aio.Job {self.id}>"

    @property
    def id(self) -> str:
        """The id of the job."""
        return str(self.job.id)

    async def release(self, *, cascade: bool = False) -> bool:
        """Close the declaration of a future job; True for the call that did it."""
        return await call(self.job.release, cascade=cascade)

    async def get_status(self) -> str:
        """Return RQ's status of the job now."""
        return (await call(self.job.get_status)).value

    async def result(self) -> Any:
        """Return the result of the job; None while it has none, as RQ's `return_value`."""
        return await call(self.job.return_value, refresh=True)

    async def cancel(self) -> None:
        """Cancel the job."""
        await call(self.job.cancel)


def _unwrap(value: Any) -> Any:
    """Return RQ's job for one of ours, also in lists."""
    if isinstance(value, list | tuple):
        return type(value)(map(_unwrap, value))
    return value.job if isinstance(value, Job) else value


_END: Any = object()


async def _iterate(begin: Callable[[], Iterator[T]]) -> AsyncGenerator[T]:
    iterator = begin()
    while (item := await call(next, iterator, _END)) is not _END:
        yield item
