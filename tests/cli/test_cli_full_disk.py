"""Commands on a private server whose disk is full.

The limit of a process for the size of its files stands for the size of the disk: to a server that
ignores the signal, as flowq's does, a write beyond it is an error like any other.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import redis

from flowq import server
from flowq.server.state import find
from tests.cli.commands import Flowq

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="others cannot limit a process")

READING = (
    ("runs",),
    ("status", "RUN"),
    ("show", "RUN"),
    ("show", "RUN", "serve"),
    ("explain", "RUN"),
    ("watch", "RUN"),
    ("wip",),
)
CHANGING = (("run", "sandwich.yaml"), ("release", "RUN"), ("doctor",), ("worker", "--burst"))


@pytest.fixture
def run_id(flowq: Flowq) -> str:
    """A run that has ended, in the data of the private server."""
    done = flowq("run", "sandwich.yaml", "--json")
    assert done.returncode == 0, done.stderr
    return flowq("runs").stdout.splitlines()[1].split()[0]


@pytest.fixture
def full(flowq: Flowq, run_id: str, wait_until: Callable[..., None]) -> Iterator[None]:
    """The server's disk is full."""
    with server.ensure(flowq.folder, idle_s=60).connect() as connection:
        pid = int(connection.info("server")["process_id"])
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
        wait_until(lambda: is_refused(connection))
        yield
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        wait_until(lambda: not is_refused(connection))


def is_refused(connection: redis.Redis) -> bool:
    try:
        connection.incr("something")
    except redis.ResponseError:
        return True
    return False


@pytest.mark.usefixtures("full")
def test_reading_commands_work_and_the_others_say_that_the_disk_is_full(
    flowq: Flowq, run_id: str
) -> None:
    for words in READING:
        done = flowq(*(run_id if word == "RUN" else word for word in words))
        assert (done.returncode, done.stderr) == (0, ""), (words, done.stderr)
    for words in CHANGING:
        named = (run_id if word == "RUN" else word for word in words)
        done = flowq(*named, FLOWQ_PATIENCE="0.2")
        assert done.returncode in (4, 5), words
        if done.returncode == 4:
            assert "cannot be used: it cannot write to its disk, which may be full" in done.stderr
            assert "Traceback" not in done.stderr


def test_a_server_starts_on_a_full_disk_for_commands_that_read(flowq: Flowq, run_id: str) -> None:
    server.ensure(flowq.folder).stop()
    looked = on_full_disk(flowq, "status", run_id)
    assert looked.returncode == 0, looked.stderr
    assert "3/3" in looked.stdout
    refused = on_full_disk(flowq, "run", "sandwich.yaml")
    assert refused.returncode == 4
    assert "disk" in refused.stderr


def test_a_new_folder_on_a_full_disk_is_refused_with_the_reason(flowq: Flowq) -> None:
    refused = on_full_disk(flowq, "run", "sandwich.yaml")
    assert refused.returncode == 4
    assert f"File too large: {find(flowq.folder).path}" in refused.stderr


def on_full_disk(flowq: Flowq, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command that can write to no file, and whose server cannot either."""
    code = (
        "import resource, runpy, sys; sys.dont_write_bytecode = True; sys.argv[0] = 'flowq'; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY)); "
        "runpy.run_module('flowq', run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=flowq.folder,
        env={**flowq.env, "FLOWQ_PATIENCE": "0.2"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
