"""The rules of shell commands."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import PureWindowsPath

from flowq.checks.quotes import find_unsafe
from flowq.errors import Excerpt, Problem
from flowq.expressions import find_references
from flowq.expressions.references import Reference, find_whole_reference
from flowq.expressions.refusals import Refused
from flowq.expressions.templates import Expression, split
from flowq.graph import Graph
from flowq.spec import Shell, Workflow

_UNQUOTABLE = frozenset({"cmd"})


def check_commands(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """On `cmd`, which has no safe way to quote, a command holds no expressions."""
    for job in graph:
        if job.run is None or not _is_unquotable(job.run):
            continue
        if find_references(job.run.command).roots:
            message = f"the command of job {job.name} holds an expression, and cmd cannot quote it"
            hint = "pass the value under `env:` and write !NAME!, or write the command as a list"
            problem = Problem("FQ224", message, hint=hint, excerpt=Excerpt(number=0))
            yield from workflow.places.place(problem, "jobs", job.name, "run")


def check_quotes(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """An expression in a command stands outside of quotes, because it brings its own."""
    for job in graph:
        for number, expression in _find_unsafe(job.run):
            message = f"job {job.name} has {expression} within quotes, or where quotes do not hold"
            hint = (
                'its value is quoted already: close the quotes before it, as in "a "${{ … }}" b", '
                'or pass it under `env:` and write "$NAME"; a command as a list needs no quotes'
            )
            problem = Problem("FQ228", message, hint=hint, excerpt=Excerpt(number=number))
            yield from workflow.places.place(problem, "jobs", job.name, "run")


def check_arguments(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """An expression in a command that is a list gives one value, as far as that is known."""
    lists = {declared.name for declared in workflow.inputs if declared.type == "list"}
    for job in workflow.jobs:
        command = job.run.command if job.run is not None else ""
        for index, item in enumerate(() if isinstance(command, str) else command):
            for number, expression in enumerate(_expressions_in(item)):
                whole = find_whole_reference(expression.source)
                if whole is not None and _is_several(whole, lists, graph):
                    message = f"job {job.name} has {expression} as an argument, and it is several"
                    hint = (
                        'join them: ${{ x | join(" ") }}; take one: x[0]; or write ${{ x | json }}'
                    )
                    problem = Problem("FQ235", message, hint=hint, excerpt=Excerpt(number=number))
                    yield from workflow.places.place(problem, "jobs", job.name, "run", index)


def _expressions_in(item: str) -> list[Expression]:
    try:
        return [part for part in split(item) if isinstance(part, Expression)]
    except Refused:  # what cannot be read is FQ301
        return []


def _is_several(reference: Reference, lists: Collection[str], graph: Graph) -> bool:
    if reference.root == "jobs":
        job = graph.job_by_name.get(reference.name)
        is_outputs = job is not None and bool(job.workflow) and reference.attribute == "result"
        return is_outputs or reference.attribute in ("results", "outcomes", "by_key")
    if reference.root == "inputs":
        return reference.name in lists
    return reference.root == "matrix" and not reference.name


def _find_unsafe(run: Shell | None) -> list[tuple[int, Expression]]:
    if run is None or not isinstance(run.command, str) or _is_unquotable(run):
        return []
    try:
        return find_unsafe(run.command)
    except Refused:  # what cannot be read is FQ301
        return []


def _is_unquotable(run: Shell) -> bool:
    is_for_shell = isinstance(run.command, str)
    return is_for_shell and PureWindowsPath(run.shell or "").stem.lower() in _UNQUOTABLE
