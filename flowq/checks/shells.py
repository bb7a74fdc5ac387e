"""The rules of shell commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PureWindowsPath

from flowq.checks.quotes import find_unsafe
from flowq.errors import Excerpt, Problem
from flowq.expressions import find_references
from flowq.expressions.refusals import Refused
from flowq.expressions.templates import Expression
from flowq.graph import Graph
from flowq.spec import Shell, Workflow

_UNQUOTABLE = frozenset({"cmd"})


def check_commands(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """On `cmd`, which has no safe way to quote, a command holds no expressions."""
    for job in workflow.jobs:
        if job.run is None or not _is_unquotable(job.run):
            continue
        if find_references(job.run.command).roots:
            message = f"the command of job {job.name} holds an expression, and cmd cannot quote it"
            hint = "pass the value under `env:` and write !NAME!, or write the command as a list"
            problem = Problem("FQ224", message, hint=hint, excerpt=Excerpt(number=0))
            yield from workflow.places.place(problem, "jobs", job.name, "run")


def check_quotes(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """An expression in a command stands outside of quotes, because it brings its own."""
    for job in workflow.jobs:
        for number, expression in _find_unsafe(job.run):
            message = f"job {job.name} has {expression} within quotes, or where quotes do not hold"
            hint = (
                'its value is quoted already: close the quotes before it, as in "a "${{ … }}" b", '
                'or pass it under `env:` and write "$NAME"; a command as a list needs no quotes'
            )
            problem = Problem("FQ228", message, hint=hint, excerpt=Excerpt(number=number))
            yield from workflow.places.place(problem, "jobs", job.name, "run")


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
