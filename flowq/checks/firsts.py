"""The rules of jobs that start at the first success or failure of a job before them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flowq.checks.groups import KEYS_OF_GROUPS
from flowq.errors import Excerpt, Problem
from flowq.expressions.places import find_texts
from flowq.expressions.templates import find_expressions
from flowq.graph import Graph
from flowq.problems import MAY_BE_MISSING, NOTHING_TO_START_AT
from flowq.spec import JobSpec, Workflow

_STRING = re.compile(r"""'[^']*'|"[^"]*\"""")
_WITH_DEFAULT = re.compile(r"\b(or|if)\b")
_MAY_BE_NONE = frozenset({"if"})
"""In a condition, none is a value like others."""


def check_starts(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A job with `start_when` has jobs before it, which it need not all wait for."""
    for job in workflow.jobs:
        if job.start_when is None:
            continue
        where = workflow.places.find("jobs", job.name, "start_when")
        before = graph.predecessors(job.name)
        if job.is_final:
            message = f"job {job.name} has `start_when`, but jobs under `finally` wait for all jobs"
            hint = "move it to `jobs`, or remove `start_when`"
            yield Problem(NOTHING_TO_START_AT, message, where, hint)
        elif not before and not _is_partly_read(workflow):
            message = f"job {job.name} has `start_when`, but no job before it"
            yield Problem(NOTHING_TO_START_AT, message, where, "name the jobs under `needs`")
        elif job.cancel_rest and len(before) == 1 and not _may_be_several(job, graph):
            where = workflow.places.find("jobs", job.name, "cancel_rest")
            message = f"`cancel_rest` of job {job.name} changes nothing: it waits for a single job"
            hint = "remove it, or name several jobs, or a group, under `needs`"
            yield Problem(NOTHING_TO_START_AT, message, where, hint, severity="warning")


def _is_partly_read(workflow: Workflow) -> bool:
    """Whether a part could not be read that may have declared an edge."""
    return bool(workflow.unread)


def _may_be_several(job: JobSpec, graph: Graph) -> bool:
    [name] = graph.predecessors(job.name)
    return job.deferred or _is_group(graph.job_by_name[name])


def _is_group(job: JobSpec) -> bool:
    return any(getattr(job, key, None) is not None for key in KEYS_OF_GROUPS)


def check_missing_results(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A job with `start_when` gives the results that may be missing a default."""
    for job in workflow.jobs:
        if job.start_when is None or len(graph.predecessors(job.name)) < 2:
            continue
        for path, text in find_texts(job):
            for _, source in find_expressions(text):
                bare = _STRING.sub("''", source)
                if path[0] in _MAY_BE_NONE or _WITH_DEFAULT.search(bare):
                    continue
                for name in graph.predecessors(job.name):
                    if re.search(rf"\bjobs\.{re.escape(name)}\.result\b", bare):
                        place = ("jobs", job.name, *path)
                        yield from workflow.places.place(_missing(job, name), *place)


def _missing(job: JobSpec, name: str) -> Problem:
    message = f"job {job.name} may start before {name} has ended: then jobs.{name}.result is none"
    result = f"jobs.{name}.result"
    hint = f"give it a default: {result} or …; or ask jobs.{name}.status first"
    excerpt = Excerpt(names=("jobs", name, "result"))
    return Problem(MAY_BE_MISSING, message, hint=hint, excerpt=excerpt)
