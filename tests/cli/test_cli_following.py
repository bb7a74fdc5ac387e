"""What a job prints, seen while it runs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from flowq import client
from tests.cli.commands import Flowq, Said


@pytest.fixture
def door(
    flowq: Flowq, folder: Path, redis_url: str, wait_until: Callable[..., None]
) -> Iterator[subprocess.Popen[str]]:
    """`flowq run -v` of a workflow that waits for the file `key`, once it really does."""
    words = ["door.yaml", "-i", f"file={folder}/key", "--redis-url", redis_url, "-c", "1"]
    process = flowq.start("run", *words, "-v")
    wait_until((folder / "key.started").exists, within_s=20)
    yield process
    (folder / "key").touch()


def test_a_job_is_followed_while_it_runs_and_to_its_end(
    flowq: Flowq,
    door: subprocess.Popen[str],
    folder: Path,
    connection: Redis,
    redis_url: str,
) -> None:
    (run,) = client.list_runs(connection, 1)
    following = flowq.start("show", run.run_id, "wait", "--follow", "--redis-url", redis_url)
    assert following.stdout is not None
    assert following.stdout.readline() == "at the door\n"
    assert door.stdout is not None
    assert any("wait | at the door" in line for line in door.stdout)

    assert not (folder / "key").exists()  # so it had not ended
    (folder / "key").touch()
    stdout, stderr = following.communicate(timeout=20)
    assert (following.returncode, stdout, stderr) == (0, "inside\n", "")
    assert "wait | inside" in door.communicate(timeout=20)[0]


def test_following_an_ended_job_prints_all_of_it_and_says_by_the_code_how_it_ended(
    flowq: Flowq,
) -> None:
    hint = flowq("run", "burnt.yaml").stdout.splitlines()[-1]  # the rest: flowq show RUN toast
    run_id = hint.split()[4]
    burnt = flowq("show", run_id, "toast", "-f")
    assert burnt.stdout == "".join(f"minute {minute}\n" for minute in range(1, 31))
    assert burnt.returncode == 1
    assert flowq("show", run_id, "wash", "-f").returncode == 0


def test_only_a_job_can_be_followed(call: Callable[..., Said], redis_url: str) -> None:
    answer = call("show", "k3v9x0q2m5ab", "-f", "--redis-url", redis_url)
    assert (answer.code, answer.out) == (2, "")
    assert "for one job" in answer.err
