"""The rules of shell commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PureWindowsPath

from flowq.errors import Problem
from flowq.expressions import find_references
from flowq.graph import Graph
from flowq.spec import Workflow

_UNQUOTABLE = frozenset({"cmd"})


def check_commands(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """On `cmd`, which has no safe way to quote, a command holds no expressions."""
    for job in workflow.jobs:
        if job.run is None or not job.run.shell:
            continue
        if PureWindowsPath(job.run.shell).stem.lower() not in _UNQUOTABLE:
            continue
        if find_references(job.run.command).roots:
            message = f"the command of job {job.name} holds an expression, and cmd cannot quote it"
            where = workflow.places.find("jobs", job.name, "run")
            hint = "pass the value under `env:`, and write !NAME! in the command"
            yield Problem("FQ224", message, where, hint)
