"""`else`: branches, whose jobs are skipped together, and what runs instead."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

import flowq
from flowq.checks import check
from flowq.compiling import compile_plan, find_problems
from flowq.declare.export_python import export_python
from flowq.declare.export_yaml import export_yaml
from flowq.expressions import as_template, decide
from flowq.graph import build_graph
from flowq.plan import Start
from flowq.problems import CYCLE, FINALLY_OUT_OF_ORDER, KEY_OUT_OF_PLACE, TWO_BRANCHES, UNKNOWN_JOB
from flowq.runtime.planned import call_of
from flowq.runtime.wire import KEY, SETTINGS_FORMAT
from flowq.spec import JobSpec, Shell, Workflow
from flowq.testing import InlineRun, run_inline
from tests.reading import parse_workflow

TREE = """
inputs: {n: {type: int, default: 20}, deep: {type: bool, default: true}}
jobs:
  count: {call: builtins:dict}
  big: {if: jobs.count.result > 10, else: small, call: builtins:dict}
  pack: {needs: big, call: builtins:dict, with: {n: "${{ jobs.count.result }}"}}
  ship: {for_each: [1, 2], needs: pack, call: builtins:dict}
  inner: {needs: ship, if: inputs.deep, else: shallow, call: builtins:dict}
  shallow: {call: builtins:dict}
  small: {if: jobs.count.result > 5, else: tiny, call: builtins:dict}
  tell: {needs: small, call: builtins:dict, with: {n: "${{ jobs.count.result }}"}}
  tiny: {call: builtins:dict}
  join: {needs: [inner, shallow, tell, tiny], call: builtins:dict}
  gone: {if: jobs.count.result < 0, else: skip, call: builtins:dict}
  after: {needs: [gone, count], call: builtins:dict}
  nested: {needs: gone, workflow: w}
  done: {needs: nested, call: builtins:dict}
  mixed: {needs: [gone, join], call: builtins:dict}
  asks: {needs: gone, if: always(), call: builtins:dict}
workflows:
  w:
    jobs:
      a: {if: 1 > 2, else: b, call: builtins:dict}
      c: {needs: a, call: builtins:dict}
      b: {call: builtins:dict}
"""
NAMES = ("big", "pack", "inner", "shallow", "small", "tell", "tiny", "after", "done")


def run(text: str, inputs: Mapping[str, Any] | None = None, **replace: Any) -> InlineRun:
    workflow = parse_workflow(text, "w.yaml")
    calls = {job.name: 1 for job in workflow.jobs if not job.workflow}
    return run_inline(workflow, inputs, replace={**calls, **replace})


@pytest.mark.parametrize(
    ("count", "deep", "ran"),
    [
        (20, True, {"big", "pack", "inner"}),
        (20, False, {"big", "pack", "shallow"}),
        (7, True, {"small", "tell"}),
        (3, True, {"tiny"}),
    ],
)
def test_a_branch_has_one_condition_and_the_other_one_runs_instead(
    count: int, deep: bool, ran: set[str]
) -> None:
    made = run(TREE, {"deep": deep}, count=count)
    assert made.state == "succeeded"
    assert {name for name in NAMES if made.states[name] == "finished"} == ran
    assert made.states["ship"] == ("finished" if "pack" in ran else "skipped")
    assert made.states["nested"] == "skipped"
    assert [made.states[name] for name in ("join", "mixed", "asks")] == ["finished"] * 3


def test_what_is_skipped_says_because_of_which_job() -> None:
    jobs = run(TREE, count=3).status().jobs
    reasons = {name: jobs[name].reason for name in ("pack", "ship(list)", "shallow", "tell")}
    assert reasons == {
        "pack": "big was skipped",
        "ship(list)": "pack was skipped",
        "shallow": "ship was skipped",
        "tell": "small was skipped",
    }
    jobs = run(TREE, count=20).status().jobs
    assert jobs["small"].reason == "big was not skipped"
    assert jobs["tiny"].reason == "big was not skipped"


def test_a_failure_runs_neither_branch_and_a_job_without_else_stays_neutral() -> None:
    text = """
jobs:
  first: {call: builtins:dict}
  one: {needs: first, if: 1 > 2, else: two, call: builtins:dict}
  two: {call: builtins:dict}
  neutral: {if: 1 > 2, call: builtins:dict}
  next: {needs: neutral, call: builtins:dict}
"""
    made = run(text, first=ValueError("no"))
    assert (made.states["one"], made.states["two"]) == ("skipped", "skipped")
    assert made.states["next"] == "finished"


def test_a_branch_inside_a_nested_workflow_and_under_finally() -> None:
    text = """
jobs:
  nested: {workflow: w}
