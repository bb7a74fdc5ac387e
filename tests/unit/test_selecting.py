"""A part of a workflow: which jobs run, what is refused, and what plans and pictures show."""

from __future__ import annotations

import pytest

from flowq.compiling import compile_plan, find_problems
from flowq.errors import UsageError, WorkflowInvalid
from flowq.graph import LEFT_OUT, build_graph
from flowq.pictures.picture import draw
from flowq.render.plan_text import render_plan
from flowq.selecting import Selection, make_selection, select
from tests.reading import parse_workflow

TEXT = """
jobs:
  fetch: {run: echo 42}
  thumb: {for_each: [1, 2], needs: fetch, run: "echo ${{ item }}"}
  page: {run: "echo ${{ jobs.thumb.results | json }}"}
  ask: {needs: page, approval: {inputs: {n: {type: int}}}, queue: gpu, run: echo asked}
  tell: {needs: ask, if: jobs.page.status == 'skipped', run: echo told}
  pack: {needs: page, workflow: w}
  told: {run: "echo ${{ jobs.ask.approval.n }}"}
finally:
  clean: {run: "echo ${{ jobs.page.result }}"}
outputs: {page: "${{ jobs.page.result }}"}
workflows: {w: {jobs: {zip: {run: echo zip}}}}
"""
GRAPH = build_graph(parse_workflow(TEXT, "w.yaml"))


@pytest.mark.parametrize(
    ("only", "from_", "skip", "left"),
    [
        ("page thumb", "", "", "thumb page clean"),
        ("", "ask", "", "ask tell told clean"),
        ("fetch", "ask", "told", "fetch ask tell clean"),
        ("clean", "", "", "clean"),
        ("fetch", "", "clean", "fetch"),
        ("", "", "fetch tell", "thumb page ask pack told clean"),
        ("", "pack", "", "pack clean"),
    ],
)
def test_a_selection_leaves_the_other_jobs_out(only: str, from_: str, skip: str, left: str) -> None:
    graph = select(GRAPH, make_selection(only.split(), from_.split(), skip.split()))
    assert [name for name in graph.job_by_name if name not in graph.left_out] == left.split()
    assert {(e.blocker, e.future) for e in graph.edges} == {
        (e.blocker, e.future) for e in GRAPH.edges
    }


