"""`concurrency` and `rate` of jobs: what is written, planned and refused."""

from __future__ import annotations

import pytest

import flowq
from flowq.compiling import compile_plan, find_problems
from flowq.declare.export_yaml import export_yaml
from flowq.render.plan_text import render_plan
from flowq.spec import Concurrency, Rate
from tests.reading import parse_partly, parse_workflow

WHOLE = """
inputs: {n: {type: int, default: 3}, most: {type: str, default: 100/h}}
jobs:
  a: {run: echo, concurrency: deploy}
  b: {run: echo, concurrency: {group: "shop-${{ inputs.n }}", limit: "${{ inputs.n }}"}}
  c: {run: echo, concurrency: {group: deploy, cancel_in_progress: true}, rate: 10/m}
  d: {run: echo, rate_limit: "${{ inputs.most }}"}
  e: {for_each: [x], run: echo, rate: {limit: 5/10s, group: "m-${{ item }}"}}
"""


def test_limits_are_planned_and_shown() -> None:
    plan = compile_plan(parse_workflow(WHOLE, "w.yaml"), {}, run_id="r", imports=False)
    by_name = {each.name: each for each in plan.enqueues}
    assert by_name["a"].concurrency == Concurrency("deploy")
    assert by_name["b"].concurrency == Concurrency("shop-3", limit=3)
    assert by_name["c"].rate == Rate("10/m", "w.c")
    assert by_name["d"].rate == Rate("100/h", "w.d")
    text = render_plan(plan)
    for shown in (
        "concurrency=deploy\n",
        "concurrency=shop-3(limit=3)\n",
        "concurrency=deploy(cancel_in_progress)  rate=10/m(w.c)\n",
        "rate=100/h(w.d)\n",
        "rate=5/10s(m-${{ item }})\n",
    ):
        assert shown in text


def test_both_forms_and_the_export_say_the_same() -> None:
    flow = flowq.Workflow("w", inputs={"n": 3}, concurrency={"group": "all", "limit": 2})
    flow.shell("a", ["echo"], concurrency="deploy", rate="10/m")
    flow.shell("b", ["echo"], concurrency={"group": f"s-{flow.inputs.n}", "limit": flow.inputs.n})
    flow.shell("c", ["echo"], for_each=[1], rate={"limit": "5/s", "group": flow.item})
    text = export_yaml(flow.spec())
    assert parse_workflow(text, "w.yaml") == flow.spec()
    assert "concurrency: {group: all, limit: 2}" in text
    assert "concurrency: deploy\n" in text
    assert 'rate: {limit: 5/s, group: "${{ item }}"}' in text


@pytest.mark.parametrize(
    ("job", "code"),
    [
        ("run: echo, concurrency: {limit: 3}", "FQ106"),
        ("run: echo, concurrency: {group: g, limit: 0}", "FQ105"),
        ("run: echo, concurrency: {group: g, max: 3}", "FQ103"),
        ("run: echo, rate: 10 per minute", "FQ132"),
        ("run: echo, rate: {group: g}", "FQ106"),
        ("run: echo, rate: 1/s, rate_limit: 1/s", "FQ118"),
        ("sleep: 1s, rate: 1/s", "FQ118"),
        ("run: echo, concurrency: '${{ jobs.b.result }}'", "FQ213"),
        ("run: echo, concurrency: {group: g, limit: '${{ inputs.t }}'}", "FQ242"),
        ("run: echo, concurrency: {group: same, limit: 2}", "FQ246"),
        ("run: echo, concurrency: 5", "FQ105"),
        ("run: echo, for_each: [1], concurrency: {group: g, cancel_in_progress: true}", "FQ245"),
        ("run: echo, matrix: {x: [1]}, concurrency: {group: g, cancel_in_progress: true}", "FQ245"),
        ("run: echo, semaphore: 3", "FQ108"),
    ],
)
def test_a_misuse_has_a_code(job: str, code: str) -> None:
    text = "inputs: {t: {type: bool, default: true}}\njobs:\n  b: {run: echo, concurrency: same}\n"
    workflow, problems = parse_partly(text + f"  a: {{{job}}}\n", "w.yaml")
    found = [*problems, *find_problems(workflow, imports=False)]
    assert code in [each.code for each in found]


def test_a_group_that_names_its_item_cancels_none_of_its_own() -> None:
    group = "{group: '${{ index }}', cancel_in_progress: true}"
    text = f"jobs: {{a: {{for_each: [1], run: echo, concurrency: {group}}}}}"
    workflow, problems = parse_partly(text, "w.yaml")
    assert [*problems, *find_problems(workflow, imports=False)] == []


@pytest.mark.parametrize(
    ("concurrency", "where", "text", "hint"),
    [
        ("5", "", "must be the name of a group, not 5", "{group: NAME, limit: 5}"),
        ("5", "run: echo, ", "must be the name of a group, not 5", "{group: NAME, limit: 5}"),
        (
            "{group: g, limit: '${{ inputs.n }}'}",
            "",
            "of runs, only `group` may be an expression",
            "the `concurrency` of a job",
        ),
    ],
)
def test_a_hint_says_what_to_write_instead(
    concurrency: str, where: str, text: str, hint: str
) -> None:
    key = f"concurrency: {concurrency}"
    written = f"jobs: {{a: {{{where}{key}}}}}" if where else f"{key}\njobs: {{a: {{run: echo}}}}"
    _, [problem, *_] = parse_partly(written, "w.yaml")
    assert text in problem.message
    assert hint in str(problem.hint)
