"""Runs and plans as JSON, and plans as text."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pytest

from flowq.cells import count_cells
from flowq.graph import build_graph
from flowq.plan import Call, Commit, Enqueue, Plan, Release
from flowq.planner import make_plan
from flowq.render.details import runs_table
from flowq.render.json import RunFacts, plan_document, run_document, to_json, write_json
from flowq.render.lines import spelled
from flowq.render.plan_text import render_plan
from flowq.render.progress import rows
from flowq.runtime.views import MAX_REPR_BYTES
from flowq.spec import Block, Retry
from flowq.status import JobStatus, RunRecord, RunStatus
from tests.reading import parse_workflow

# JSON.


class _Broken:
    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ([1, 2.5, "ü", True], [1, 2.5, "ü", True]),
        ((1, (2,)), [1, [2]]),
        ({"a": {"b": 1}}, {"a": {"b": 1}}),
        ({1: 2}, {"repr": "{1: 2}", "type": "builtins.dict"}),
        ({3}, {"repr": "{3}", "type": "builtins.set"}),
        (float("nan"), {"repr": "nan", "type": "builtins.float"}),
        (
            [PurePosixPath("a")],
            [{"repr": "PurePosixPath('a')", "type": "pathlib.PurePosixPath"}],
        ),
    ],
)
def test_values_become_json_and_strangers_are_shown(value: object, expected: object) -> None:
    assert to_json(value) == expected


def test_what_cannot_even_be_shown_is_still_json() -> None:
    loop: list[Any] = []
    loop.append(loop)

    for value in (_Broken(), loop, 10**5000):
        assert {"repr", "type"} <= set(to_json(value))


@pytest.mark.parametrize("value", [b"x" * 10_000, {"ü" * 10_000}, {"\N{PILE OF POO}" * 300}])
def test_what_is_shown_takes_at_most_a_kilobyte(value: object) -> None:
    text = json.dumps(to_json(value))
    assert '"truncated": true' in text or len(text) < MAX_REPR_BYTES
    assert len(text) <= MAX_REPR_BYTES


def test_a_run_is_exactly_the_contract() -> None:
    at = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    later = datetime(2026, 11, 24, 12, 1, tzinfo=UTC)
    jobs = {
        "a": JobStatus("a", "r-a", "finished"),
        "b": JobStatus("b", "r-b", "skipped"),
    }
    status = RunStatus("r", "flow", "failed", jobs, at, later)

    record = RunRecord("r", "flow", "failed", {"n": 1}, at, at, later)

    assert run_document(RunFacts(status, {"a": [1, 2]}, record=record)) == {
        "v": 1,
        "kind": "run",
        "run": "r",
        "workflow": "flow",
        "status": "failed",
        "submitted_at": "2026-11-24T12:00:00.000000Z",
        "started_at": "2026-11-24T12:00:00.000000Z",
        "ended_at": "2026-11-24T12:01:00.000000Z",
        "duration_s": 60.0,
        "inputs": {"n": 1},
        "labels": {},
        "counts": {"finished": 1, "skipped": 1},
        "jobs": {
            "a": {"status": "finished", "ids": ["r-a"], **NOTHING, "result": [1, 2]},
            "b": {"status": "skipped", "ids": ["r-b"], **NOTHING, "result": None},
        },
        "edges": [],
    }


NOTHING = {
    "reason": None,
    "tolerated": False,
    "queued_at": None,
    "started_at": None,
    "ended_at": None,
    "duration_s": None,
    "attempts": [],
    "error": None,
}
"""What is said of a job of which the events say nothing but its state."""


def test_written_json_keeps_letters_and_escapes_what_is_none() -> None:
    text = write_json({"a": "ü 漢 \n\x1b\x9b\u202e\ud800 🚀"}, indent=None)

    assert text == '{"a": "ü 漢 \\n\\u001b\\u009b\\u202e\\ud800 🚀"}\n'
    assert spelled(text) == text, "so a terminal gets the document as it is"
    assert json.loads(text) == {"a": "ü 漢 \n\x1b\x9b\u202e\ud800 🚀"}


# Plans.

_PLAN = Plan(
    "r1",
    "gallery",
    {"folder": "photos"},
    (
        Enqueue(
            "r1-page", "page", Call("t:page"), deferred=True, description="t:page()", timeout_s=90.0
        ),
        Enqueue(
            "r1-thumb",
            "thumb",
            Call("t:thumb"),
            blocks=(Block("r1-page", "ignore"),),
            queue="pictures",
            retries=Retry(3, 2.5),
            on_blocker_failure="run",
            description="t:thumb(path=…)",
        ),
        Commit("r1"),
        Release("r1-page"),
    ),
)


def test_a_plan_reads_like_the_api() -> None:
    lines = render_plan(_PLAN).splitlines()

    assert lines[:2] == ["gallery: 2 planned jobs, 1 future job, 1 edge", "  folder = 'photos'"]
    assert [" ".join(line.split()) for line in lines[2:]] == [
        "1 enqueue page deferred=True t:page() timeout=90s",
        "2 enqueue thumb blocked_by=page (on_failure=ignore) t:thumb(path=…) queue=pictures"
        " retries=3 every 2.5s on_blocker_failure=run",
        "3 commit r1",
        "4 release page",
    ]


def test_a_plan_as_json_names_its_operations() -> None:
    document = json.loads(write_json(plan_document(_PLAN)))

    assert [operation["do"] for operation in document["operations"]] == [
        "enqueue",
        "enqueue",
        "commit",
        "release",
    ]
    assert document["operations"][1]["blocks"] == [{"name": "r1-page", "on_failure": "ignore"}]


def test_a_plan_shows_what_approvals_ask_for_and_the_limits_of_groups_of_workflows() -> None:
    text = """\
workflows: {w: {jobs: {z: {call: "m:f"}}}}
jobs:
  a: {call: "m:f", approval: {message: "Ship?\\nReally?", inputs: {host: {type: str}}, expires: 1m}}
  g: {for_each: [1], call: "m:f", approval: true}
  n: {for_each: [1], workflow: w, timeout: 5m, retries: 2}
"""
    workflow = parse_workflow(text, "x.yaml")
    shown = render_plan(make_plan(build_graph(workflow), {}, "r"))
    assert 'approval("Ship? Really?", host: str, expires=60s)' in shown
    lines = {line.split()[2]: line for line in shown.splitlines() if " enqueue " in line}
    assert lines["g(list)"].endswith("  approval")
    assert lines["n(list)"].endswith("retries of the workflow=2  timeout of the workflow=300s")


def test_columns_stay_in_line_behind_letters_that_take_two_cells() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    records = [RunRecord("r1", name, "running", {}, now) for name in ("集計の仕事", "a")]
    lines = ["".join(text for text, _ in line) for line in runs_table(records, now)]
    assert len({count_cells(line[: line.index(" 20")]) for line in lines[1:]}) == 1
    jobs = [JobStatus(name, "r-1", "queued") for name in ("thumb[東京]", "thumb[a]")]
    shown = ["".join(text for text, _ in line) for line in rows(jobs, now)]
    assert len({count_cells(line) for line in shown}) == 1
