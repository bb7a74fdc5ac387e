"""Which runs will have more jobs than they were submitted with; workers are counted by that."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from flowq.client import submit
from flowq.compiling import compile_plan, load
from flowq.runtime.runs import will_grow

OF_RESULT = "a: {run: ls, result: lines}\n  b: {for_each: '${{ jobs.a.result }}', run: 'true'}"
NESTED = "a: {workflow: inner}\nworkflows: {inner: {jobs: {b: {run: 'true'}}}}"


@pytest.mark.parametrize(
    ("jobs", "grows"),
    [
        ("a: {run: 'true'}\n  b: {needs: a, run: 'true'}", False),
        ("a: {for_each: '${{ range(8) }}', run: 'true'}", True),
        (
            "a: {run: 'true', result: lines}\n  b: {for_each: '${{ jobs.a.result }}', run: 'true'}",
            True,
        ),
        ("a: {run: 'true', blocks: b}\n  b: {deferred: true, run: 'true'}", True),
        (NESTED, True),
    ],
)
def test_a_run_with_groups_nested_workflows_or_open_jobs_will_grow(
    connection: Redis, tmp_path: Path, jobs: str, grows: bool
) -> None:
    file = tmp_path / "work.yaml"
    file.write_text(f"name: work\njobs:\n  {jobs}\n")
    run = submit(compile_plan(load(str(file)), {}), connection)
    assert will_grow(run.run_id, connection) is grows
