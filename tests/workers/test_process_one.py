"""A worker as process 1 of a container, which inherits what the jobs leave behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import worker_jobs

from flowq.runtime.queue import Queue
from tests import JOBS_FOLDER

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
UNSHARE = ["unshare", *([] if ROOT else ["-r"]), "-pf", "--mount-proc", "--kill-child"]


def can_unshare() -> bool:
    """Whether a process can be process 1 of a namespace here."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_unshare(), reason="no right to make namespaces")


@pytest.fixture
def contained(redis_url: str, mode: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is process 1."""
    words = ["-m", "flowq.workers", "--url", redis_url, "--path", JOBS_FOLDER, "--mode", mode]
    process = subprocess.Popen([*UNSHARE, sys.executable, *words, "--name", "w"])
    yield process
    process.kill()
    process.wait()


def test_what_jobs_leave_behind_is_waited_for(
    contained: subprocess.Popen[bytes], queue: Queue, wait_until: Callable[..., None]
) -> None:
    leaving = [queue.enqueue(worker_jobs.leave_orphans, 3) for _ in range(3)]
    wait_until(lambda: leaving[-1].is_finished, 20)

    def are_gone() -> bool:
        looking = queue.enqueue(worker_jobs.list_orphans)
        wait_until(lambda: looking.is_finished, 20)
        return looking.return_value() == []

    wait_until(are_gone, 20)
    (child,) = Path(f"/proc/{contained.pid}/task/{contained.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    assert contained.wait(60) == 0
