"""Our functions on the server: those of versions that no worker uses any more are removed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError
from rq.utils import as_text

from flowq.runtime import keys, scripts
from flowq.runtime.clocks import read_clock
from flowq.runtime.patience import is_refusal

if TYPE_CHECKING:
    from redis import Redis

UNUSED_S = 86_400.0
"""After so much time without a worker that uses it a function is removed. It does no harm when
somebody calls it after all: it is loaded again (`flowq.runtime.scripts.HotScript`)."""


def remove_unused_functions(connection: Redis, unused_s: float = UNUSED_S) -> list[str]:
    """Note that we use our functions; remove those of flowq that no worker has used for long.

    Every worker calls this now and then. Returns the names of those that were removed; none on a
    server without functions, or that does not let us list them.
    """
    now = read_clock(connection)
    loaded = list_functions(connection)
    if not loaded:
        return []
    own = {script.function for script in scripts.HOT}
    with connection.pipeline() as pipeline:
        # One that nobody has spoken of yet may be in use by workers of another version.
        pipeline.zadd(keys.FUNCTIONS, dict.fromkeys(loaded, now), nx=True)
        if own & loaded:
            pipeline.zadd(keys.FUNCTIONS, dict.fromkeys(own & loaded, now))
        pipeline.expire(keys.FUNCTIONS, int(2 * UNUSED_S))
        pipeline.execute()
    unused: Any = connection.zrangebyscore(keys.FUNCTIONS, 0, now - unused_s)
    names = [as_text(name) for name in unused]
    delete_functions(connection, set(names) & loaded)
    if names:
        connection.zrem(keys.FUNCTIONS, *names)
    return sorted(set(names) & loaded)


def list_functions(connection: Redis) -> set[str]:
    """Return the names of flowq's functions on the server, of whatever version."""
    try:
        answer: Any = connection.function_list("flowq_*")
    except ResponseError as error:
        if is_refusal(error):
            raise
        return set()  # the server has none, or we may not ask
    libraries = [each if isinstance(each, dict) else _pairs(each) for each in answer]
    return {
        as_text(value)
        for library in libraries
        for name, value in library.items()
        if as_text(name) == "library_name"
    }


def _pairs(flat: list[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def delete_functions(connection: Redis, names: Iterable[str]) -> None:
    """Remove functions from the server. Idempotent."""
    for name in names:
        with suppress(ResponseError):  # somebody was faster
            connection.function_delete(name)
