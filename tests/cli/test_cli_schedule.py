"""`flowq schedule`: what it says before it watches the clock."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from tests.cli.commands import Flowq, Said


def test_a_schedule_says_when_it_is_due_and_that_nobody_would_run_it(
    flowq: Flowq, folder: Path, redis_url: str
) -> None:
    (folder / "nightly.yaml").write_text(
        "schedule: {cron: '30 2 * * *', timezone: UTC}\n"
        "jobs:\n  a: {run: date, queue: reports}\n  b: {run: date}\n"
    )
    process = flowq.start("schedule", "nightly.yaml", "--redis-url", redis_url)
    assert process.stderr is not None

    ours = (line.strip() for line in process.stderr if line.startswith("flowq: "))
    due, workers = islice((line for line in ours if "warning" not in line), 2)

    assert due.startswith("flowq: the next run of nightly is due at ")
    assert due.endswith(" 02:30 UTC")
    start = "no worker listens yet; start one: flowq worker default reports --redis-url "
    assert workers.startswith(f"flowq: {start}")


def test_a_workflow_without_a_schedule_is_refused(
    call: Callable[..., Said], redis_url: str
) -> None:
    said = call("schedule", "sandwich.yaml", "--redis-url", redis_url)
    assert said.code == 2
    assert "add one, as in `schedule: {cron:" in said.err
