"""The users of a Redis that docs/security.md shows: what they can do, and what not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoPermissionError

from flowq.workers import Worker
from tests.cli.commands import Said

DOCS = Path(__file__).parents[2] / "docs" / "security.md"
WORKFLOW = """
name: w
jobs:
  a: {run: [echo, hi]}
  many: {for_each: [1, 2], run: [echo, "${{ item }}"]}
  bad: {run: exit 1, retries: 1, continue_on_error: true}
  pid: {call: "os:getpid", needs: [a, many, bad], if: always()}
"""


@pytest.fixture
def users(connection: redis.Redis) -> Iterator[dict[str, str]]:
    """The rules of the page by the names of their users."""
    rules = dict(re.findall(r"^ACL SETUSER (\w+) on >\S+ (.+)$", DOCS.read_text("utf-8"), re.M))
    for name, rule in rules.items():
        connection.execute_command("ACL", "SETUSER", name, "on", ">pw", *rule.split())
    connection.execute_command("ACL", "LOG", "RESET")
    yield rules
    connection.execute_command("ACL", "DELUSER", *rules)


@pytest.fixture
def url_of(users: dict[str, str], redis_url: str) -> Callable[[str], str]:
    """`url_of(user)`: the URL of the server for that user."""
    return lambda user: redis_url.replace("unix://", f"unix://{user}:pw@")


def test_one_user_submits_and_works_off_and_the_other_looks_and_changes_nothing(
    url_of: Callable[[str], str], call: Callable[..., Said], connection: redis.Redis, folder: Path
) -> None:
    (folder / "w.yaml").write_text(WORKFLOW)
    run_id = call("run", "w.yaml", "--detach", "--redis-url", url_of("flows")).out.strip()
    worker = Worker(
        ["default"],
        connection=redis.Redis.from_url(url_of("flows")),
        mode="warm",
        allow=["os.getpid"],
        allow_run=True,
    )
    worker.work(burst=True, logging_level="CRITICAL")
    looking = ("--redis-url", url_of("looks"))
    assert "succeeded" in call("status", run_id, *looking).out
    assert "hi" in call("show", run_id, "a", *looking).out
    for words in (["runs"], ["wip"], ["workers"], ["explain", run_id, "pid"]):
        assert call(*words, *looking).code == 0, words
    before = connection.dump(f"rq:flowq:1:run:{run_id}")
    assert call("retry", run_id, *looking).code != 0
    assert connection.dump(f"rq:flowq:1:run:{run_id}") == before

    # Whether the server evicts or persists is looked at for a warning only.
    log = connection.acl_log()
    refused = {each["object"] for each in log if each["username"] == "flows"}
    assert refused <= {"config|get"}


def test_nobody_of_them_gets_at_other_keys_or_at_the_server(
    users: dict[str, str], url_of: Callable[[str], str], connection: redis.Redis
) -> None:
    connection.set("other", "1")
    connection.set("rq:other", "1")
    for name in users:
        user = redis.Redis.from_url(url_of(name))
        for words in (
            ["GET", "other"],
            ["SET", "other", "2"],
            ["EVAL", "return redis.call('GET', 'other')", "0"],
            ["CONFIG", "GET", "*"],
            ["FLUSHALL"],
            ["KEYS", "*"],
            ["ACL", "LIST"],
            ["SHUTDOWN"],
            ["MONITOR"],
            ["SUBSCRIBE", "other"],
        ):
            with pytest.raises(redis.ResponseError, match=r"(?i)permission"):
                user.execute_command(*words)
        if name == "looks":
            for words in (["SET", "rq:other", "2"], ["DEL", "rq:other"], ["EVAL", "return 1", "0"]):
                with pytest.raises(NoPermissionError):
                    user.execute_command(*words)
        assert user.get("rq:other") == b"1"
        user.close()
