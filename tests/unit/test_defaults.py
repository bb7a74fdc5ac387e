"""`defaults`: what jobs get that do not say otherwise, in both fronts and in the plan."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from flowq.checks import check
from flowq.declare.keys import DEFAULTS as SHARED
from flowq.declare.keys import JOB
from flowq.declare.python import Workflow as Flow
from flowq.errors import WorkflowInvalid
from flowq.graph import build_graph
from flowq.plan import Group, Plan, Start
from flowq.planner import make_plan, plan_nested
from flowq.spec import ALL_TOLERATED, Defaults, JobSpec, Shell, Tolerance, Workflow
from tests.reading import parse_partly, parse_workflow

DEFAULTS = """\
inputs: {where: {type: str, default: build}}
defaults:
  queue: slow
  at_front: true
  timeout: 10m
  retries: 2
  expires: 1d
  on_crash: fail
  secret_results: refuse
  on_blocker_failure: run
  continue_on_error: true
  cwd: a/${{ inputs.where }}
  shell: sh
  result: json
  max_parallel: 3
  fail_fast: true
  max_items: 7
"""
JOBS = """\
jobs:
  plain: {run: x}
  own: {run: x, at_front: false, timeout: 1m, expires: 2d, on_crash: requeue, needs: plain,
        secret_results: mask,
        on_blocker_failure: skip, continue_on_error: false, cwd: b, shell: bash, result: last}
  program: {run: [x]}
  asks: {run: x, needs: plain, if: always()}
  group: {for_each: [1, 2], run: x}
  calm: {for_each: [1], run: x, fail_fast: false, max_items: 9, max_parallel: 1,
         continue_on_error: 1}
  inner: {workflow: deep}
finally:
  end: {call: m:f}
