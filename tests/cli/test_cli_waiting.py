"""Commands and a server that refuses: they wait, say so once, and say at last how to go on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from flowq import client
from tests.cli.commands import Flowq, Said

Call = Callable[..., Said]


@pytest.fixture
def door(
    flowq: Flowq, folder: Path, url: str, wait_until: Callable[..., None]
) -> subprocess.Popen[str]:
    """`flowq run` of a workflow that waits for the file `key`, once it really does."""
    words = ["door.yaml", "-i", f"file={folder}/key", "--redis-url", url, "-c", "1"]
    process = flowq.start("run", *words, FLOWQ_PATIENCE="1")
    wait_until((folder / "key.started").exists, within_s=20)
    return process


@contextmanager
def full(operator: redis.Redis) -> Iterator[None]:
    operator.config_set("maxmemory", 1)
    yield
    operator.config_set("maxmemory", 0)


def test_a_run_is_followed_through_a_refusal(
    door: subprocess.Popen[str], folder: Path, operator: redis.Redis
) -> None:
    assert door.stderr is not None
    with full(operator):
        assert any("cannot be used" in line for line in door.stderr)
        (folder / "key").touch()
    stdout, stderr = door.communicate(timeout=60)
    assert door.returncode == 0, stderr
    assert "cannot be used" not in stderr
    assert "run succeeded" in stdout


def test_a_run_that_is_given_up_is_named_with_the_command_that_follows_it(
    call: Call, door: subprocess.Popen[str], folder: Path, operator: redis.Redis, url: str
) -> None:
    (run,) = client.list_runs(operator, 1)
    command = f"watch {run.run_id} --redis-url {url}"
    with full(operator):
        _, stderr = door.communicate(timeout=60)
        assert door.returncode == 4
        *_, waits, named, error = stderr.splitlines()
        assert stderr.count("waiting for it") == 1
        assert "cannot be used: its memory is full" in waits
        assert f"run {run.run_id} goes on" in named
        assert f"flowq {command}" in named
        assert "its memory is full (maxmemory); raise that" in error
        (folder / "key").touch()
    assert call(*command.split()).code == 0


@pytest.mark.parametrize("words", [("cancel", "RUN"), ("doctor",), ("run", "ask.yaml", "--detach")])
def test_a_command_waits_and_says_so_once(
    flowq: Flowq, call: Call, operator: redis.Redis, url: str, words: tuple[str, ...]
) -> None:
    run = call("run", "ask.yaml", "--detach", "-q", "--redis-url", url).out.strip()
    with full(operator):
        named = [run if word == "RUN" else word for word in words]
        process = flowq.start(*named, "--redis-url", url)
        assert process.stderr is not None
        begun = next(line for line in process.stderr if "cannot be used" in line)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "memory is full" in begun
    assert stderr.count("can be used again") == 1
    assert "cannot" not in stderr


def test_a_command_that_waited_in_vain_has_done_nothing(
    flowq: Flowq, operator: redis.Redis, url: str
) -> None:
    with full(operator):
        done = flowq("run", "ask.yaml", "--detach", "--redis-url", url, FLOWQ_PATIENCE="0.2")
    assert done.returncode == 4
    assert client.list_runs(operator) == []


@pytest.mark.parametrize("name", ["FLOWQ_PATIENCE", "FLOWQ_LEASE"])
@pytest.mark.parametrize("text", ["long", "nan"])
def test_a_variable_that_is_no_number_of_seconds_is_named_at_once(
    flowq: Flowq, operator: redis.Redis, url: str, name: str, text: str
) -> None:
    for words in (("run", "ask.yaml", "-c", "1"), ("runs",)):
        done = flowq(*words, "--redis-url", url, **{name: text})
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{name} must be a number of seconds" in done.stderr
        assert f"not '{text}'" in done.stderr
        assert done.stderr.count("\n") == 1
    assert client.list_runs(operator) == []
