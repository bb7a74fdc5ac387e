"""Load the workflow that the command line names, and make its plan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from flowq import compiling, targets
from flowq.cli import terminal
from flowq.errors import FlowqError, Problem, WorkflowInvalid
from flowq.graph import Graph, build_graph
from flowq.plan import Plan
from flowq.render.lines import spelled, spelled_line
from flowq.selecting import Selection, select
from flowq.spec import Input, Workflow


def load(target: str, imports: bool = False) -> Workflow:
    """Return the workflow that a target names. Errors: WorkflowNotFound; WorkflowInvalid."""
    with terminal.users_code():
        return compiling.load(target, imports=imports)


def make_plan(
    target: str,
    given: Mapping[str, str],
    inputs_file: str | None,
    imports: bool,
    labels: Mapping[str, str] | None = None,
    selection: Selection | None = None,
) -> Plan:
    """Return the plan of a run; warnings go to stderr. Errors: those of `compile_plan`."""
    workflow = load(target, imports)
    inputs = read_inputs(workflow, given, inputs_file)
    with terminal.users_code():
        return compiling.compile_plan(
            workflow, inputs, imports=imports, warn=warn, labels=labels, selection=selection
        )


def checked_graph(target: str, selection: Selection | None = None) -> Graph:
    """Return the graph of a valid workflow, or of a part of it, without importing its functions.

    Errors: WorkflowNotFound; WorkflowInvalid; those of `select`.
    """
    workflow = load(target)
    problems = compiling.find_problems(workflow, imports=False)
    if any(problem.severity == "error" for problem in problems):
        raise WorkflowInvalid(problems)
    return select(build_graph(workflow), selection)


def warn(problem: Problem) -> None:
    """Print a warning about a workflow on standard error."""
    terminal.note(str(problem))


def describe_inputs(target: str) -> list[tuple[str, str]]:
    """Return the help text for a workflow's inputs; empty if the workflow has problems."""
    try:
        inputs = load(target).inputs
    except FlowqError:
        return []
    return [
        (f"-i {declared.name}={_placeholder(declared)}", _explained(declared))
        for declared in inputs
    ]


def _placeholder(declared: Input) -> str:
    return spelled_line("|".join(declared.choices)) or declared.type.upper()


def _explained(declared: Input) -> str:
    need = "required" if declared.required else f"default: {declared.default!r}"
    shape = f"; {declared.pattern}" if declared.pattern is not None else ""
    return spelled(f"{spelled_line(declared.description)}  [{need}{shape}]".strip())


def read_inputs(
    workflow: Workflow, given: Mapping[str, str], inputs_file: str | None
) -> dict[str, Any]:
    """Return the inputs of a run: the command line's override the file's, which override the
    environment's."""
    from_file = targets.read_inputs(inputs_file) if inputs_file else {}
    return {**targets.find_inputs(workflow, os.environ), **from_file, **given}
