"""What can be said of a job when it is enqueued."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from flowq.declare.options import read_retries
from flowq.durations import parse_duration
from flowq.errors import UsageError
from flowq.nearest import did_you_mean
from flowq.spec import BlockerPolicy, Retry

if TYPE_CHECKING:
    from redis import Redis
    from rq import Retry as RQRetry

    from flowq.runtime.queue import Queue


class Options(TypedDict, total=False):
    """What can be said of a job. `timeout` and the TTLs are durations; -1 is RQ's "no limit".

    `queue` is a name or a `flowq.Queue`; `connection` a client or a URL. `needs` are jobs, or their
    ids, that run before this one, beside those of RQ's `depends_on`; `blocks` (or `blocked_by`) are
    future jobs that this one runs before. What is not described here is RQ's, under RQ's name.
    """

    queue: str | Queue
    connection: Redis | str
    needs: Any
    blocks: Any
    blocked_by: Any
    deferred: bool
    on_blocker_failure: BlockerPolicy
    if_empty: Literal["run", "skip"]
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
    """Return options with durations in seconds and retries as our `Retry`, or RQ's own."""
    read = {}
    for name, value in options.items():
        if name not in OPTION_NAMES:
            hint = did_you_mean(name, sorted(OPTION_NAMES))
            raise UsageError(f"a job has no option {name!r}; {hint}")
        read[name] = _read_one(name, value)
    return read


def _read_one(name: str, value: Any) -> Any:
    reader = _READERS.get(name)
    if value is None or reader is None:
        return value
    try:
        return reader(value)
    except ValueError as error:
        raise UsageError(f"{name} {error}") from None


def _read_seconds(value: Any) -> int:
    """Return whole seconds, which is what RQ counts in; a fraction is rounded up."""
    return -1 if value == -1 else math.ceil(parse_duration(value))


def _read_retries(value: Any) -> Any:
    return value if hasattr(value, "intervals") else read_retries(value)


def _read_needs(value: Any) -> list[Any]:
    given = as_list(value)
    for each in given:
        if not (isinstance(each, str) and each) and not hasattr(each, "is_finished"):
            raise ValueError(f"takes jobs that have been enqueued, or their ids, not {each!r}")
    return given


def as_list(value: Any) -> list[Any]:
    """Return what is one or several as a list."""
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
    """Return retries as RQ has them."""
    from flowq.runtime import policies  # noqa: PLC0415 - the cost of importing RQ

    return policies.to_rq_retry(retries) if isinstance(retries, Retry) else retries