workflows: {deep: {defaults: {cwd: in}, jobs: {a: {run: y}}}}
"""


def plan_of(text: str) -> Plan:
    workflow = parse_workflow(text, "x.yaml")
    return make_plan(build_graph(workflow), {"where": "build"}, "r")


def test_a_job_gets_what_it_does_not_say_itself() -> None:
    jobs = {each.name: each for each in plan_of(DEFAULTS + JOBS).enqueues}
    plain, own, program, end = (jobs[name] for name in ("plain", "own", "program", "end"))
    for job in (plain, program, end):
        assert (job.queue, job.at_front, job.timeout_s, job.expires_s) == ("slow", True, 600, 86400)
        assert (job.on_crash, job.on_blocker_failure) == ("fail", "run")
        assert (job.is_tolerated, job.cwd, job.refuses_secrets) == (True, "a/build", True)
    assert isinstance(plain.does, Shell)
    assert (plain.does.shell, plain.does.result) == ("sh", "json")
    assert isinstance(program.does, Shell)
    assert (program.does.shell, program.does.result) == (None, "json")
    assert (own.at_front, own.timeout_s, own.expires_s) == (False, 60, 172800)
    assert (own.on_crash, own.on_blocker_failure) == ("requeue", "skip")
    assert (own.is_tolerated, own.cwd, own.refuses_secrets) == (False, "b", False)
    assert isinstance(own.does, Shell)
    assert (own.does.shell, own.does.result) == ("bash", "last")


def test_groups_conditions_and_workflows_take_what_means_something_for_them() -> None:
    plan = plan_of(DEFAULTS + JOBS)
    jobs = {each.name: each for each in plan.enqueues}
    groups = {each.name: each for each in plan if isinstance(each, Group)}
    group, calm = groups["group"], groups["calm"]
    assert (group.max_parallel, group.fail_fast, group.max_items) == (3, True, 7)
    assert (calm.max_parallel, calm.fail_fast, calm.max_items) == (1, False, 9)
    assert (group.tolerance, calm.tolerance) == (ALL_TOLERATED, Tolerance(count=1))
    assert jobs["asks"].condition == "always()"
    assert jobs["inner(start)"].cwd is None
    assert jobs["inner"].does.retries is None
    assert not jobs["inner"].refuses_secrets


def test_what_is_inside_a_workflow_has_its_own_defaults_and_carries_them_in_its_jobs() -> None:
    nested = next(
        each.does.nested
        for each in plan_of(DEFAULTS + JOBS).enqueues
        if isinstance(each.does, Start)
    )
    assert [job.cwd for job in nested.workflow.jobs] == ["in"]
    assert nested.workflow.defaults.cwd is None  # older workers do not know it
    _, (inner,) = plan_nested(nested, {}, {})
    assert (inner.cwd, inner.queue, inner.at_front) == ("in", "default", None)


def test_both_fronts_say_the_same() -> None:
    flow = Flow(
        "x",
        inputs={"where": "build"},
        defaults={
            "queue": "slow",
            "at_front": True,
            "timeout": "10m",
            "retries": 2,
            "expires": "1d",
            "on_crash": "fail",
            "secret_results": "refuse",
            "on_blocker_failure": "run",
            "continue_on_error": True,
            "cwd": f"a/{Flow.inputs.where}",
            "shell": "sh",
            "result": "json",
            "max_parallel": 3,
            "fail_fast": True,
            "max_items": 7,
        },
    )
    flow.shell("plain", "x")
    assert flow.spec() == parse_workflow(f"{DEFAULTS}jobs: {{plain: {{run: x}}}}", "x.yaml")


REFUSED = [word for word in JOB.keys if word not in SHARED.keys]


def test_each_key_of_a_job_is_taken_or_refused_with_a_reason() -> None:
    assert all(SHARED.foreign[word] for word in REFUSED)
    attributes = {key.attribute.rpartition(".")[2] for key in SHARED.keys.values()}
    assert attributes == {each.name for each in fields(Defaults)} - {"settings"}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_for_all_jobs_is_refused_with_the_same_words_in_both_fronts(key: str) -> None:
    _, (problem,) = parse_partly(f"defaults: {{{key}: a}}\njobs: {{a: {{call: m:f}}}}", "x.yaml")
    flow = Flow("x", defaults={key: "a"})
    flow.call("a", "m:f")
    with pytest.raises(WorkflowInvalid) as caught:
        flow.spec()
    (other,) = caught.value.problems
    assert (problem.code, problem.message, problem.hint) == (other.code, other.message, other.hint)
    assert problem.hint == SHARED.foreign[key]


def test_wrong_values_in_python_are_all_told_with_their_key() -> None:
    flow = Flow("x", defaults={"timeout": "soon", "fail_fast": 1, "cdw": "x"})
    flow.call("a", "m:f")
    with pytest.raises(WorkflowInvalid) as caught:
        flow.spec()
    first, second, third = sorted(problem.message for problem in caught.value.problems)
    assert first.startswith("fail_fast of defaults ")
    assert second.startswith("timeout of defaults ")
    assert third == "unknown key 'cdw' in defaults"


@pytest.mark.parametrize(
    ("defaults", "codes"),
    [
        ("cwd: '${{ inputs.none }}'", ["FQ205"]),
        ("cwd: '${{ item }}'", ["FQ213"]),
        ("cwd: '${{ jobs.a.result }}'", ["FQ213"]),
        ("cwd: '${{ env.API_KEY }}'", ["FQ229"]),
        ("cwd: '${{ nothing }}'", ["FQ302"]),
        ("timeout: 2h", ["FQ236"]),
        ("max_parallel: 3, fail_fast: true, on_blocker_failure: run, continue_on_error: 20%", []),
    ],
)
def test_what_is_wrong_in_defaults_is_told_once(defaults: str, codes: list[str]) -> None:
    text = f"timeout: 1h\ndefaults: {{{defaults}}}\njobs: {{a: {{run: x}}, b: {{run: y}}}}\n"
    workflow = parse_workflow(text, "x.yaml")
    found = check(workflow, build_graph(workflow))
    assert [problem.code for problem in found] == codes
    assert all(problem.where and problem.where.line == 2 for problem in found)


def test_a_command_is_checked_for_the_shell_of_the_defaults() -> None:
    jobs = "{a: {run: 'echo ${{ run.id }}'}, b: {run: [echo, '${{ run.id }}']}}"
    text = f"defaults: {{shell: cmd}}\njobs: {jobs}"
    workflow = parse_workflow(text, "x.yaml")
    assert [problem.code for problem in check(workflow, build_graph(workflow))] == ["FQ224"]


def test_a_graph_without_further_defaults_has_the_jobs_themselves() -> None:
    job: Any = JobSpec("a", call="m:f")
    assert build_graph(Workflow("x", (job,))).job_by_name["a"] is job