finally:
  told: {if: run.status == "failed", else: fine, call: builtins:dict}
  fine: {call: builtins:dict}
  more: {needs: told, call: builtins:dict}
workflows:
  w:
    jobs:
      a: {if: 1 > 2, else: b, call: builtins:dict}
      c: {needs: a, call: builtins:dict}
      b: {call: builtins:dict}
"""
    made = run(text, **{"nested.b": 1})
    ended = {name: made.states[name] for name in ("nested.a", "nested.b", "nested.c")}
    assert ended == {"nested.a": "skipped", "nested.b": "finished", "nested.c": "skipped"}
    assert [made.states[name] for name in ("told", "fine", "more")] == [
        *("skipped", "finished", "skipped")
    ]


def test_problems_of_branches() -> None:
    text = """
jobs:
  a: {if: 1 > 2, else: [x, skip], run: echo}
  b: {if: 1 > 2, else: a, run: echo}
  c: {else: b, run: echo}
  d: {if: 1 > 2, else: a, run: echo}
  e: {if: 1 > 2, else: f, needs: f, run: echo}
  f: {run: echo}
  g: {if: 1 > 2, else: last, run: echo}
finally:
  last: {run: echo}
"""
    workflow = parse_workflow(
        text.replace("  c: {else: b, run: echo}\n", "").replace("[x, skip]", "[b, skip]"), "w.yaml"
    )
    assert {each.code for each in find_problems(workflow, imports=False)} == {
        *(TWO_BRANCHES, CYCLE, FINALLY_OUT_OF_ORDER)
    }
    with pytest.raises(flowq.WorkflowInvalid) as raised:
        parse_workflow(text, "w.yaml")
    assert {each.code for each in raised.value.problems} == {KEY_OUT_OF_PLACE}
    lost = parse_workflow("jobs: {a: {if: 1 > 2, else: x, run: echo}}", "w.yaml")
    assert [each.code for each in check(lost, build_graph(lost))] == [UNKNOWN_JOB]


def test_both_fronts_and_exports_declare_the_same() -> None:
    workflow = parse_workflow(TREE, "w.yaml")
    assert parse_workflow(export_yaml(workflow), "w.yaml").jobs == workflow.jobs
    assert 'else_="small"' in export_python(workflow)
    flow = flowq.Workflow("w")
    other = flow.shell("other", "echo")
    flow.shell("one", "echo", if_="1 > 2", else_=other)
    assert flow.spec().jobs[1].else_ == ("other",)


def test_older_workers_refuse_a_nested_workflow_with_branches() -> None:
    plan = compile_plan(parse_workflow(TREE, "w.yaml"), run_id="r", imports=False)
    for each in plan.enqueues:
        if isinstance(each.does, Start):
            assert call_of(each)[1][0][KEY] == SETTINGS_FORMAT


@pytest.mark.parametrize("seed", range(40))
def test_random_branches_keep_their_rules(seed: int) -> None:
    dice = random.Random(seed)
    names = [f"j{number}" for number in range(12)]
    free = set(names)
    jobs = []
    for at, name in enumerate(names):
        needs = tuple(dice.sample(names[:at], min(at, dice.choice([0, 1, 1, 2]))))
        later = [each for each in names[at + 1 :] if each in free]
        said = dice.choice([None, "skip", *later[:2]]) if dice.random() < 0.6 else None
        free.discard(said or "")
        is_true = dice.choice(["true", "false"]) if said or dice.random() < 0.2 else None
        else_ = (said,) if said else ()
        jobs.append(JobSpec(name, run=Shell("echo"), needs=needs, if_=is_true, else_=else_))
    graph = build_graph(Workflow("w", tuple(jobs)))
    status: dict[str, str] = {}
    reached: dict[str, bool] = {}
    for name in graph.topological_order:
        known = {each: {"status": how} for each, how in status.items()}
        conditions = graph.branches.get(name, ())
        reached[name] = all(decide(as_template(each.source), jobs=known) for each in conditions)
        runs = reached[name] and graph.job_by_name[name].if_ != "false"
        status[name] = "finished" if runs else "skipped"
    instead_of = {each: job.name for job in jobs for each in job.else_}
    for job in jobs:
        if instead_of.get(job.name) in job.needs:  # it waits for that one anyway
            continue
        needed = [status[each] for each in job.needs]
        passes = [each for each in job.needs if graph.job_by_name[each].else_]
        if passes and set(needed) == {"skipped"}:
            assert status[job.name] == "skipped"
        for other in (each for each in job.else_ if each != "skip"):
            assert not (status[job.name] == "finished" and status[other] == "finished")
            if status[other] == "finished":
                assert reached[job.name]
        if not graph.branches.get(job.name):
            assert reached[job.name]
            assert job.name not in instead_of
