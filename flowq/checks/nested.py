"""The rules of workflows inside workflows: they are there, and get the inputs that they declare."""

from __future__ import annotations

from collections.abc import Iterator

from flowq.checks.fitting import find_misfit
from flowq.errors import Problem
from flowq.graph import Graph
from flowq.nearest import did_you_mean
from flowq.problems import BAD_NESTED_INPUTS, CONCURRENCY_OF_NESTED, NO_SUCH_WORKFLOW
from flowq.spec import JobSpec, Workflow


def check_nested(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A nested workflow is there, gets its required inputs, and no others."""
    for job in workflow.jobs:
        if not job.workflow:
            continue
        nested = workflow.workflows.get(job.workflow)
        if nested is not None:
            yield from _arguments(workflow, job, nested)
        elif workflow.is_whole("workflows", job.workflow) and workflow.is_known(
            job.name, "workflow"
        ):
            where = workflow.places.find("jobs", job.name, "workflow")
            message = f"job {job.name} runs the workflow {job.workflow}, which is not there"
            hint = did_you_mean(job.workflow, workflow.workflows)
            yield Problem(NO_SUCH_WORKFLOW, message, where, hint or "declare it under `workflows:`")


def check_concurrency(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """What holds whole runs back stands at the workflow that is run (a warning)."""
    for job in workflow.jobs:
        nested = workflow.workflows.get(job.workflow)
        if nested is not None and nested.concurrency is not None:
            message = f"job {job.name} does not heed the `concurrency` of {nested.name}"
            hint = "it is for runs: say it at the workflow that is run"
            where = workflow.places.find("jobs", job.name, "workflow")
            yield Problem(CONCURRENCY_OF_NESTED, message, where, hint, severity="warning")


def _arguments(workflow: Workflow, job: JobSpec, nested: Workflow) -> Iterator[Problem]:
    input_by_name = {declared.name: declared for declared in nested.inputs}
    whole = [d for d in nested.inputs if nested.is_whole("inputs", d.name)]
    places = workflow.places
    for name, value in job.with_.items():
        where = places.find("jobs", job.name, "with", name)
        if name in input_by_name:
            if not nested.is_whole("inputs", name, "type"):
                continue
            if misfit := find_misfit(input_by_name[name], value, workflow, job):
                reason, hint = misfit
                message = f"job {job.name} passes {name} to {nested.name}, and that {reason}"
                yield Problem(BAD_NESTED_INPUTS, message, where, hint)
        elif nested.is_whole("inputs"):
            message = f"job {job.name} passes {name}, and {nested.name} has no such input"
            hint = did_you_mean(name, input_by_name) or "take it away, or declare it there"
            yield Problem(BAD_NESTED_INPUTS, message, where, hint)
    missing = [d.name for d in whole if d.required and d.name not in job.with_]
    if missing and workflow.is_known(job.name, "with"):
        message = f"job {job.name} does not pass {', '.join(missing)} to {nested.name}"
        where = places.find("jobs", job.name, "with")
        hint = f"add it under `with:`, as in {missing[0]}: …"
        yield Problem(BAD_NESTED_INPUTS, message, where, hint)
