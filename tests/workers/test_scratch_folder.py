"""The folder of a worker's scratch files: gone with the worker, or with the next one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import worker_jobs

from flowq.runtime.queue import Queue
from flowq.server import locks
from flowq.workers import scratch_folder
from flowq.workers.scratch_folder import LOCK, PREFIX, ScratchFolder, sweep


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temp folder for this test, and for what it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield tmp_path
    monkeypatch.setattr("tempfile.tempdir", None)


def find_all(temp: Path) -> list[Path]:
    return list(temp.glob(f"{PREFIX}*"))


def test_a_worker_that_ends_leaves_nothing(
    queue: Queue, drain: Callable[..., Any], temp: Path, mode: str
) -> None:
    queue.enqueue(worker_jobs.print_much, 1)
    drain(mode=mode)
    assert find_all(temp) == []


def test_what_a_killed_worker_leaves_is_removed_by_the_next_one_and_nothing_else(
    queue: Queue,
    start_worker: Callable[..., Any],
    drain: Callable[..., Any],
    wait_until: Callable[..., None],
    temp: Path,
    mode: str,
) -> None:
    killed = start_worker(mode=mode, queues=["a"])
    wait_until(lambda: len(find_all(temp)) == 1, 15)
    (left,) = find_all(temp)
    wait_until(lambda: list(left.glob("child-*")), 15)
    killed.kill()
    start_worker(mode=mode, queues=["b"], name="lives")
    wait_until(lambda: queue.connection.hget("rq:worker:lives", "state") == b"idle", 15)
    wait_until(lambda: (sweep(), not left.exists())[1])  # its children may outlive it a little
    (kept,) = find_all(temp)
    drain(mode=mode)
    assert kept.exists()
    wait_until(lambda: list(kept.glob("child-*")), 15)


def test_a_folder_that_is_being_made_is_left_alone(temp: Path) -> None:
    new, old = temp / f"{PREFIX}new", temp / f"{PREFIX}old"
    for each in (new, old):
        each.mkdir(mode=0o700)
    os.utime(old, (time.time() - 3600,) * 2)
    sweep()
    assert find_all(temp) == [new]


def test_the_folders_of_others_are_left_alone(temp: Path) -> None:
    (temp / f"{PREFIX}open").mkdir(mode=0o755)
    (temp / f"{PREFIX}link").symlink_to(temp)
    for each in find_all(temp):
        os.utime(each, (0, 0), follow_symlinks=False)
    sweep()
    assert len(find_all(temp)) == 2


def test_who_loses_the_folder_to_somebody_who_sweeps_makes_another(
    temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_lock, swept = scratch_folder._try_lock, []

    def be_late(path: Path) -> Any:
        if not swept:
            swept.append(locks.try_lock(path))
        return try_lock(path)

    monkeypatch.setattr(scratch_folder, "_try_lock", be_late)
    made = ScratchFolder()
    assert (made.path / LOCK).exists()
    assert len(find_all(temp)) == 2
    made.remove()
    assert len(find_all(temp)) == 1
    swept[0].release()


def test_the_lock_works_without_fcntl_too(temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fcntl", None)  # importing it fails
    made = ScratchFolder()
    sweep()
    assert find_all(temp) == [made.path]
    made._lock.release()
    sweep()
    assert find_all(temp) == []
