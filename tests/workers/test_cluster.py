"""A cluster of three nodes: all keys in one slot, by a hash tag in RQ_KEY_PREFIX."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import worker_jobs

from flowq import server
from flowq.errors import ServerUnavailable
from flowq.server.connection import server_errors
from tests import JOBS_FOLDER
from tests.workers.real_servers import Servers, Started, find_owner, make_cluster, wait_until

PREFIX = "{flows}"

WORKFLOW = f"""
name: far
inputs: {{began: {{type: str}}, go: {{type: str}}}}
jobs:
  wait:
    call: {worker_jobs.__name__}:touch_and_wait
    with: {{began: "${{{{ inputs.began }}}}", go: "${{{{ inputs.go }}}}"}}
  add:
    for_each: [1, 2, 3]
    call: {worker_jobs.__name__}:add
    with: {{a: "${{{{ item }}}}", b: 1}}
    needs: wait
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Started]]:
    with Servers(tmp_path_factory.mktemp("cluster")) as servers:
        yield make_cluster(servers, replicas_of=f"{PREFIX}:queues")


@pytest.fixture
def url(nodes: list[Started]) -> str:
    """The URL names two of them, neither of which need have the slot."""
    return f"redis+cluster://127.0.0.1:{nodes[0].port},127.0.0.1:{nodes[1].port}"


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWQ_", "RQ_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "flowq", *words],
        cwd=folder,
        env={**kept, "RQ_KEY_PREFIX": PREFIX, "PYTHONPATH": JOBS_FOLDER},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_goes_through_though_its_node_changes(
    nodes: list[Started], url: str, tmp_path: Path
) -> None:
    (tmp_path / "far.yaml").write_text(WORKFLOW)
    began, go = tmp_path / "began", tmp_path / "go"
    at = ("--redis-url", url)
    worker = start(tmp_path, "worker", "-c", "2", *at)
    inputs = ("-i", f"began={began}", "-i", f"go={go}")
    run = start(tmp_path, "run", "far.yaml", "--json", *inputs, *at)
    try:
        wait_until(began.exists, 30)
        owner = find_owner(nodes, f"{PREFIX}:queues")
        nodes[3].connection.execute_command("CLUSTER FAILOVER")
        wait_until(lambda: find_owner(nodes, f"{PREFIX}:queues") is not owner, 20)
        go.touch()
        out, err = run.communicate(timeout=60)
        assert run.returncode == 0, err
        assert json.loads(out)["jobs"]["add"]["results"] == [2, 3, 4]
        look = start(tmp_path, "status", json.loads(out)["run"], *at)
        assert "succeeded" in look.communicate(timeout=60)[0]
        worker.terminate()
        assert worker.wait(60) == 0
    finally:
        for process in (worker, run):
            process.kill()
            process.communicate()


def test_without_a_hash_tag_it_is_said_which_setting_is_missing(url: str) -> None:
    with pytest.raises(ServerUnavailable, match=r"set RQ_KEY_PREFIX to a name in braces.*\{rq\}"):
        server.connect(url)


def test_a_node_by_itself_is_told_to_be_one_of_a_cluster(nodes: list[Started]) -> None:
    owner = find_owner(nodes, f"{PREFIX}:queues")
    other = next(node for node in nodes[:3] if node is not owner)
    with (
        server.connect(other.url) as connection,
        pytest.raises(ServerUnavailable, match="it is one node of a cluster; write redis"),
        server_errors(other.url),
    ):
        connection.get(f"{PREFIX}:queues")


def test_all_that_is_flowqs_can_be_removed_from_it(
    nodes: list[Started], url: str, tmp_path: Path
) -> None:
    (tmp_path / "short.yaml").write_text("name: short\njobs: {one: {run: echo}}\n")
    submitted = start(tmp_path, "run", "short.yaml", "--detach", "--redis-url", url)
    assert submitted.wait(60) == 0
    assert find_owner(nodes, f"{PREFIX}:queues").connection.keys(f"{PREFIX}:flowq:*")
    removed = start(tmp_path, "doctor", "--uninstall", "--yes", "--force", "--redis-url", url)
    out, err = removed.communicate(timeout=60)
    assert "removed: runs with their jobs: " in out, err
    wait_until(lambda: not any(_has_left(node) for node in nodes), 20)


def _has_left(node: Started) -> object:
    left = node.connection.keys(f"{PREFIX}:flowq:*") or node.connection.keys(f"{PREFIX}:job:*")
    return left or node.connection.function_list("flowq_*")
