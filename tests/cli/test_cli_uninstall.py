"""`flowq doctor --uninstall` asks, refuses what is unfinished, and says what it has removed."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
import redis

from tests.cli.commands import Said

Call = Callable[..., Said]
REMOVED = "removed: runs with their jobs: 1, other keys: "


@pytest.fixture
def run_id(call: Call, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a run that nobody works on; and nobody is there who could be asked."""
    monkeypatch.setattr("sys.stdin", StringIO())
    done = call("run", "gate.yaml", "--detach", "--redis-url", redis_url)
    return done.out.split()[-1]


def test_it_refuses_asks_and_removes(
    call: Call, redis_url: str, connection: redis.Redis, run_id: str
) -> None:
    words = ("doctor", "--uninstall", "--redis-url", redis_url)
    done = call(*words, "--yes")
    assert done.code == 5
    assert f"not all runs have ended ({run_id})" in done.err
    assert "flowq cancel" in done.err
    assert "--force" in done.err
    call("cancel", run_id, "--redis-url", redis_url)
    before = set(connection.keys("*"))
    done = call(*words)
    assert done.code == 2
    assert "nothing was removed; --yes does it without asking" in done.err
    assert set(connection.keys("*")) == before
    done = call(*words, "--yes")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(REMOVED)
    assert connection.keys("*") == [b"rq:queues"]
    assert call(*words, "--yes").out.startswith("removed: runs with their jobs: 0, other keys: 0")


def test_its_options_are_refused_without_it(call: Call, redis_url: str) -> None:
    done = call("doctor", "--force", "--redis-url", redis_url)
    assert done.code == 2
    assert "--yes and --force need --uninstall" in done.err
