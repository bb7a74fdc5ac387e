"""The decorators, and the calls that become jobs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from itertools import islice
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Protocol,
    Unpack,
    overload,
)

from flowq.callables import explain_unimportable, name_call
from flowq.errors import FlowqError, UsageError
from flowq.functions.connections import get_connection
from flowq.functions.options import OPTION_NAMES, Options, as_list, read_options, to_rq_retry
from flowq.functions.typed import P, R_co, Verb
from flowq.nearest import did_you_mean

if TYPE_CHECKING:
    from flowq.runtime.job import Job
    from flowq.runtime.queue import Queue

JOBS_PER_BATCH = 100
"""Of `.map`; one call on the server stays short, and a generator is not read far ahead."""

_OF_ONE_JOB = ("job_id", "unique", "rate_limit")  # `.map` makes many, in RQ's `enqueue_many`


class JobFunction(Protocol[P, R_co]):
    """A function with what `@flowq.job` gave it; calling it just calls it."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @property
    def enqueue(self) -> Verb[P, Job]:
        """Enqueue a call of the function; see `JobCall.enqueue`."""

    @property
    def open(self) -> Verb[P, AbstractContextManager[Job]]:
        """Enqueue a call as a future job for a `with` block; see `JobCall.open`."""

    def map(self, *iterables: Iterable[Any], **kwargs: Any) -> list[Job]:
        """Enqueue a call for each item; see `JobCall.map`."""

    def options(self, **options: Unpack[Options]) -> JobCall[P]:
        """Return the call with other options, and with all keywords left to the function."""


@overload
def job(function: Callable[P, R_co], /, **options: Unpack[Options]) -> JobFunction[P, R_co]: ...
@overload
def job(
    **options: Unpack[Options],
) -> Callable[[Callable[P, R_co]], JobFunction[P, R_co]]: ...
def job(function: Any = None, /, **options: Any) -> Any:
    """Give a function `.enqueue`, `.open`, `.map` and `.options`; it stays the function it is.

    Errors: UsageError for an option that does not exist or cannot be meant.
    """
    return _decorate(function, options)


@overload
def deferred(
    function: Callable[P, R_co], /, **options: Unpack[Options]
) -> JobFunction[P, R_co]: ...
@overload
def deferred(
    **options: Unpack[Options],
) -> Callable[[Callable[P, R_co]], JobFunction[P, R_co]]: ...
def deferred(function: Any = None, /, **options: Any) -> Any:
    """The same, for a function whose jobs are future jobs: nothing runs them before a release."""
    return _decorate(function, {"deferred": True, **options})


def _decorate(function: Any, options: Mapping[str, Any]) -> Any:
    read = read_options(options)

    def decorate(decorated: Any) -> Any:
        if not inspect.isfunction(decorated):
            raise UsageError(
                f"flowq.job decorates a function that was written with def, not {decorated!r}; "
                "it stands directly above the def, below other decorators"
            )
        verbs = _Verbs(JobCall(decorated, read))
        for name in ("enqueue", "open", "map", "options"):
            setattr(decorated, name, getattr(verbs, name))
        return decorated

    return decorate if function is None else decorate(function)


