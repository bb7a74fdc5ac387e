"""Load the workflow that the command line names, and make its plan."""

from __future__ import annotations

import os
from collections.abc import Mapping

from flowq import compiling, targets
from flowq.cli import terminal
from flowq.errors import FlowqError, Problem, WorkflowInvalid
from flowq.graph import Graph, build_graph
from flowq.plan import Plan
from flowq.render.lines import spelled, spelled_line
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
) -> Plan:
    """Return the plan of a run; warnings go to stderr. Errors: those of `compile_plan`.

    Inputs on the command line override those of the file, which override the environment's.
    """
    workflow = load(target, imports)
    from_file = targets.read_inputs(inputs_file) if inputs_file else {}
    inputs = {**targets.find_inputs(workflow, os.environ), **from_file, **given}
    with terminal.users_code():
        return compiling.compile_plan(workflow, inputs, imports=imports, warn=_warn, labels=labels)


def checked_graph(target: str) -> Graph:
    """Return the graph of a valid workflow, without importing its functions.

    Errors: WorkflowNotFound; WorkflowInvalid.
    """
    workflow = load(target)
    problems = compiling.find_problems(workflow, imports=False)
    if any(problem.severity == "error" for problem in problems):
        raise WorkflowInvalid(problems)
    return build_graph(workflow)


def _warn(problem: Problem) -> None:
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
