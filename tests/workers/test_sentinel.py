"""A primary that sentinels watch, and a fail-over in mid-job."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import worker_jobs
from redis.exceptions import RedisError
from redis.sentinel import Sentinel
from rq.job import JobStatus

from flowq.runtime.queue import Queue
from flowq.server import discovery
from flowq.server.embedded import find_binary
from flowq.workers.address import address_of
from tests import JOBS_FOLDER

Wait = Callable[..., None]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Servers:
    """A primary, a replica and a sentinel."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.primary_port, self.replica_port, self.sentinel_port = (free_port() for _ in range(3))
        self.primary = self._run("primary", self.primary_port)
        self._run("replica", self.replica_port, f"replicaof 127.0.0.1 {self.primary_port}")

    def watch(self) -> Sentinel:
        """Start the sentinel when the replica is there."""
        config = (
            f"sentinel monitor flows 127.0.0.1 {self.primary_port} 1\n"
            "sentinel down-after-milliseconds flows 300\n"
            "sentinel failover-timeout flows 2000\n"
        )
        self._run("sentinel", self.sentinel_port, config, "--sentinel")
        return Sentinel([("127.0.0.1", self.sentinel_port)], sentinel_kwargs={"socket_timeout": 1})

    def _run(self, name: str, port: int, more: str = "", *options: str) -> subprocess.Popen[bytes]:
        folder = self._folder / name
        folder.mkdir()
        config = folder / "conf"
        config.write_text(f'port {port}\nbind 127.0.0.1\ndir {folder}\nsave ""\n{more}\n')
        if not options:
            with config.open("a") as file:
                file.write("repl-diskless-sync-delay 0\n")
        command = [str(find_binary()), str(config), *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


def answers(connection: redis.Redis) -> bool:
    try:
        return bool(connection.ping())
    except RedisError:
        return False


def primary_of(sentinel: Sentinel) -> int | None:
    try:
        return int(sentinel.discover_master("flows")[1])
    except RedisError:  # there is none for a moment
        return None


@pytest.fixture
def servers(tmp_path: Path, wait_until: Wait) -> Iterator[Servers]:
    with ExitStack() as stack:
        servers = Servers(tmp_path, stack)
        replica = redis.Redis(port=servers.replica_port)
        wait_until(lambda: answers(replica), 10)
        wait_until(lambda: replica.info("replication")["master_link_status"] == "up", 10)
        yield servers


def test_a_fail_over_in_mid_job_is_survived(
    servers: Servers, wait_until: Wait, tmp_path: Path
) -> None:
    sentinel = servers.watch()
    wait_until(lambda: len(sentinel.discover_slaves("flows")) == 1, 15)
    connection = sentinel.master_for("flows", socket_timeout=1)
    queue = Queue(connection=connection)
    began, go = tmp_path / "began", tmp_path / "go"
    job = queue.enqueue(worker_jobs.touch_and_wait, str(began), str(go))
    code = (
        "import sys; from redis.sentinel import Sentinel; from flowq.workers import Worker\n"
        f"s = Sentinel([('127.0.0.1', {servers.sentinel_port})])\n"
        "c = s.master_for('flows', socket_timeout=1)\n"
        f"Worker(['default'], connection=c, mode='warm', paths=[{JOBS_FOLDER!r}]).work()\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_until(began.exists, 15)
        servers.primary.kill()
        go.touch()
        wait_until(lambda: primary_of(sentinel) == servers.replica_port, 15)
        wait_until(lambda: answers(connection) and job.get_status() is JobStatus.FINISHED, 15)
        again = queue.enqueue(worker_jobs.nothing)
        wait_until(lambda: again.get_status() is JobStatus.FINISHED, 5)
    finally:
        worker.kill()
        worker.wait()


RUN = """
name: far
inputs: {began: {type: str}, go: {type: str}}
jobs:
  wait:
    call: worker_jobs:touch_and_wait
    with: {began: "${{ inputs.began }}", go: "${{ inputs.go }}"}
  add: {call: worker_jobs:add, with: {a: 1, b: 2}, needs: wait}
"""


def test_a_run_whose_url_names_the_sentinels_survives_a_fail_over(
    servers: Servers, wait_until: Wait, tmp_path: Path
) -> None:
    sentinel = servers.watch()
    wait_until(lambda: len(sentinel.discover_slaves("flows")) == 1, 15)
    (tmp_path / "far.yaml").write_text(RUN)
    began, go = tmp_path / "began", tmp_path / "go"
    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{servers.sentinel_port}/flows/2"
    inputs = ["-i", f"began={began}", "-i", f"go={go}"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWQ_", "RQ_"))}
    run = subprocess.Popen(
        [sys.executable, "-m", "flowq", "run", "far.yaml", "-c", "1", "--json", *inputs],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": JOBS_FOLDER, "FLOWQ_REDIS_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(began.exists, 20)
        servers.primary.kill()
        wait_until(lambda: primary_of(sentinel) == servers.replica_port, 15)
        go.touch()
        out, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 0, err
    assert json.loads(out)["jobs"]["add"]["result"] == 3
    assert "db2" in redis.Redis(port=servers.replica_port).info("keyspace")


def test_the_address_of_a_cluster_can_be_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "PREFIX", "{flows}")
    client = discovery.make_client(
        "redis+cluster://me:pw@10.0.0.1:7001,[::1]:7002?socket_timeout=3"
    )
    copy = pickle.loads(pickle.dumps(address_of(client)))
    manager = copy.connect().connection_pool.sentinel_manager
    assert manager.nodes == (("10.0.0.1", 7001), ("::1", 7002))
    assert manager.options["password"] == "pw"
    assert copy.options["socket_timeout"] == 3


def test_the_address_of_a_sentinels_primary_can_be_pickled() -> None:
    sentinel = Sentinel([("10.0.0.1", 26379), ("10.0.0.2", 26379)])
    address = address_of(sentinel.master_for("flows", db=3))
    copy = pickle.loads(pickle.dumps(address))
    assert copy.sentinels == (("10.0.0.1", 26379), ("10.0.0.2", 26379))
    assert copy.service == "flows"
    assert copy.connect().connection_pool.connection_kwargs["db"] == 3


def test_the_address_of_a_plain_connection_can_be_pickled(connection: redis.Redis) -> None:
    copy = pickle.loads(pickle.dumps(address_of(connection)))
    assert copy.connect().ping()
