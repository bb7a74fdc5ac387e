"""Workflows, for programs: load one, check it, compile it to a plan.

It is separate from `flowq.client`, so that commands about runs import no readers and checks.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from flowq.callables import find_callable
from flowq.checks import check, check_calls, in_text_order
from flowq.declare.nodes import collector_paused
from flowq.errors import Problem, WorkflowInvalid
from flowq.expressions import one_budget
from flowq.graph import Graph, build_graph
from flowq.inputs import resolve_inputs
from flowq.labels import add_labels, check_labels
from flowq.pictures.stored import make_source
from flowq.plan import Continued, Plan, Source
from flowq.planner import make_plan
from flowq.selecting import Selection, select
from flowq.spec import Workflow
from flowq.targets import load_partly

__all__ = ["compile_plan", "find_problems", "load", "make_run_id"]

RUN_ID_LENGTH = 12


def load(target: str, *, imports: bool = False) -> Workflow:
    """Return the workflow that `target` names: `file.yaml`, `file.py:name`, `package.module:name`.

    Errors: WorkflowNotFound; WorkflowInvalid for a text with problems, including those that
    `find_problems` finds in its known parts.
    """
    workflow, problems = load_partly(target)
    if not problems:
        return workflow
    more = [each for each in find_problems(workflow, imports=imports) if each.severity == "error"]
    raise WorkflowInvalid(in_text_order([*problems, *more], _file_of(workflow)))


def find_problems(workflow: Workflow, *, imports: bool = True) -> list[Problem]:
    """Return all problems of a workflow, including warnings, in the order of its text.

    With `imports`, import the functions and check their signatures; without, only the workers need
    the code.
    """
    with collector_paused():
        return _find_problems(workflow, build_graph(workflow), imports)


def _find_problems(workflow: Workflow, graph: Graph, imports: bool) -> list[Problem]:
    with one_budget():
        problems = list(check(workflow, graph))
        if imports:
            problems += check_calls(workflow, graph, find_callable)
    return in_text_order(problems, _file_of(workflow))


def _file_of(workflow: Workflow) -> str:
    where = workflow.places.find()
    return where.file if where else ""


def compile_plan(
    workflow: Workflow,
    inputs: Mapping[str, Any] | None = None,
    *,
    run_id: str | None = None,
    imports: bool = True,
    warn: Callable[[Problem], object] | None = None,
    labels: Mapping[str, str] | None = None,
    due_at: str = "",
    selection: Selection | None = None,
    keeping: Callable[[Graph, Source, Mapping[str, Any]], Continued] | None = None,
) -> Plan:
    """Check a workflow and its inputs, and compile them to a plan; nothing is enqueued.

    `labels` are added to those of the workflow (`flowq.labels`). `due_at` is as in `Plan`. The
    jobs that are not in the `selection` are left out. `keeping` chooses what is kept of an earlier
    run (`flowq.continuing`). If there are only warnings, `warn` is called with each of them.
    Errors: WorkflowInvalid with all problems; UsageError for `labels`; those of `select` and
    `keeping`.
    """
    more_labels = check_labels(labels)
    with collector_paused():
        graph = build_graph(workflow)
        problems = _find_problems(workflow, graph, imports)
        values: dict[str, Any] = {}
        try:
            values = resolve_inputs(workflow, inputs or {})
        except WorkflowInvalid as invalid:
            problems += invalid.problems
        if any(problem.severity == "error" for problem in problems):
            raise WorkflowInvalid(problems)
        for problem in problems:
            if warn:
                warn(problem)
        graph = select(graph, selection)
        plan = make_plan(graph, values, run_id or make_run_id(), due_at)
        added, source = add_labels(plan.labels, more_labels), make_source(graph)
        continued = keeping(graph, source, values) if keeping else None
        return replace(plan, source=source, labels=added, continued=continued)


def make_run_id(length: int = RUN_ID_LENGTH) -> str:
    """Return a new run id: so many of a–z and 0–9."""
    letters = string.ascii_lowercase + string.digits
    return "".join(secrets.choice(letters) for _ in range(length))
