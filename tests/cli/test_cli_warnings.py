"""A server that may lose jobs is reported at the start, once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from tests.cli.commands import Said

PERSISTENCE = "flowq: warning: the server keeps nothing on disk"
EVICTION = "flowq: warning: the server may throw jobs away"


@pytest.fixture
def evicting(connection: Redis) -> Redis:
    connection.config_set("maxmemory-policy", "allkeys-lru")
    return connection


@pytest.mark.parametrize(
    "words", [("worker", "--burst"), ("run", "sandwich.yaml", "--detach")], ids=["worker", "run"]
)
def test_a_server_that_may_lose_jobs_is_warned_about_once(
    call: Callable[..., Said], evicting: Redis, redis_url: str, words: tuple[str, ...]
) -> None:
    try:
        said = call(*words, "--redis-url", redis_url)
    finally:
        evicting.config_set("maxmemory-policy", "noeviction")
    assert said.err.count(PERSISTENCE) == 1
    assert said.err.count(EVICTION) == 1
