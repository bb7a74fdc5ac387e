"""What jobs printed, as commands read it: attempt by attempt."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from flowq.cli import own_workers
from flowq.status import JobStatus
from flowq.workers.output import append_log, mark_attempt


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FLOWQ_STATE", str(tmp_path / "state"))
    return str(own_workers.find_folder())


def test_the_last_output_is_that_of_the_last_attempt(folder: str) -> None:
    mark_attempt(folder, "r1-a", 2)  # the first attempt printed nothing
    assert own_workers.read_all("r1-a") == []
    append_log(folder, "r1-a", b"one\ntwo\n")
    mark_attempt(folder, "r1-a", 3)
    assert own_workers.read_last("r1-a", 10) == []
    append_log(folder, "r1-a", b"three\nfour\n")
    assert own_workers.read_last("r1-a", 1) == ["four"]
    assert own_workers.read_last("r1-a") == ["three", "four"]
    assert own_workers.read_all("r1-a") == ["one", "two", "--- attempt 3 ---", "three", "four"]


def test_what_is_shown_while_it_is_printed_has_no_lines_between_attempts(folder: str) -> None:
    append_log(folder, "r1-a", b"one\n")
    mark_attempt(folder, "r1-a", 2)
    append_log(folder, "r1-a", b"two")
    job = JobStatus("a", "r1-a", "finished", ended_at=datetime.now(UTC))
    assert list(own_workers.Tail().new_lines(job)) == ["one", "two"]