class JobCall(Generic[P]):
    """A function with the options of its jobs. Here all keywords are the function's own."""

    def __init__(self, function: Callable[P, Any], options: Mapping[str, Any]) -> None:
        self.function = function
        self._options = options

    def options(self, **options: Unpack[Options]) -> JobCall[P]:
        """Return the same call with other options; None takes one away."""
        return JobCall(self.function, {**self._options, **read_options(options)})

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Enqueue the call, and return its job.

        Errors: those of `flowq.Queue`; UsageError for arguments that the function does not take,
        for a function that workers cannot import, and where no connection is found.
        """
        reference = self._refer(args, kwargs)
        return self._queue().enqueue_call(reference, args=args, kwargs=kwargs, **self._rq_options())

    @contextmanager
    def open(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[Job]:
        """Enqueue the call as a future job for a `with` block, which adds its blockers.

        Leaving the block releases the future job, unless the block canceled it. An exception in
        the block cancels it with its blockers, so that nothing of it ever runs, and goes on.
        Nothing is enqueued outside of a `with`: a future job without a block is made by
        `@flowq.deferred` and `.enqueue`, or with `.options(deferred=True)`.
        """
        future = self.options(deferred=True).enqueue(*args, **kwargs)
        try:
            yield future
        except BaseException as error:
            _abandon(future, error)
            raise
        if future.get_status(refresh=False) != "canceled":
            future.release()

    def map(self, *iterables: Iterable[Any], **kwargs: Any) -> list[Job]:
        """Enqueue one call for each item, in their order; several iterables give several arguments.

        The keywords are the same for all. The iterables are read as the jobs are enqueued, in
        batches of 100. Atomic: a batch of jobs with `blocks=` or `deferred=` is enqueued whole or
        not at all; batches before one that failed stay.
        """
        if not iterables:
            raise UsageError(f"{self._name}.map() takes at least one iterable")
        options = self._rq_options()
        if wrong := [name for name in _OF_ONE_JOB if name in options]:
            raise UsageError(f"{', '.join(wrong)} is for one job; .map makes one for each item")
        queue = self._queue()
        jobs: list[Job] = []
        rows = zip(*iterables, strict=True)
        while batch := list(islice(rows, JOBS_PER_BATCH)):
            jobs += self._add_batch(queue, batch, kwargs, options)
        return jobs

    def _add_batch(
        self,
        queue: Queue,
        rows: list[tuple[Any, ...]],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> list[Job]:
        prepared = [
            queue.prepare_data(self._refer(row, kwargs), args=row, kwargs=dict(kwargs), **options)
            for row in rows
        ]
        return queue.enqueue_many(prepared)

    @property
    def _name(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))

    def _refer(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Return RQ's reference to the function, once it is sure that workers can call it."""
        if unimportable := explain_unimportable(self.function):
            reason, hint = unimportable
            raise UsageError(f"{self._name} cannot be enqueued: {reason}; {hint}")
        signature = _signature(self.function)
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            hint = _hint(set(kwargs) - set(signature.parameters), signature)
            raise UsageError(f"{self._name}() {error}{hint}") from None
        return name_call(self.function).replace(":", ".")

    def _queue(self) -> Queue:
        # Inside of functions, as everywhere in this room: the cost of importing RQ.
        from flowq.runtime.connections import get_queue  # noqa: PLC0415
        from flowq.runtime.queue import Queue  # noqa: PLC0415

        queue, connection = self._options.get("queue"), self._options.get("connection")
        if queue is None or isinstance(queue, str):
            name = "default" if queue is None else queue
            return get_queue(name, get_connection(connection))
        if not isinstance(queue, Queue):
            raise UsageError(f"queue= takes a name or a flowq.Queue, not {queue!r}")
        if connection is not None:
            raise UsageError("queue= has its connection already; leave connection= out, or name it")
        return queue

    def _rq_options(self) -> dict[str, Any]:
        options = {name: value for name, value in self._options.items() if value is not None}
        for name in ("queue", "connection"):
            options.pop(name, None)
        if needs := options.pop("needs", None):
            options["depends_on"] = [*needs, *as_list(options.get("depends_on") or [])]
        if retry := to_rq_retry(options.pop("retries", None)):
            options["retry"] = retry
        return options


class _Verbs:
    """The methods that a decorated function gets: here keywords may be options."""

    def __init__(self, call: JobCall[Any]) -> None:
        self._call = call

    def enqueue(self, *args: Any, **kwargs: Any) -> Job:
        """Enqueue a call of the function, and return its job; see `JobCall.enqueue`."""
        call, kwargs = self._take_options(kwargs)
        return call.enqueue(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Job]:
        """Enqueue a call as a future job for a `with` block; see `JobCall.open`."""
        call, kwargs = self._take_options(kwargs)
        return call.open(*args, **kwargs)

    def map(self, *iterables: Iterable[Any], **kwargs: Any) -> list[Job]:
        """Enqueue a call for each item, and return the jobs; see `JobCall.map`."""
        call, kwargs = self._take_options(kwargs)
        return call.map(*iterables, **kwargs)

    def options(self, **options: Unpack[Options]) -> JobCall[Any]:
        """Return the call with other options, and with all keywords left to the function."""
        return self._call.options(**options)

    def _take_options(self, kwargs: dict[str, Any]) -> tuple[JobCall[Any], dict[str, Any]]:
        parameters = _signature(self._call.function).parameters
        names = [name for name in kwargs if name in OPTION_NAMES and name not in parameters]
        if not names:
            return self._call, kwargs
        options: Any = {name: kwargs.pop(name) for name in names}
        return self._call.options(**options), kwargs


@lru_cache(maxsize=1024)
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def _hint(unknown: Iterable[str], signature: inspect.Signature) -> str:
    known = [*signature.parameters, *sorted(OPTION_NAMES)]
    hints = [did_you_mean(name, known) for name in sorted(unknown)]
    return "; " + hints[0] if hints and hints[0].startswith("did") else ""


def _abandon(future: Job, error: BaseException) -> None:
    """Cancel a future job because of an error, which must not get lost when that fails too."""
    from redis.exceptions import RedisError  # noqa: PLC0415 - as above
    from rq.exceptions import InvalidJobOperation  # noqa: PLC0415 - as above

    try:
        future.cancel()
    except InvalidJobOperation:
        return  # it has been canceled before
    except (RedisError, FlowqError) as failure:
        error.add_note(f"The future job {future.id} could not be canceled: {failure}")
