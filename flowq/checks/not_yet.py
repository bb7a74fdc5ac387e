"""What can be declared, and not run yet: refused, never ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from flowq.errors import Problem
from flowq.expressions import find_references
from flowq.expressions.places import find_workflow_texts
from flowq.graph import Graph
from flowq.spec import JobSpec, Workflow

NOT_YET: frozenset[str] = frozenset()
"""Keys and expressions by the name in the tables below. Who makes one run takes it out."""

_USED_IN_A_JOB: Mapping[str, Callable[[JobSpec], bool]] = {
    "for_each": lambda job: job.for_each is not None,
    "matrix": lambda job: job.matrix is not None,
    "max_parallel": lambda job: job.max_parallel is not None,
    "fail_fast": lambda job: job.fail_fast,
    "if": lambda job: job.if_ is not None,
    "continue_on_error": lambda job: job.continue_on_error is not None,
    "run": lambda job: job.run is not None,
    "workflow": lambda job: bool(job.workflow),
    "approval": lambda job: job.approval is not None,
    "env": lambda job: bool(job.env),
    "cwd": lambda job: job.cwd is not None,
    "if_empty": lambda job: job.if_empty is not None,
    "on_crash": lambda job: job.on_crash is not None,
    "expires": lambda job: job.expires_s is not None,
    "at_front": lambda job: job.at_front,
}
_USED_IN_A_WORKFLOW: Mapping[str, Callable[[Workflow], bool]] = {
    "env": lambda workflow: bool(workflow.env),
    "outputs": lambda workflow: bool(workflow.outputs),
    "max_parallel": lambda workflow: workflow.max_parallel is not None,
    "concurrency": lambda workflow: workflow.concurrency is not None,
    "schedule": lambda workflow: workflow.schedule is not None,
}


def check_support(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """Only keys that this version supports are used."""
    for key, is_used in _USED_IN_A_WORKFLOW.items():
        if key in NOT_YET and is_used(workflow):
            where = workflow.places.find(key)
            yield Problem("FQ107", f"`{key}` is not supported yet in this version", where)
    for key in NOT_YET & _USED_IN_A_JOB.keys():
        is_used_by = _USED_IN_A_JOB[key]
        for job in filter(is_used_by, workflow.jobs):
            where = workflow.places.find("jobs", job.name, key)
            message = f"`{key}` of job {job.name} is not supported yet in this version"
            yield Problem("FQ107", message, where)
    for job in workflow.jobs:
        if job.workflow and job.continue_on_error is not None:
            where = workflow.places.find("jobs", job.name, "continue_on_error")
            message = f"`continue_on_error` of the workflow {job.name} is not supported yet"
            hint = "say it at the jobs inside that workflow"
            yield Problem("FQ107", message, where, hint)
    yield from _expressions(workflow, graph)


def _expressions(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    uses = [use for uses in graph.uses_by_name.values() for use in uses]
    uses += ((path, find_references(text)) for path, text in find_workflow_texts(workflow))
    for path, references in uses:
        used = {f"jobs.NAME.{attribute}" for _, attribute in references.jobs}
        used |= {f"{root}.NAME" for root in references.roots}
        for name in sorted(used & NOT_YET):
            where = workflow.places.find(*path)
            yield Problem("FQ107", f"{name} is not supported yet in this version", where)
