"""`start_when` and `cancel_rest` before a run: problems, plans, pictures, and both fronts."""

from __future__ import annotations

import pytest

from flowq.checks import check
from flowq.declare.export_python import export_python
from flowq.declare.export_yaml import export_yaml
from flowq.declare.python import Workflow
from flowq.graph import build_graph
from flowq.pictures.picture import draw
from flowq.pictures.svg import render_svg
from flowq.planner import make_plan
from flowq.render.plan_text import render_plan
from tests.reading import parse_workflow

MIRRORS = """
name: mirrors
jobs:
  near: {run: echo near}
  far: {run: echo far}
  unpack:
    needs: [near, far]
    run: echo unpacked
    start_when: one_success
    cancel_rest: true
  alarm: {needs: unpack, run: echo alarm, start_when: one_failed}
"""


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("needs: a, start_when: one_failed", []),
        ("needs: [a, b], start_when: one_success, cancel_rest: true", []),
        ("needs: many, start_when: one_success, cancel_rest: true", []),
        ("needs: a, start_when: one_success, cancel_rest: true", ["FQ247 warning"]),
        ("start_when: one_success", ["FQ247"]),
        ('needs: [a, b], start_when: one_success, env: {A: "${{ jobs.a.result }}"}', ["FQ248"]),
        ('needs: [a, b], start_when: one_failed, cwd: "${{ jobs.b.result.path }}"', ["FQ248"]),
        ('needs: [a, b], start_when: one_failed, env: {A: "${{ jobs.a.result or 1 }}"}', []),
        ('needs: [a, b], start_when: one_failed, env: {A: "${{ jobs.a.status }}"}', []),
        ("needs: [a, b], start_when: one_failed, if: jobs.a.result > 1", []),
        ('needs: a, start_when: one_success, env: {A: "${{ jobs.a.result }}"}', []),
        ('needs: many, start_when: one_success, env: {A: "${{ jobs.many.results }}"}', []),
    ],
)
def test_what_makes_no_sense_is_a_problem(job: str, expected: list[str]) -> None:
    text = f"""
    jobs:
      a: {{run: echo a}}
      b: {{run: echo b}}
      many: {{for_each: [1, 2], run: echo c}}
      x: {{{job}, run: echo}}
    """
    workflow = parse_workflow(text, "x.yaml")
    found = check(workflow, build_graph(workflow))
    codes = [f"{p.code} warning" if p.severity == "warning" else p.code for p in found]
    assert codes == expected


def test_the_plan_and_the_picture_say_when_it_starts() -> None:
    workflow = parse_workflow(MIRRORS, "mirrors.yaml")
    graph = build_graph(workflow)
    plan = render_plan(make_plan(graph, {}, "r1"))
    assert "start_when=one_success  cancel_rest" in plan
    assert "start_when=one_failed" in plan
    words = {box.name: box.words for box in draw(graph).boxes}
    assert words["unpack"] == ("run", "at the first success")
    assert words["alarm"] == ("run", "at the first failure")
    assert "at the first failure" in render_svg(draw(graph))


def test_both_fronts_and_both_exports_have_it() -> None:
    flow = Workflow("mirrors")
    near, far = flow.shell("near", "echo near"), flow.shell("far", "echo far")
    unpack = flow.shell(
        "unpack",
        "echo unpacked",
        needs=[near, far],
        start_when="one_success",
        cancel_rest=True,
    )
    flow.shell("alarm", "echo alarm", needs=unpack, start_when="one_failed")
    workflow = parse_workflow(MIRRORS, "mirrors.yaml")
    assert flow.spec() == workflow
    assert parse_workflow(export_yaml(workflow), "again.yaml") == workflow
    assert 'start_when="one_success"' in export_python(workflow)
