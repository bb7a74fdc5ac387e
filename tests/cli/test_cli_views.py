"""Looking at a run executes nothing: no pickle is loaded, whatever the folder, and no module."""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.cli.commands import Said

Call = Callable[..., Said]

FLOW = """
name: flow
outputs:
  first: ${{ jobs.make.result }}
  items: ${{ jobs.each.results }}
  bad: ${{ 1 / jobs.zero.result }}
jobs:
  make: {call: makers:make, with: {name: cup}}
  zero: {call: makers:zero}
  each: {call: makers:take, for_each: [1, 2], with: {thing: "${{ jobs.make.result }}"}}
  breaks: {call: makers:breaks, with: {why: no}, continue_on_error: true}
"""

MAKERS = """
class Cup:
    def __init__(self, name): self.name = name
    def __repr__(self): return f"Cup({self.name})"
def make(name): return Cup(name)
def zero(): return 0
def take(thing): return {"got": thing.name}
def breaks(why): raise ValueError(why)
"""


class Bomb:
    """Whoever loads it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.fixture
def run_id(call: Call, folder: Path, redis_url: str) -> str:
    """A run that has ended, whose functions are in the folder."""
    (folder / "flow.yaml").write_text(FLOW)
    (folder / "makers.py").write_text(MAKERS)
    done = call("run", "flow.yaml", "--redis-url", redis_url, "-c", "1", "--json")
    assert done.code == 0, done.err
    return str(json.loads(done.out)["run"])


LOOKS = (
    ["status", "RUN"],
    ["status", "RUN", "--json"],
    ["show", "RUN"],
    ["show", "RUN", "make"],
    ["show", "RUN", "breaks"],
    ["show", "RUN", "each[0]"],
    ["watch", "RUN"],
    ["explain", "RUN"],
    ["explain", "RUN", "breaks"],
    ["runs"],
    ["runs", "--json"],
    ["wip"],
    ["wip", "--json"],
    ["workers"],
    ["workers", "--json"],
)


def poison(connection: redis.Redis, bomb: Bomb) -> None:
    """Put the bomb wherever a pickle is kept."""
    data = pickle.dumps(bomb)
    for raw in connection.keys("rq:job:*"):
        if connection.type(raw) == b"hash":
            fields = {"meta": data, "result": data, "data": zlib.compress(data)}
            connection.hset(raw, mapping=fields)  # type: ignore[arg-type]
    for raw in connection.keys("rq:results:*"):
        entry = connection.xrevrange(raw, count=1)[0][1]
        name = b"return_value" if b"exc_string" not in entry else b"more"
        connection.xadd(raw, {**entry, name: base64.b64encode(data)})
    for raw in connection.keys("rq:flowq:1:items:*"):
        connection.hset(raw, "0", data)  # type: ignore[arg-type]


def test_looking_loads_nothing(
    call: Call,
    connection: redis.Redis,
    redis_url: str,
    run_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sign, elsewhere = tmp_path / "loaded", tmp_path / "elsewhere"
    with pytest.raises(FileExistsError):
        (sign.mkdir(), pickle.loads(pickle.dumps(Bomb(sign))))
    sign.rmdir()
    poison(connection, Bomb(sign))
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(tmp_path))])
    sys.modules.pop("makers", None)

    for words in LOOKS:
        given = (run_id if word == "RUN" else word for word in words)
        done = call(*given, "--redis-url", redis_url)

        assert done.code == 0, done.err
        assert "Traceback" not in done.err
        assert not sign.exists(), words
        assert "makers" not in sys.modules, words


def test_what_is_seen_elsewhere_is_what_the_workers_saw(
    call: Call,
    redis_url: str,
    run_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    url = ("--redis-url", redis_url)

    document = json.loads(call("status", run_id, "--json", *url).out)
    [listed] = json.loads(call("runs", "--json", *url).out)["runs"]
    assert datetime.fromisoformat(listed["submitted_at"]) <= datetime.now(UTC)
    times = ("submitted_at", "started_at", "ended_at", "duration_s")
    shared = ("run", "workflow", "status", "labels", "submitted_by", *times)
    assert listed == {key: document[key] for key in shared}
    cup = {"repr": "Cup(cup)", "type": "makers.Cup"}
    assert document["jobs"]["make"]["result"] == cup
    assert document["jobs"]["each"]["results"] == [{"got": "cup"}] * 2
    assert document["outputs"] == {"first": cup, "items": [{"got": "cup"}] * 2, "bad": None}

    said = call("status", run_id, *url).out
    assert "first = Cup(cup)" in said
    assert "bad has no value: " in said
    assert "1 / jobs.zero.result" in said

    shown = call("show", run_id, "make", *url).out
    assert "arguments:\n  name = 'cup'" in shown
    assert "result:\n  Cup(cup)" in shown
    shown = call("show", run_id, "each[0]", *url).out
    assert "thing = Cup(cup)" in shown
    shown = call("show", run_id, "breaks", *url).out
    assert "why = False" in shown or "why = 'no'" in shown
    assert "ValueError" in shown


def test_a_result_that_is_too_large_is_shown_in_part_and_says_so(
    call: Call, folder: Path, redis_url: str
) -> None:
    (folder / "long.yaml").write_text("name: long\njobs:\n  a: {call: large:make}\n")
    (folder / "large.py").write_text("def make(): return list(range(100_000))\n")
    url = ("--redis-url", redis_url)

    done = call("run", "long.yaml", "-c", "1", "--json", *url)

    document = json.loads(done.out)
    result = document["jobs"]["a"]["result"]
    assert result.items() >= {"type": "builtins.list", "truncated": True, "length": 100_000}.items()
    assert result["repr"].startswith("[0, 1, 2, ")
    assert len(done.out) < 6_000
    assert "(cut; its length is 100,000)" in call("show", document["run"], "a", *url).out
