"""The text formats: what they show, what they escape, and that they can be read in one way only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pytest

from flowq.declare.yaml import parse_workflow
from flowq.graph import build_graph
from flowq.pictures.dot import render_dot
from flowq.pictures.mermaid import render_mermaid
from flowq.pictures.picture import View, graph_document, view_graph
from flowq.pictures.text import render_text
from flowq.plan import Call, Commit, Enqueue, Plan, Release
from flowq.planner import make_plan
from flowq.render.json import (
    plan_document,
    run_document,
    to_json,
    write_json,
)
from flowq.render.lines import find_mark
from flowq.render.plan_text import render_plan
from flowq.runtime.views import MAX_REPR_BYTES
from flowq.spec import Block, JobSpec, Retry, Workflow
from flowq.status import ENDED, JobStatus, RunStatus


def _job(name: str, *needs: str, blocks: tuple[Block, ...] = (), description: str = "") -> JobSpec:
    return JobSpec(name, "tasks:run", {}, needs, blocks, description=description)


def _view(*jobs: JobSpec, states: Mapping[str, str] | None = None, name: str = "flow") -> View:
    graph = build_graph(Workflow(name, jobs))
    if states is None:
        return view_graph(graph)
    statuses = {job: JobStatus(job, f"r-{job}", state) for job, state in states.items()}
    return view_graph(graph, RunStatus("r", name, "running", statuses))


_SANDWICH = (
    _job("cut_bread"),
    _job("marmalade", "cut_bread"),
    _job("butter", "cut_bread"),
    _job("serve", "butter", "marmalade"),
)


# The view.


def test_a_view_has_the_jobs_in_the_order_in_which_they_run() -> None:
    view = _view(_job("last", "first"), _job("first"))

    assert [(node.name, node.level, node.is_future) for node in view.nodes] == [
        ("first", 0, False),
        ("last", 1, True),
    ]


def test_a_view_of_a_run_has_the_states_and_the_jobs_that_were_added_late() -> None:
    view = _view(_job("a"), states={"a": "finished", "late": "queued"})

    assert [(node.name, node.state) for node in view.nodes] == [
        ("a", "finished"),
        ("late", "queued"),
    ]
    assert view.state == "running"


# Text.


def test_a_fork_and_its_join_are_drawn_with_lanes() -> None:
    assert render_text(_view(*_SANDWICH)).splitlines() == [
        "● cut_bread",
        "├─● marmalade",
        "● │ butter",
        "│ │",
        "●─┘ serve",
    ]


def test_without_unicode_the_drawing_is_ascii() -> None:
    text = render_text(_view(*_SANDWICH), unicode=False)

    assert text.isascii()
    assert text.splitlines()[-1] == "*-' serve"


def test_a_chain_shows_the_stroke_between_two_jobs() -> None:
    assert render_text(_view(_job("a"), _job("b", "a"))).splitlines() == ["● a", "│", "● b"]


def test_jobs_that_have_nothing_to_do_with_each_other_are_not_in_line() -> None:
    assert render_text(_view(_job("a"), _job("b"))).splitlines() == ["● a", "  ● b"]


def test_an_open_job_is_drawn_differently_everywhere() -> None:
    view = _view(_job("a"), replace(_job("b", "a"), deferred=True))

    assert render_text(view).splitlines() == ["● a", "│", "◎ b  open"]
    assert render_text(view, unicode=False).splitlines()[-1] == "O b  open"
    assert '"b" [style="rounded,dashed"]' in render_dot(view)
    assert 'j1(["b"]):::open' in render_mermaid(view)
    assert "classDef open stroke-dasharray" in render_mermaid(view)
    assert [job["open"] for job in graph_document(view)["jobs"]] == [False, True]


def test_an_open_job_of_a_run_has_the_mark_of_its_state_and_is_open_until_it_starts() -> None:
    jobs = (_job("a"), replace(_job("b", "a"), deferred=True))
    for state, line in (("deferred", "○ b  deferred, open"), ("finished", "✓ b  finished")):
        view = _view(*jobs, states={"a": "finished", "b": state})
        assert render_text(view).splitlines()[-1] == line


def test_states_are_shown_as_marks_and_as_words() -> None:
    text = render_text(
        _view(*_SANDWICH[:2], states={"cut_bread": "finished", "marmalade": "failed"})
    )

    assert "✓ cut_bread  finished" in text
    assert "✗ marmalade  failed" in text


def test_an_edge_that_ignores_failures_is_named() -> None:
    text = render_text(_view(_job("a", blocks=(Block("b", "ignore"),)), _job("b")))

    assert "b  even if a fails" in text


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    middle = [_job(f"m{i}", "first") for i in range(30)]
    view = _view(_job("first"), *middle, _job("last", *(job.name for job in middle)))

    assert max(len(line) for line in render_text(view, width).splitlines()) <= width


def test_what_does_not_fit_as_a_drawing_becomes_a_list_with_blockers() -> None:
    middle = [_job(f"m{i}", "first") for i in range(60)]
    view = _view(_job("first"), *middle, _job("last", *(job.name for job in middle)))

    lines = render_text(view, 60).splitlines()

    assert lines[:2] == ["● first", "  ● m0  after first"]
    assert re.match(r" {4}● last  after m0, m1, .* and \d+ more$", lines[-1])


def test_ten_thousand_jobs_are_listed() -> None:
    jobs = [_job(f"j{i}", *(f"j{k}" for k in range(max(0, i - 2), i))) for i in range(10_000)]

    assert len(render_text(_view(*jobs)).splitlines()) == 10_000


def test_no_jobs_are_no_lines() -> None:
    assert render_text(_view()) == ""


def test_paint_takes_no_room() -> None:
    plain = render_text(_view(*_SANDWICH), 14)
    painted = render_text(_view(*_SANDWICH), 14, paint=lambda text, node: f"\x1b[1m{text}\x1b[0m")

    assert re.sub(r"\x1b\[\dm", "", painted) == plain
    assert painted != plain


def test_every_state_has_a_mark_of_its_own() -> None:
    states = [*ENDED, "deferred", "scheduled", "queued", "started", ""]

    for unicode in (True, False):
        marks = [find_mark(state, unicode) for state in states]
        assert len(set(marks)) == len(states)
        assert all(len(mark) == 1 and mark != "?" for mark in marks)
    assert all(find_mark(state, unicode=False).isascii() for state in states)


# Mermaid and DOT.


def test_mermaid_gives_every_job_an_id_that_is_no_word_of_its_own() -> None:
    text = render_mermaid(_view(_job("end"), _job("graph", "end")))

    assert text.splitlines() == [
        "---",
        "title: 'flow'",
        "---",
        "flowchart LR",
        '    j0["end"]',
        '    j1(["graph"])',
        "    j0 --> j1",
    ]


def test_mermaid_escapes_what_would_end_a_label_or_start_an_entity() -> None:
    text = render_mermaid(_view(_job('a"<b>&#1;'), name="it's\n---"))

    assert "title: 'it''s ---'" in text
    assert '["a#quot;#lt;b#gt;#amp;#35;1;"]' in text.replace("([", "[").replace("])", "]")


def test_mermaid_colours_the_states_that_occur() -> None:
    text = render_mermaid(_view(_job("a"), _job("b", "a"), states={"a": "failed", "b": "deferred"}))

    assert 'j0["a<br/>failed"]:::failed' in text
    assert text.count("classDef") == 1


def test_mermaid_and_dot_show_an_edge_that_ignores_failures() -> None:
    view = _view(_job("a", blocks=(Block("b", "ignore"),)), _job("b"))

    assert "j0 -. ignore .-> j1" in render_mermaid(view)
    assert '"a" -> "b" [style="dashed", label="ignore"];' in render_dot(view)


def test_dot_quotes_names_and_texts() -> None:
    text = render_dot(_view(_job('say "hi"\\N', description="zwei\nZeilen ü"), name='a "b"'))

    assert text.startswith('digraph "a \\"b\\"" {')
    assert '"say \\"hi\\"\\\\N"' in text
    assert 'tooltip="zwei\\nZeilen ü"' in text


def test_dot_fills_a_job_by_its_state() -> None:
    text = render_dot(_view(_job("a"), _job("b", "a"), states={"a": "finished", "b": "deferred"}))

    assert '"a" [label="a\\nfinished", fillcolor="palegreen", style="filled"];' in text
    assert '"b" [label="b\\ndeferred", style="rounded"];' in text


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

    assert run_document(status, {"a": [1, 2]}) == {
        "run": "r",
        "workflow": "flow",
        "status": "failed",
        "duration_s": 60.0,
        "jobs": {
            "a": {"status": "finished", "ids": ["r-a"], "result": [1, 2]},
            "b": {"status": "skipped", "ids": ["r-b"], "result": None},
        },
    }


def test_written_json_is_ascii_and_one_document() -> None:
    text = write_json({"a": "ü\n"}, indent=None)

    assert text.isascii()
    assert text == '{"a": "\\u00fc\\n"}\n'


def test_a_graph_as_json_has_jobs_and_edges() -> None:
    document = graph_document(_view(_job("a"), _job("b", "a")))

    assert json.loads(write_json(document)) == {
        "workflow": "flow",
        "status": None,
        "jobs": [
            {"name": "a", "level": 0, "future": False, "open": False},
            {"name": "b", "level": 1, "future": True, "open": False},
        ],
        "edges": [{"blocker": "a", "future": "b", "on_failure": None}],
    }


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

    assert lines[:2] == ["gallery: 2 jobs, 1 future job, 1 edge", "  folder = 'photos'"]
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