def test_no_selection_changes_nothing_and_one_name_needs_no_list() -> None:
    assert select(GRAPH, Selection()) is GRAPH
    assert select(GRAPH, None) is GRAPH
    assert make_selection("ask", skip="tell") == Selection(only=("ask",), skip=("tell",))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(only=("pgae",)), "workflow w has no job pgae; did you mean 'page'?"),
        (Selection(skip=("thumb[1]",)), "'thumb[1]' is one job of a group, which runs as a whole"),
        (Selection(from_=("pack.zip",)), "pack.zip is one job of a nested workflow, which runs"),
        (Selection(only=("page",), skip=("page",)), "job page is both selected and skipped"),
        (Selection(skip=tuple(GRAPH.job_by_name)), "no job of workflow w is left to run"),
        (
            Selection(skip=("thumb",)),
            "w.yaml:5:25: job page reads jobs.thumb.results in its `run`, but thumb is left out: "
            "select thumb too, or skip page (`flowq retry RUN page` has the results",
        ),
        (Selection(only=("told",)), "job told reads jobs.ask.approval in its `run`, but ask is"),
    ],
)
def test_what_cannot_be_selected_is_refused_with_its_reason(
    selection: Selection, message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        select(GRAPH, selection)
    assert message in str(refused.value)


def test_many_refusals_are_counted() -> None:
    lines = "\n".join(f'  j{n}: {{run: "echo ${{{{ jobs.a.result }}}}"}}' for n in range(9))
    graph = build_graph(parse_workflow(f"jobs:\n  a: {{run: echo}}\n{lines}\n", "w.yaml"))
    with pytest.raises(UsageError) as refused:
        select(graph, Selection(skip=("a",)))
    assert str(refused.value).splitlines()[-1] == "and 4 more"


def test_a_plan_and_a_picture_show_what_is_left_out() -> None:
    workflow = parse_workflow(TEXT, "w.yaml")
    part = Selection(only=("page", "thumb"))
    plan = compile_plan(workflow, imports=False, selection=part)
    left_out = {"fetch", "ask", "tell", "pack(start)", "told"}
    assert {each.name for each in plan.enqueues if each.if_ is False} == left_out
    asks = next(each for each in plan.enqueues if each.name == "ask")
    assert (asks.approval, asks.queue) == (None, "default")
    assert sum(LEFT_OUT in line for line in render_plan(plan).splitlines()) == len(left_out)
    boxes = draw(select(build_graph(workflow), part)).boxes
    assert {box.name: box.reason for box in boxes if box.state == "skipped"} == {
        name.removesuffix("(start)"): LEFT_OUT for name in left_out
    }
    whole = compile_plan(workflow, imports=False)
    assert whole.source.digest == plan.source.digest
    assert LEFT_OUT not in render_plan(whole)


BRANCHES = """
inputs: {n: {type: int, default: 20}}
jobs:
  count: {run: "echo ${{ inputs.n }}", result: json}
  large: {if: jobs.count.result > 10, else: small, run: echo large}
  load: {needs: large, run: echo load}
  small: {run: echo small}
  next: {needs: load, run: echo next}
  join: {needs: [next, small], run: echo join}
"""


@pytest.mark.parametrize(
    ("skip", "conditions"),
    [
        ((), {"small": "large", "load": "large", "next": "load", "join": "next small"}),
        (("load",), {"small": "large", "next": "large", "join": "next small"}),
        (("large",), {}),
        (("small",), {"load": "large", "next": "load", "join": "next"}),
        (("count", "large", "small"), {}),
    ],
)
def test_a_job_that_is_left_out_decides_about_no_branch(
    skip: tuple[str, ...], conditions: dict[str, str]
) -> None:
    workflow = parse_workflow(BRANCHES, "w.yaml")
    assert [each for each in find_problems(workflow) if each.severity == "error"] == []
    graph = select(build_graph(workflow), Selection(skip=skip))
    found = {
        name: " ".join(each for condition in of_job for each in condition.names)
        for name, of_job in graph.branches.items()
        if name not in graph.left_out
    }
    assert found == conditions


def test_expressions_of_what_is_left_out_are_not_evaluated() -> None:
    text = """
inputs: {list: {type: list, default: []}}
jobs:
  a: {call: "builtins:dict", with: {x: "${{ inputs.list[0] }}"}, env: {X: "${{ inputs.list[1] }}"}}
  b: {for_each: "${{ inputs.list[2] }}", key: item.x, call: "builtins:dict"}
  c: {needs: [a, b], workflow: w, with: {n: "${{ inputs.list[4] }}"}}
  d: {needs: c, run: echo d}
workflows: {w: {inputs: {n: {type: int}}, jobs: {e: {run: "echo ${{ inputs.n }}"}}}}
"""
    workflow = parse_workflow(text, "w.yaml")
    with pytest.raises(WorkflowInvalid):
        compile_plan(workflow, imports=False)
    plan = compile_plan(workflow, imports=False, selection=Selection(only=("d",)))
    assert [each.name for each in plan.enqueues if each.if_ is None] == ["d", "c"]
    assert plan.enqueues[0].blocks == ()


def test_settings_over_inputs_do_not_bring_back_what_is_left_out() -> None:
    text = """
inputs: {q: {type: str, default: gpu}, n: {type: int, default: 2}}
defaults: {timeout: "${{ '1m' }}"}
jobs:
  a: {queue: "${{ inputs.q }}", matrix: {x: [1, 2]}, max_parallel: "${{ inputs.n }}", run: echo a}
  b: {needs: a, run: echo b}
"""
    workflow = parse_workflow(text, "w.yaml")
    plan = compile_plan(workflow, imports=False, selection=Selection(only=("b",)))
    found = {each.name: (each.if_, each.queue) for each in plan.enqueues}
    assert found == {
        "a[1]": (False, "default"),
        "a[2]": (False, "default"),
        "b": (None, "default"),
    }
