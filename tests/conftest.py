"""One private server for the whole test run, empty at the beginning of each test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import redis

from flowq import server


@pytest.fixture(scope="session")
def test_server() -> Iterator[server.Server]:
    """A real server on a Unix socket of its own; it ends with the test run, however that ends."""
    with server.temporary() as started:
        yield started


@pytest.fixture
def redis_url(test_server: server.Server, connection: redis.Redis) -> str:
    """The URL of the (emptied) test server, for commands and other processes."""
    return test_server.url


@pytest.fixture
def connection(test_server: server.Server) -> Iterator[redis.Redis]:
    """A connection to the test server, whose databases are empty."""
    connected = test_server.connect()
    connected.flushall()
    yield connected
    connected.close()


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """`wait_until(predicate, within_s=5)`: fail when the predicate does not become true in time."""

    def wait(predicate: Callable[[], object], within_s: float = 5.0) -> None:
        deadline = time.monotonic() + within_s
        while not predicate():
            if time.monotonic() > deadline:
                pytest.fail(f"it did not happen within {within_s} s: {predicate}")
            time.sleep(0.005)

    return wait
