"""Servers that want a password, a socket, or TLS, from a URL to the end of a run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from flowq import client, server, workers
from flowq.errors import ServerUnavailable
from flowq.runtime.queue import Queue
from flowq.server.connection import server_errors
from tests.workers.real_servers import Servers, Started, TlsProxy

WORKFLOWS = Path(__file__).parents[2] / "workflows"

RIGHTS = (
    "~rq:* &rq:* &__redis__:invalidate "
    "+@read +@write +@connection +@transaction +@scripting +@pubsub -@dangerous +info +time"
)
"""What docs/security.md says that a user needs."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kinds")
    for file in WORKFLOWS.glob("gallery*"):
        shutil.copy(file, place)
    return place


@pytest.fixture(scope="module")
def socket_path() -> Iterator[Path]:
    """Where a socket can be: its path may have about a hundred bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        yield Path(place) / "server.sock"


@pytest.fixture(scope="module")
def started(folder: Path, socket_path: Path) -> Iterator[Started]:
    """A server on which nobody may do anything but a user with the least rights."""
    config = (
        f"unixsocket {socket_path}\nuser default off\nuser admin on >all ~* &* +@all\n"
        f"user flows on >s3cr3t {RIGHTS}"
    )
    with Servers(folder) as servers:
        yield servers.start(config=config, username="admin", password="all")


@pytest.fixture(scope="module")
def proxy(folder: Path, started: Started) -> Iterator[TlsProxy]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    made = TlsProxy(folder, started.port)
    yield made
    made.close()


def flowq(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLOWQ_", "RQ_"))}
    return subprocess.run(
        [sys.executable, "-m", "flowq", *words],
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def work_at(url: str) -> None:
    """Let a worker run a small graph, in this process and its children."""
    with server.connect(url) as connection:
        queue = Queue(connection=connection)
        total = queue.enqueue("operator.add", 1, 2, deferred=True)
        for number in range(3):
            queue.enqueue("math.factorial", number, blocked_by=total)
        total.release()
        workers.main(url=url, burst=True, mode="multiprocessing", quiet=True)
        assert total.return_value() == 3


def test_a_user_with_the_rights_that_are_documented_can_do_all(
    folder: Path, started: Started
) -> None:
    started.connection.acl_log_reset()
    url = f"redis://flows:s3cr3t@127.0.0.1:{started.port}/3"
    ran = flowq(folder, "run", "gallery.yaml", "-c", "2", "--json", "--redis-url", url)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["status"] == "succeeded"
    looked = flowq(folder, "doctor", "--redis-url", url)
    assert looked.returncode == 0, looked.stderr
    refused = {entry["object"] for entry in started.connection.acl_log()}
    assert refused <= {"config|get"}  # without which a warning is missing
    numbered = started.connection.info("keyspace")
    assert "db3" in numbered


def test_the_rights_are_those_of_the_page() -> None:
    page = (WORKFLOWS.parent / "docs" / "security.md").read_text("utf-8")
    assert f"ACL SETUSER flows on >PASSWORD {RIGHTS}\n" in page


def test_and_nothing_else(started: Started) -> None:
    with server.connect(f"redis://flows:s3cr3t@127.0.0.1:{started.port}/3") as client:
        for words in (("FLUSHALL",), ("GET", "mine"), ("CONFIG", "SET", "dir", "/"), ("KEYS", "*")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*words)


def test_a_socket_with_a_user_and_a_database(started: Started, socket_path: Path) -> None:
    work_at(f"unix://flows:s3cr3t@{socket_path}?db=4")
    assert "db4" in started.connection.info("keyspace")


def test_tls_with_a_certificate_of_ones_own(proxy: TlsProxy) -> None:
    place = f"rediss://flows:s3cr3t@127.0.0.1:{proxy.port}/5"
    work_at(f"{place}?ssl_ca_certs={proxy.certificate}")
    with pytest.raises(ServerUnavailable, match="certificate verify failed"):
        server.connect(place)


def test_a_user_without_rights_is_told_which_one_is_missing(started: Started) -> None:
    started.connection.execute_command("ACL", "SETUSER", "poor", "on", ">poor", "+@connection")
    url = f"redis://poor:poor@127.0.0.1:{started.port}/0"
    with (
        server.connect(url) as connection,
        pytest.raises(ServerUnavailable, match="has no permissions to run"),
        server_errors(url),
    ):
        client.list_runs(connection)
