"""What is said of a run that has not ended in time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flowq import observing
from flowq.status import JobStatus, RunStatus


def test_states_that_only_a_newer_version_knows_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing.runtime.explain, "find_hold", lambda *_: None)
    monkeypatch.setattr(observing, "_advise", lambda *_: "")
    states = {"a": "resting", "b": "deferred", "c": "started"}
    jobs = {name: JobStatus(name, name, state=state) for name, state in states.items()}
    connection: Any = SimpleNamespace()
    text = observing.describe_wait(RunStatus("run", "w", jobs=jobs), connection)
    assert text == "c is started, b is deferred, a is resting"
