"""What a job prints, seen while it runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from flowq import client
from flowq.runtime import keys
from flowq.workers import Worker
from tests.cli.commands import Flowq, Said
from tests.workers.test_true_times import start_run


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
    stdout, stderr = following.communicate(timeout=60)
    assert (following.returncode, stdout, stderr) == (0, "inside\n", "")
    assert "wait | inside" in door.communicate(timeout=60)[0]


def test_following_an_ended_job_prints_all_of_it_and_says_by_the_code_how_it_ended(
    flowq: Flowq,
) -> None:
    hint = flowq("run", "burnt.yaml").stdout.splitlines()[-1]  # the rest: flowq show RUN toast
    run_id = hint.split()[4]
    burnt = flowq("show", run_id, "toast", "-f")
    assert burnt.stdout == "".join(f"minute {minute}\n" for minute in range(1, 31))
    assert burnt.returncode == 1
    assert flowq("show", run_id, "wash", "-f").returncode == 0


def test_jobs_of_workers_on_two_hosts_are_followed_from_a_third(
    flowq: Flowq, tmp_path: Path, connection: Redis, redis_url: str, call: Callable[..., Said]
) -> None:
    go = tmp_path / "go"
    wait = f"while [ ! -e {go} ]; do sleep 0.05; done"
    jobs = {
        name: {"run": f"echo {name} begins; {wait}; echo {name} ends >&2", "queue": name}
        for name in ("one", "two")
    }
    start_run(connection, json.dumps({"name": "hosts", "jobs": jobs}))
    for name in jobs:  # as far as a worker can tell, each is on a host of its own
        host = tmp_path / name
        (host / "tmp").mkdir(parents=True)
        env = {"FLOWQ_STATE": str(host / "state"), "TMPDIR": str(host / "tmp")}
        flowq.start("worker", name, "--burst", "--redis-url", redis_url, **env)
    followers = [
        flowq.start("show", "r", name, "-f", "--redis-url", redis_url, HOME=str(tmp_path))
        for name in jobs
    ]
    for name, follower in zip(jobs, followers, strict=True):
        assert follower.stdout is not None
        assert follower.stdout.readline() == f"{name} begins\n"
    assert not go.exists()
    go.touch()
    for name, follower in zip(jobs, followers, strict=True):
        assert follower.communicate(timeout=60) == (f"{name} ends\n", "")
        assert follower.returncode == 0
    document = json.loads(call("show", "r", "one", "--json", "--redis-url", redis_url).out)
    assert document["job"]["output"] == [
        {
            "attempt": 1,
            "head": ["one begins", "one ends"],
            "tail": [],
            "bytes": 20,
            "dropped_bytes": 0,
            "note": None,
        }
    ]


def test_a_job_of_an_older_worker_is_said_to_have_its_output_there(
    connection: Redis, redis_url: str, call: Callable[..., Said]
) -> None:
    start_run(connection, json.dumps({"name": "old", "jobs": {"a": {"run": "true"}}}))
    worker = Worker(["default"], name="old", connection=connection, mode="warm")
    worker.work(burst=True, logging_level="ERROR")
    follow = ("show", "r", "a", "-f", "--redis-url", redis_url)
    assert call(*follow).err == "flowq: a has printed nothing\n"
    connection.hset(keys.worker("old"), mapping={"birth": "now", "flowq_mode": "warm"})
    connection.hdel(keys.worker("old"), keys.KEEPS_OUTPUT_FIELD)
    assert "its worker belongs to an older version of flowq, which keeps it on its host" in (
        call(*follow).err
    )


def test_only_a_job_can_be_followed(call: Callable[..., Said], redis_url: str) -> None:
    answer = call("show", "k3v9x0q2m5ab", "-f", "--redis-url", redis_url)
    assert (answer.code, answer.out) == (2, "")
    assert "for one job" in answer.err
