"""Waiting for a server that is away for a moment: it restarts, or another one takes over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

PATIENCE_S = 15.0
PAUSE_S = 0.05

Result = TypeVar("Result")


def patiently(do: Callable[[], Result], within_s: float = PATIENCE_S) -> Result:
    """Do what needs the server and may be done twice; again for as long as the server is away.

    Blocks: up to `within_s` after it turned out to be away, which may take a connection's whole
    limit. Errors: redis-py's when the server does not answer, or refuses us.
    """
    deadline: float | None = None
    while True:
        try:
            return do()
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            deadline = deadline or time.monotonic() + within_s
            if isinstance(error, AuthenticationError) or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_S)
