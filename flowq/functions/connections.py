"""The connection that a call uses, by the first rule that gives one."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from flowq import server
from flowq.errors import UsageError

if TYPE_CHECKING:
    from redis import Redis


def connect(url: str) -> Redis:
    """Connect to a server and make it the default of this process.

    Blocks: until the server has answered. Errors: ServerUnavailable; the default stays as it was.
    """
    from flowq.runtime.connections import remember  # noqa: PLC0415 - imports RQ

    connection = server.connect(url)
    remember(connection)
    return connection


def get_connection(explicit: Redis | str | None = None) -> Redis:
    """Return the connection to use, the first of these that there is.

    1. `explicit`, a client or a URL; 2. that of the job that is running here; 3. that of
    `flowq.connect(url)`; 4. FLOWQ_REDIS_URL; 5. RQ_REDIS_URL. No server is ever started.

    Blocks: until a server named by a URL has answered once. Errors: UsageError when there is none
    of these; ServerUnavailable.
    """
    from flowq.runtime.connections import find_connection  # noqa: PLC0415 - imports RQ

    if isinstance(explicit, str):
        return _connect_once(explicit)
    connection = explicit if explicit is not None else find_connection()
    if connection is not None:
        return connection
    url = server.resolve_url(None)
    if url is None:
        raise UsageError(
            "there is no connection to a Redis server: pass connection=, call flowq.connect(url), "
            "or set FLOWQ_REDIS_URL (or RQ_REDIS_URL)"
        )
    return _connect_once(url)


@lru_cache(maxsize=16)
def _connect_once(url: str) -> Redis:
    return server.connect(url)
