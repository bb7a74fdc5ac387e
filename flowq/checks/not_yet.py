"""What can be declared, and not run yet: refused, never ignored."""

from __future__ import annotations

from collections.abc import Iterator

from flowq.errors import Problem
from flowq.graph import Graph
from flowq.spec import Workflow


def check_support(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """Only what this version supports is used."""
    for job in workflow.jobs:
        if job.workflow and job.continue_on_error is not None:
            where = workflow.places.find("jobs", job.name, "continue_on_error")
            message = f"`continue_on_error` of the workflow {job.name} is not supported yet"
            hint = "say it at the jobs inside that workflow"
            yield Problem("FQ107", message, where, hint)
