"""What RQ's workers do between jobs: it waits for a pause, but not for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import worker_jobs

from flowq.runtime.maintenance import Lease
from flowq.runtime.queue import Queue
from flowq.workers import turns
from flowq.workers.children import Pool


class NoSilence(Lease):
    """With it RQ's maintenance, which is a chore, is due at once."""

    silence_s = 0.0


AT_ONCE = NoSilence()


@pytest.fixture
def left(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs were queued at each moment at which a child got a chore."""
    counts: list[int] = []
    do_chores = Pool.do_chores

    def note(self: Pool) -> None:
        left, waiting = queue.count, len(self.chores)
        do_chores(self)
        counts.extend([left] * (waiting - len(self.chores)))

    monkeypatch.setattr(Pool, "do_chores", note)
    return counts


@pytest.mark.parametrize("batches", [True, False])
def test_a_chore_waits_for_a_pause(
    queue: Queue, drain: Callable[..., Any], left: list[int], batches: bool
) -> None:
    for _ in range(200):
        queue.enqueue(worker_jobs.nothing)
    drain(batches=batches, lease=AT_ONCE)
    assert left == [0]


@pytest.mark.parametrize("batches", [True, False])
def test_a_chore_does_not_wait_for_ever(
    queue: Queue,
    drain: Callable[..., Any],
    left: list[int],
    batches: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "CHORES_S", 0.05)
    jobs = [queue.enqueue(worker_jobs.sleep, 0.001) for _ in range(400)]
    drain(batches=batches, lease=AT_ONCE)
    assert left[0] > 0
    assert {job.get_status() for job in jobs} == {"finished"}


def test_a_chore_does_not_wait_for_ever_behind_jobs_whose_ends_can_be_foreseen(
    queue: Queue, drain: Callable[..., Any], left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "CHORES_S", 0.3)
    for _ in range(80):
        queue.enqueue(worker_jobs.sleep, 0.01)
    drain(lease=AT_ONCE)
    assert left[0] > 0
