"""`flowq doctor --uninstall` asks, refuses what is unfinished, and says what it has removed."""

from __future__ import annotations

import pytest
import redis
from commands import Flowq

REMOVED = "removed: runs with their jobs: 1, other keys: "


@pytest.fixture
def run_id(flowq: Flowq, redis_url: str) -> str:
    """The id of a run that nobody works on."""
    done = flowq("run", "gate.yaml", "--detach", "--redis-url", redis_url)
    return done.stdout.split()[-1]


def test_it_refuses_asks_and_removes(
    flowq: Flowq, redis_url: str, connection: redis.Redis, run_id: str
) -> None:
    words = ("doctor", "--uninstall", "--redis-url", redis_url)
    done = flowq(*words, "--yes")
    assert done.returncode == 5
    assert f"not all runs have ended ({run_id})" in done.stderr
    assert "flowq cancel" in done.stderr
    assert "--force" in done.stderr
    flowq("cancel", run_id, "--redis-url", redis_url)
    before = set(connection.keys("*"))
    done = flowq(*words)
    assert done.returncode == 2
    assert "nothing was removed; --yes does it without asking" in done.stderr
    assert set(connection.keys("*")) == before
    done = flowq(*words, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(REMOVED)
    assert connection.keys("*") == [b"rq:queues"]
    assert flowq(*words, "--yes").stdout.startswith(
        "removed: runs with their jobs: 0, other keys: 0"
    )


def test_its_options_are_refused_without_it(flowq: Flowq, redis_url: str) -> None:
    done = flowq("doctor", "--force", "--redis-url", redis_url)
    assert done.returncode == 2
    assert "--yes and --force belong to --uninstall" in done.stderr
