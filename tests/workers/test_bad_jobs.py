"""Jobs that do everything that they should not, among short ones: who pays for it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bad_jobs
import pytest
from rq.job import Job as RQJob
from rq.job import JobStatus

from flowq.runtime.queue import Queue

Drain = Callable[..., Any]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they read /proc, and use signals")


def runs_of(queue: Queue, jobs: list[RQJob]) -> list[int]:
    return [int(queue.connection.get(f"run:{job.id}") or 0) for job in jobs]


def outcome_of(job: RQJob) -> str:
    result = job.latest_result()
    assert result is not None
    return str(result.exc_string or "") if job.get_status() is JobStatus.FAILED else ""


def test_bad_jobs_cost_no_other_job_anything(
    queue: Queue,
    drain: Drain,
    mode: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    # So many of one kind, and so short, that they are handed over in batches of forty and more.
    short = [queue.enqueue(bad_jobs.maybe) for _ in range(5 if mode == "fork" else 300)]
    bad = {}
    for name in [*bad_jobs.BAD, *bad_jobs.NUMBERS_ONLY]:
        bad[name] = queue.enqueue(bad_jobs.maybe, name)
        short += [queue.enqueue(bad_jobs.maybe) for _ in range(2 if mode == "fork" else 40)]
    capfd.readouterr()
    drain(mode=mode)
    printed = capfd.readouterr().out

    assert set(runs_of(queue, short)) == {1}
    assert {job.get_status() for job in short} == {JobStatus.FINISHED}
    assert dict(zip(bad, runs_of(queue, list(bad.values())), strict=True)) == dict.fromkeys(bad, 1)
    outcomes = {name: outcome_of(bad[name]) for name in bad_jobs.BAD}
    for name, (_, words) in bad_jobs.BAD.items():
        assert words in outcomes[name], name
        assert bool(words) == bool(outcomes[name]), name
    # Each says once who it is: where the worker prints, or in its error if its process died.
    names = "|".join(sorted(bad_jobs.BAD, key=len, reverse=True))
    told = re.findall(f"({names}) was here", printed)
    for name, outcome in outcomes.items():
        in_error = re.findall(f"({names}) was here", outcome)
        assert in_error == [] or in_error == [name], name
        assert told.count(name) + len(in_error) == 1, name
    assert not queue.started_job_registry.get_job_ids(cleanup=False)
