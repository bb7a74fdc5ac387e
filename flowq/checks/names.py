"""The rules of names: there are some, none twice, and each is used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from flowq.errors import Problem
from flowq.expressions import find_references
from flowq.expressions.places import find_workflow_texts
from flowq.graph import Graph
from flowq.problems import BAD_JOB_NAME, DECLARED_TWICE, NO_JOBS, UNUSED_INPUT, UNUSED_WORKFLOW
from flowq.spec import Workflow

MAX_NAME_LENGTH = 200
"""Characters of a job name; ids are part of Redis keys and of every line that shows a job."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)


def check_duplicates(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """No name is declared twice."""
    names = {"jobs": [job.name for job in workflow], "inputs": [i.name for i in workflow.inputs]}
    for thing, declared in names.items():
        if len(set(declared)) == len(declared):
            continue
        for name, count in Counter(declared).items():
            if count > 1:
                message = f"{thing[:-1]} {name} is declared {count} times"
                where = workflow.places.find(thing, name)
                yield Problem(DECLARED_TWICE, message, where, "give each a name of its own")


def check_job_names(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A job's name can be part of a job id."""
    for job in graph:
        if not workflow.is_whole("jobs", job.name, "name"):
            continue
        if reason := _find_refusal(job.name):
            where = workflow.places.find("jobs", job.name)
            hint = "a name becomes part of a job id: letters, digits, _ and single - only"
            yield Problem(BAD_JOB_NAME, f"the job name {job.name!r} {reason}", where, hint)


def _find_refusal(name: str) -> str | None:
    if len(name) > MAX_NAME_LENGTH:
        return f"is {len(name)} characters long; {MAX_NAME_LENGTH} are allowed"
    if "--" in name:
        return "holds --, which separates the items of a group in job ids"
    if not _NAME.fullmatch(name):
        return "is refused"
    return None


def check_presence(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A workflow has jobs."""
    if all(job.is_final for job in workflow.jobs) and workflow.is_whole("jobs"):
        message = f"the workflow {workflow.name} has no jobs"
        yield Problem(NO_JOBS, message, workflow.places.find("jobs"), "add one under `jobs:`")


def check_unused_inputs(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """Every input is used (a warning)."""
    of_jobs = (uses for _, uses in chain.from_iterable(graph.uses_by_name.values()))
    of_workflow = (find_references(text) for _, text in find_workflow_texts(workflow))
    used = {name for uses in chain(of_jobs, of_workflow) for name in uses.inputs}
    for declared in workflow.inputs:
        if declared.name not in used:
            message = f"no job uses the input {declared.name}"
            hint = f"use it as ${{{{ inputs.{declared.name} }}}}, or take it away"
            where = workflow.places.find("inputs", declared.name)
            yield Problem(UNUSED_INPUT, message, where, hint, severity="warning")


def check_unused_workflows(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """Every workflow under `workflows` is used (a warning)."""
    places = workflow.places.where_by_path
    if ("workflows",) not in places:
        return
    used = set(_named(workflow))
    for name in (str(path[1]) for path in places if len(path) == 2 and path[0] == "workflows"):
        if name not in used:
            message = f"no job uses the workflow {name}"
            hint = f"write `workflow: {name}` at a job, or take it away"
            where = workflow.places.find("workflows", name)
            yield Problem(UNUSED_WORKFLOW, message, where, hint, severity="warning")


def _named(workflow: Workflow) -> Iterator[str]:
    """Yield the workflows that jobs name, here and further inside."""
    yield from (job.workflow for job in workflow.jobs)
    for nested in workflow.workflows.values():
        yield from _named(nested)
