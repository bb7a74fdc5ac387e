"""The pytest plugin: fixtures for tests against a real, private server.

pytest loads it in every session of an environment in which flowq is installed, so it imports only
pytest and the standard library; a fixture imports what it needs. Each process of pytest-xdist has a
server of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from redis import Redis

    from flowq.server import Server
    from flowq.testing.worker import TestedQueues


@pytest.fixture(scope="session")
def flowq_server() -> Iterator[Server]:
    """A private server for the test session: `.url`, `.connect()`. It keeps nothing."""
    from flowq import server  # noqa: PLC0415 - see above

    with server.temporary() as started:
        yield started


@pytest.fixture
def flowq_connection(flowq_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    """A connection to the private server, which is empty.

    During the test, `FLOWQ_REDIS_URL` names that server, so the code under test finds it too.
    """
    from flowq.runtime import listening  # noqa: PLC0415 - see above

    monkeypatch.setenv("FLOWQ_REDIS_URL", flowq_server.url)
    monkeypatch.setattr(listening, "advisers", [*listening.advisers, _advise])
    connection = flowq_server.connect()
    connection.flushall()
    yield connection
    connection.close()


def _advise(connection: Redis, queues: Sequence[str]) -> str:
    """Say what executes jobs in a test, instead of the command that starts a worker."""
    return "use the fixture flowq_worker: drain() executes them, start() starts a worker"


@pytest.fixture
def flowq_worker(flowq_server: Server, flowq_connection: Redis) -> Iterator[TestedQueues]:
    """Who executes the jobs: `drain()` in this process, `start()` in processes of their own."""
    from flowq.testing.worker import TestedQueues  # noqa: PLC0415 - see above

    queues = TestedQueues(flowq_connection, flowq_server.url)
    yield queues
    queues.stop()
