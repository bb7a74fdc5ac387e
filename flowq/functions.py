"""Decorated functions: calling one calls the function; `.enqueue`, `.open` and `.map` create jobs.

    @flowq.job(timeout="30s", retries=3)
    def thumbnail(path, size): ...

    @flowq.deferred(queue="pages")
    def build_page(title): ...

    with build_page.open(title="Holidays") as page:
        for path in find_photos():
            thumbnail.enqueue(path, size=256, blocks=page)

The decorator's options are the defaults for every call. A keyword of `.enqueue`, `.open` or `.map`
that names an option sets that option, unless the function has a parameter of the same name. In that
case the keyword goes to the function, and `.options(queue="b").enqueue(…)` sets the option.

The first call that needs Redis and RQ imports them, not this module: every spawned child imports
the user's module, and with it this one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from itertools import islice
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from flowq import server
from flowq.callables import refer
from flowq.durations import parse_duration
from flowq.errors import FlowqError, UsageError
from flowq.nearest import did_you_mean
from flowq.spec import BlockerPolicy, Retry, StartWhen

if TYPE_CHECKING:
    from redis import Redis
    from rq import Retry as RQRetry
    from rq.job import Job as RQJob

    from flowq.runtime.job import Job
    from flowq.runtime.queue import Queue


P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)

JOBS_PER_BATCH = 100
"""Of `.map`; one call on the server stays short, and a generator is not read far ahead."""

_OF_ONE_JOB = ("job_id", "unique", "rate_limit")  # `.map` makes many, in RQ's `enqueue_many`


class JobFunction(Protocol[P, R_co]):
    """A function with the methods that `@flowq.job` adds; it can still be called directly."""

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
    """Add `.enqueue`, `.open`, `.map` and `.options` to a function, which can still be called
    directly.

    Errors: UsageError for an unknown or invalid option.
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
    """Like `job`, for a function whose jobs are future jobs: they wait for their release."""
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
    """A function with the options of its jobs. All keywords are passed to the function."""

    def __init__(self, function: Callable[P, Any], options: Mapping[str, Any]) -> None:
        self.function = function
        self._options = options

    def options(self, **options: Unpack[Options]) -> JobCall[P]:
        """Return the same call with other options; None removes an option."""
        return JobCall(self.function, {**self._options, **read_options(options)})

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Enqueue the call, and return its job.

        Errors: those of `flowq.Queue`; UsageError for arguments that the function does not accept,
        for a function that workers cannot import, and if no connection is found.
        """
        reference = self._refer(args, kwargs)
        return self._queue().enqueue_call(reference, args=args, kwargs=kwargs, **self._rq_options())

    @contextmanager
    def open(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[Job]:
        """Enqueue the call as a future job for a `with` block, which adds its blockers.

        Leaving the block releases the future job, unless the block canceled it. An exception in the
        block cancels the future job and its blockers, so that none of them runs, and propagates.
        Outside a `with` statement, nothing is enqueued. To create a future job without a block, use
        `@flowq.deferred` and `.enqueue`, or `.options(deferred=True)`.
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
        """Enqueue one call per item, in order; several iterables give several arguments.

        The keywords are the same for all calls. The iterables are read while the jobs are enqueued,
        in batches of 100. Atomic: a batch of jobs with `blocks=` or `deferred=` is enqueued
        completely or not at all; batches before a failed one stay enqueued.
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
            jobs += queue.enqueue_many(
                queue.prepare_data(self._refer(row, kwargs), args=row, kwargs={**kwargs}, **options)
                for row in batch
            )
        return jobs

    @property
    def _name(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))

    def _refer(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Check that workers can call the function, and return RQ's reference to it."""
        reference = refer(self.function)
        signature = _signature(self.function)
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            hint = _hint(set(kwargs) - set(signature.parameters), signature)
            raise UsageError(f"{self._name}() {error}{hint}") from None
        return reference

    def _queue(self) -> Queue:
        # Inside of functions, as everywhere in this room: the cost of importing RQ.
        from flowq.runtime.queue import Queue, get_queue  # noqa: PLC0415

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
    """The methods of a decorated function. Keywords may be options."""

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
    """Cancel a future job because of an error, and keep that error even if canceling fails too."""
    from redis.exceptions import RedisError  # noqa: PLC0415 - as above
    from rq.exceptions import InvalidJobOperation  # noqa: PLC0415 - as above

    try:
        future.cancel()
    except InvalidJobOperation:
        return  # it has been canceled before
    except (RedisError, FlowqError) as failure:
        error.add_note(f"The future job {future.id} could not be canceled: {failure}")


class Options(TypedDict, total=False):
    """The options of a job. `timeout` and the TTLs are durations; -1 is RQ's "no limit".

    `queue` is a name or a `flowq.Queue`; `connection` is a client or a URL. `needs` are jobs, or
    their ids, that run before this one, in addition to RQ's `depends_on`; `blocks` (or
    `blocked_by`) are future jobs that wait for this one. All other options are RQ's, under RQ's
    names.
    """

    queue: str | Queue
    connection: Redis | str
    needs: Any
    blocks: Any
    blocked_by: Any
    deferred: bool
    on_blocker_failure: BlockerPolicy
    if_empty: Literal["run", "skip"]
    start_when: StartWhen
    cancel_rest: bool
    timeout: str | float
    retries: Any
    description: str
    depends_on: Any
    at_front: bool
    job_id: str
    unique: bool
    result_ttl: str | float
    ttl: str | float
    failure_ttl: str | float
    meta: dict[str, Any]
    repeat: Any
    rate_limit: Any
    on_success: Any
    on_failure: Any
    on_stopped: Any
    webhooks: Any


