"""Connections to any server, with errors that say what to do.

Commands, workers and the client connect here, so that each connection has the same time limits
(timeouts.py) and no error shows a password. `connect` also waits for a server that refuses to be
read; errors of later commands are converted by `server_errors`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.exceptions import (
    AuthenticationError,
    ClusterCrossSlotError,
    RedisError,
    ResponseError,
)

from flowq.errors import ServerUnavailable
from flowq.runtime.connections import (
    RetryWhileRefused,
    clock_warning,
    find_answer,
    is_refusal,
    read_clock,
)
from flowq.server import discovery
from flowq.server.timeouts import CONNECT_TIMEOUT_S, in_slices, limits
from flowq.server.url import hide_password

PING_S = 30
OLDEST = (6, 2)
SCHEMES = ("redis", "rediss", "unix")
SHAPES = (
    "this is not the URL of a server; write redis://HOST:PORT/DB, rediss://…, unix:///PATH, "
    "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB or redis+cluster://HOST:PORT,HOST:PORT"
)


def connect(
    url: str,
    *,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    retry: RetryWhileRefused | None = None,
) -> redis.Redis:
    """Return a connection to the server at `url` that has answered once.

    A server that cannot write to its disk refuses even PING, but can be read, so such a connection
    is returned: the first command that changes something raises the refusal.

    Values are bytes, as RQ needs them. Timeouts in the URL have priority. A reply that takes more
    than 30 s is an error (timeouts.py explains that); RQ's workers raise the limit for blocking
    commands.

    Blocks: up to `connect_timeout_s`; with `retry`, longer while the server refuses commands.
    Errors: ServerUnavailable.
    """
    connection = make_client(
        url,
        socket_connect_timeout=connect_timeout_s,
        health_check_interval=PING_S,
    )
    try:
        if retry is None:
            connection.ping()
        else:
            retry.apply(connection.ping, _keeps_from_reading)
    except (RedisError, OSError, UnicodeError) as error:
        if not _is_about_disk(error):
            connection.close()
            raise ServerUnavailable(hide_password(url), explain(error)) from error
    if retry is not None:
        connection.set_retry(retry)
    return connection


def _is_about_disk(error: BaseException) -> bool:
    answer = find_answer(error)
    return answer is not None and answer.word == "MISCONF"


def _keeps_from_reading(error: BaseException) -> bool:
    """Whether `connect` must wait, because the server cannot even be read."""
    if isinstance(error.__context__, BrokenPipeError | ConnectionResetError):
        return True  # it hung up at once, as a server does that has no room for another client
    return is_refusal(error) and not _is_about_disk(error)


def make_client(url: str, **options: Any) -> redis.Redis:
    """Return a client of the server at `url`, which connects with its first command.

    The URL has priority over `options` (redis-py's), and these over the limits in timeouts.py.
    Errors: ServerUnavailable if it is not the URL of a server.
    """
    try:
        if discovery.is_managed(url):
            return discovery.make_client(url, **{**limits(redis.Connection), **options})
        scheme = urlsplit(url).scheme
        if scheme not in SCHEMES:
            raise ValueError(SHAPES)
        is_socket = scheme == "unix"
        ours = limits(redis.UnixDomainSocketConnection if is_socket else redis.Connection)
        client = redis.Redis.from_url(url, **{**ours, **options})
        pool = client.connection_pool
        pool.connection_class = in_slices(pool.connection_class)
        return client
    except (ValueError, TypeError, RedisError) as error:
        # Not `from error`: its text may contain a part of the password.
        reason = str(error) if discovery.is_managed(url) else SHAPES
        raise ServerUnavailable(hide_password(url), reason) from None


def explain(error: Exception) -> str:
    """Say in one line why a server could not be used, and what to do."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS")):
        return f"it refuses the password ({text}); write redis://USER:PASSWORD@HOST:PORT/DB"
    if isinstance(error, (*discovery.ELSEWHERE, ClusterCrossSlotError)):
        return (
            "it is one node of a cluster; write redis+cluster://HOST:PORT,HOST:PORT, and set "
            "RQ_KEY_PREFIX to a name in braces, such as {rq}"
        )
    answer = find_answer(error)
    if answer is not None and answer.is_waited_for:
        return f"{answer.meaning}; {answer.advice}" if answer.advice else answer.meaning
    if isinstance(error, ResponseError):
        return f"it answers with an error: {text}"
    return text


def health(connection: redis.Redis) -> list[str]:
    """Return a warning for each setting with which the server may lose jobs, or is too old.

    Settings that a server does not show (hosted ones often refuse CONFIG) lead to no warning.
    Errors: redis-py's, if the server is gone.
    """
    checks = (_check_version, _check_eviction, _check_persistence, _check_clock)
    warnings = [check(connection) for check in checks]
    return [warning for warning in warnings if warning]


def _check_version(connection: redis.Redis) -> str:
    version = str(_info(connection, "server").get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if len(numbers) < 2 or numbers >= OLDEST:
        return ""
    return f"the server is Redis {version}, and flowq needs 6.2 or newer, or any Valkey"


def _check_eviction(connection: redis.Redis) -> str:
    policy = _info(connection, "memory").get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return ""
    return (
        f"the server may throw jobs away when its memory is full (maxmemory-policy {policy}); "
        "set maxmemory-policy noeviction"
    )


def _check_persistence(connection: redis.Redis) -> str:
    told = _info(connection, "persistence")
    if told.get("aof_enabled", 1):
        return ""
    if "flowq_fake" in told:
        return (
            "this is a fallback made of fakeredis, which keeps nothing when it ends, and is slow; "
            "put valkey-server, redis-server or memurai on the PATH"
        )
    try:
        saves = connection.config_get("save").get("save", "")
    except ResponseError:
        return ""
    if saves:
        return ""
    return (
        "the server keeps nothing on disk, so all jobs are gone when it restarts; "
        "set appendonly yes (or save)"
    )


def _check_clock(connection: redis.Redis) -> str:
    before_s = time.time()
    return clock_warning(read_clock(connection), before_s, time.time())


def _info(connection: redis.Redis, section: str) -> dict[str, Any]:
    try:
        return dict(connection.info(section))
    except ResponseError:
        return {}


@contextmanager
def server_errors(url: str) -> Iterator[None]:
    """Convert errors of the redis client, with notes, to flowq's. Errors: ServerUnavailable."""
    try:
        yield
    except RedisError as error:
        reason = "; ".join([explain(error), *getattr(error, "__notes__", ())])
        raise ServerUnavailable(hide_password(url), reason) from error
