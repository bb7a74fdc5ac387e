"""What a decorated function is to a type checker.

A call of `.enqueue` and `.open` without options is checked against the function's parameters. With
an option beside them nobody can say that in types, so there the arguments are not checked; where
the options stand apart (`.options(…).enqueue(…)`) they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, Unpack, overload

from flowq.functions.options import Options

if TYPE_CHECKING:
    from flowq.functions.calls import JobCall
    from flowq.runtime.job import Job

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)


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
