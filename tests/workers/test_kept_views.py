"""What our own worker keeps to be looked at: views of jobs, and the outputs of runs."""

from __future__ import annotations

import base64
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from flowq.client import Run, submit
from flowq.compiling import compile_plan
from flowq.runtime import keys
from tests.reading import parse_workflow

FLOW = """
name: flow
outputs: {sum: "${{ jobs.sum.result }}", late: "${{ jobs.late.result }}"}
jobs:
  sum: {call: worker_jobs:add, with: {a: 1, b: 2}, retries: 1}
  late: {call: worker_jobs:fail_at_first, with: {path: PATH, value: {x: 1}}, retries: 1}
  died: {call: worker_jobs:exit_hard, with: {code: 3}, on_crash: fail, continue_on_error: true}
  wrong: {call: worker_jobs:fail, with: {text: oh}, continue_on_error: true}
"""


class Deadly:
    """Ends the process that loads it."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


@pytest.fixture
def run(connection: redis.Redis, tmp_path: Path) -> Run:
    text = FLOW.replace("PATH", str(tmp_path / "tried"))
    plan = compile_plan(parse_workflow(text, "flow.yaml"), {}, run_id="r", imports=False)
    return submit(plan, connection)


def test_views_and_outputs_are_there_when_the_worker_has_gone(
    run: Run, drain: Callable[..., object], mode: str
) -> None:
    drain(mode=mode)
    assert run.status().state == "succeeded"
    views = run.views()
    assert (views["sum"].result, views["sum"].arguments) == (3, {"a": 1, "b": 2})
    assert views["late"].result == {"x": 1}
    assert (views["wrong"].result, views["wrong"].arguments) == (None, {"text": "oh"})
    assert (views["died"].result, views["died"].arguments) == (None, {})
    assert run.kept_outputs().views == {"sum": 3, "late": {"x": 1}}


def test_outputs_whose_evaluation_kills_every_child_are_given_up_and_the_run_has_ended(
    run: Run, connection: redis.Redis, drain: Callable[..., object]
) -> None:
    while run.status().state != "succeeded":
        drain(max_jobs=1)
    entry = {"type": 1, "return_value": base64.b64encode(pickle.dumps(Deadly()))}
    connection.xadd(keys.results("r-sum"), entry)  # type: ignore[arg-type]
    assert run.kept_outputs().is_pending
    drain()
    assert run.status().state == "succeeded"
    assert run.kept_outputs().errors["sum"] == (
        "job flowq-outputs-r-1, which was to evaluate it, has failed"
    )
    assert run.views()["sum"].result == 3