OPTION_NAMES = frozenset(Options.__annotations__)


def read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with durations in seconds and retries as flowq's `Retry`, or RQ's own."""
    read = {}
    for name, value in options.items():
        if name not in OPTION_NAMES:
            hint = did_you_mean(name, sorted(OPTION_NAMES))
            raise UsageError(f"a job has no option {name!r}; {hint}")
        reader = None if value is None else _READERS.get(name)
        try:
            read[name] = reader(value) if reader else value
        except ValueError as error:
            raise UsageError(f"{name} {error}") from None
    return read


def _read_seconds(value: Any) -> int:
    """Return whole seconds, because RQ uses whole seconds; fractions are rounded up."""
    return -1 if value == -1 else math.ceil(parse_duration(value))


def _read_retries(value: Any) -> Any:
    from flowq.declare.values import read_retries  # noqa: PLC0415 - the cost of importing the table

    return value if hasattr(value, "intervals") else read_retries(value)


def _read_needs(value: Any) -> list[Any]:
    given = as_list(value)
    for each in given:
        if not (isinstance(each, str) and each) and not hasattr(each, "is_finished"):
            raise ValueError(f"takes jobs that have been enqueued, or their ids, not {each!r}")
    return given


def as_list(value: Any) -> list[Any]:
    """Return one value or several values as a list."""
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "timeout": _read_seconds,
    "result_ttl": _read_seconds,
    "ttl": _read_seconds,
    "failure_ttl": _read_seconds,
    "retries": _read_retries,
    "needs": _read_needs,
}


def to_rq_retry(retries: Retry | RQRetry | None) -> RQRetry | None:
    """Convert retries to RQ's form."""
    from flowq.runtime import policies  # noqa: PLC0415 - the cost of importing RQ

    return policies.to_rq_retry(retries) if isinstance(retries, Retry) else retries


def connect(url: str | None = None) -> Redis:
    """Connect to a server and make it the default of this process.

    Without a URL, to the server that commands use here: that of FLOWQ_REDIS_URL or RQ_REDIS_URL,
    else the private server of the current folder, which is started if necessary.

    Blocks: until the server has answered. Errors: ServerUnavailable; the default is unchanged.
    """
    from flowq.runtime.queue import remember  # noqa: PLC0415 - imports RQ

    connection = server.connect(server.resolve_url(url) or server.ensure().url)
    remember(connection)
    return connection


def get_connection(explicit: Redis | str | None = None) -> Redis:
    """Return the connection to use: the first available one of this list.

    1. `explicit`, a client or a URL; 2. that of the job that is running here; 3. that of
    `flowq.connect(url)`; 4. FLOWQ_REDIS_URL; 5. RQ_REDIS_URL. Never starts a server.

    Blocks: until a server named by a URL has answered once. Errors: UsageError if no connection is
    available; ServerUnavailable.
    """
    from flowq.runtime.connections import refuse_unusable  # noqa: PLC0415 - imports redis
    from flowq.runtime.queue import find_connection  # noqa: PLC0415 - imports RQ

    if isinstance(explicit, str):
        return _connect_once(explicit)
    connection = explicit if explicit is not None else find_connection()
    if connection is not None:
        refuse_unusable(connection)
        return connection
    url = server.resolve_url(None)
    if url is None:
        raise UsageError(
            "there is no connection to a Redis server: pass connection=, call flowq.connect(url), "
            "or set FLOWQ_REDIS_URL (or RQ_REDIS_URL); or put the calls into a block `with "
            "flowq.local(workers=2):`, which runs a private server and workers for the block"
        )
    return _connect_once(url)


def get_future(job_id: str, connection: Redis | str | None = None) -> Job:
    """Return a future job by its id. Errors: JobNotFound; NotAFutureJob; as `get_connection`."""
    from flowq.runtime import futures  # noqa: PLC0415 - imports RQ

    return futures.get_future(job_id, get_connection(connection))


def release_job(job: RQJob | str, connection: Redis | str | None = None) -> bool:
    """Release a future job, given itself or its id; see `Job.release`.

    Errors: UsageError for other types, and as `get_connection`.
    """
    from flowq.runtime.job import release_job  # noqa: PLC0415 - imports RQ

    needs_none = connection is None and not isinstance(job, str)
    return release_job(job, None if needs_none else get_connection(connection))


@lru_cache(maxsize=16)
def _connect_once(url: str) -> Redis:
    return server.connect(url)


class Verb(Protocol[P, T_co]):
    """`.enqueue` or `.open` of a decorated function; a test compares the names with `Options`."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co: ...
    @overload
    def __call__(self, *args: Any, queue: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, connection: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, needs: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, blocks: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, blocked_by: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, deferred: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, on_blocker_failure: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, if_empty: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, start_when: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, cancel_rest: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, timeout: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, retries: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, description: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, depends_on: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, at_front: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, job_id: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, unique: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, result_ttl: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, ttl: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, failure_ttl: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, meta: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, repeat: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, rate_limit: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, on_success: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, on_failure: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, on_stopped: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(self, *args: Any, webhooks: Any, **kwargs: Any) -> T_co: ...
