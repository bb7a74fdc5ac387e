"""A part of RQ's own suite with our classes, where its source distribution is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.rq_suite.run import run

VARIABLE = "FLOWQ_RQ_SOURCE"
PART = ["tests/test_queue.py", "tests/test_job.py"]


@pytest.mark.skipif(
    not os.environ.get(VARIABLE),
    reason=f"RQ's wheel has no tests, and tests download nothing: {VARIABLE}=rq-3.0.0.tar.gz",
)
def test_no_test_of_rqs_queue_and_job_is_lost_to_our_classes() -> None:
    outcomes = run(Path(os.environ[VARIABLE]), ["empty", "flowq"], PART)
    passed = {
        classes: {test for test, outcome in tests.items() if outcome == "passed"}
        for classes, tests in outcomes.items()
    }
    assert len(passed["empty"]) > 100
    assert passed["empty"] - passed["flowq"] == set()
