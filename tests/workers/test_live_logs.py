"""What a job prints while it runs: in its log soon, once, whole, and within its bounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import worker_jobs
from rq.job import Job as RQJob
from rq.job import JobStatus

from flowq.runtime.queue import Queue
from flowq.workers import children, monitor
from flowq.workers.output import HALF_BYTES, LOG_BYTES

Start = Callable[..., Any]
Wait = Callable[..., None]


def read(folder: Path, job: RQJob) -> bytes:
    log = folder / f"{job.id}.log"
    return log.read_bytes() if log.exists() else b""


def bounded(text: bytes) -> bytes:
    if len(text) <= LOG_BYTES:
        return text
    note = f"\n[… {len(text) - LOG_BYTES:,} bytes left out …]\n".encode()
    return text[:HALF_BYTES] + note + text[-HALF_BYTES:]


def test_what_a_job_prints_is_in_its_log_while_it_runs(
    queue: Queue, start_worker: Start, wait_until: Wait, tmp_path: Path, mode: str
) -> None:
    go = tmp_path / "go"
    job = queue.enqueue(worker_jobs.print_around, "first\n", str(go), "second\n")
    start_worker(mode=mode, log_folder=str(tmp_path))
    wait_until(lambda: read(tmp_path, job) == b"first\n", 15)
    assert job.get_status() is JobStatus.STARTED
    go.touch()
    wait_until(lambda: job.get_status() is JobStatus.FINISHED, 10)
    assert read(tmp_path, job) == b"first\nsecond\n"


def test_a_job_that_is_killed_has_printed_all_of_it_once(
    queue: Queue, start_worker: Start, wait_until: Wait, tmp_path: Path, mode: str
) -> None:
    go = tmp_path / "go"
    job = queue.enqueue(worker_jobs.print_wait_die, "first\n", str(go))
    start_worker(mode=mode, log_folder=str(tmp_path))
    wait_until(lambda: read(tmp_path, job) == b"first\n", 15)
    go.touch()
    wait_until(lambda: job.get_status() is JobStatus.FAILED, 10)
    assert read(tmp_path, job) == b"first\nthe last words"
    result = job.latest_result()
    assert result is not None
    assert "first\nthe last words" in str(result.exc_string)


def test_of_a_job_that_prints_very_much_the_first_half_is_there_early(
    queue: Queue, start_worker: Start, wait_until: Wait, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    before, after = "a" * 700_000, "b" * 2_000_000
    job = queue.enqueue(worker_jobs.print_around, before, str(go), after)
    start_worker(log_folder=str(tmp_path))
    wait_until(lambda: len(read(tmp_path, job)) == HALF_BYTES, 15)
    go.touch()
    wait_until(lambda: job.get_status() is JobStatus.FINISHED, 10)
    assert read(tmp_path, job) == bounded((before + after).encode())


@pytest.mark.parametrize("concurrency", [1, 2])
def test_no_byte_is_lost_or_doubled_however_often_the_supervisor_reads(
    queue: Queue,
    drain: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mode: str,
    concurrency: int,
) -> None:
    monkeypatch.setattr(children, "LONG_S", 0.0)
    monkeypatch.setattr(monitor, "READ_S", 0.0)
    jobs = [queue.enqueue(worker_jobs.print_chunks, seed) for seed in range(15)]
    drain(mode=mode, concurrency=concurrency, log_folder=str(tmp_path))
    for seed, job in enumerate(jobs):
        assert read(tmp_path, job) == bounded(b"".join(worker_jobs.chunks_of(seed))), seed


def test_a_log_that_cannot_be_written_costs_the_job_nothing(
    queue: Queue, drain: Callable[..., Any], tmp_path: Path, mode: str
) -> None:
    (tmp_path / "logs").touch()
    jobs = [queue.enqueue(worker_jobs.print_much, 1) for _ in range(2)]
    drain(mode=mode, log_folder=str(tmp_path / "logs"))
    assert [job.get_status() for job in jobs] == [JobStatus.FINISHED] * 2
