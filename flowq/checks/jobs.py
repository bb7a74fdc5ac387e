"""The rules of jobs and their names: one action each, keys that belong together, names in use.

`flowq.checks.check` calls each rule. `flowq.declare` checks each key by itself; these rules involve
several keys or jobs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain

from flowq.declare.keys import JOB
from flowq.errors import Problem
from flowq.expressions import find_references
from flowq.expressions.places import find_workflow_texts
from flowq.graph import Graph
from flowq.problems import (
    BAD_JOB_NAME,
    DECLARED_TWICE,
    KEY_OUT_OF_PLACE,
    NO_JOBS,
    NOT_ONE_ACTION,
    TEXT_TOO_LONG,
    UNUSED_INPUT,
    UNUSED_WORKFLOW,
)
from flowq.spec import JobSpec, Path, Workflow


def check_work(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A job has exactly one of `call`, `run`, `workflow` and `sleep`."""
    for job in workflow.jobs:
        said = [
            key
            for key, is_said in _work_of(job).items()
            if is_said or _is_misread(workflow, job, key)
        ]
        if len(said) > 1:
            message = f"job {job.name} has {' and '.join(f'`{key}`' for key in said)}"
            where = workflow.places.find("jobs", job.name, said[1])
            yield Problem(
                NOT_ONE_ACTION,
                message,
                where,
                "make each a job of its own, and order them with `needs`",
            )
        elif not said and workflow.is_known(job.name, *_work_of(job)):
            where = workflow.places.find("jobs", job.name)
            hint = "name the function that it calls, or the command that it runs"
            yield Problem(NOT_ONE_ACTION, f"job {job.name} does nothing", where, hint)


def _work_of(job: JobSpec) -> Mapping[str, bool]:
    return {
        "call": bool(job.call),
        "run": job.run is not None,
        "workflow": bool(job.workflow),
        "sleep": job.sleep is not None,
    }


def _is_misread(workflow: Workflow, job: JobSpec, key: str) -> bool:
    """Whether a key is written, with a value that could not be read."""
    path = ("jobs", job.name, key)
    return path in workflow.unread and path in workflow.places.where_by_path


def check_meaning(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A key appears only with the key that it belongs to, and not where it means nothing."""
    for job in workflow.jobs:
        for key, message, hint in _meaningless(workflow, job):
            where = workflow.places.find("jobs", job.name, key)
            yield Problem(KEY_OUT_OF_PLACE, f"job {job.name} {message}", where, hint)


def _meaningless(workflow: Workflow, job: JobSpec) -> Iterator[tuple[str, str, str]]:
    def has(word: str) -> bool:
        return bool(JOB.keys[word].find_in(job)) or _is_misread(workflow, job, word)

    for word, key in JOB.keys.items():
        for other, hint in key.not_for.items():
            if has(word) and has(other):
                yield word, f"has `{other}` and `{word}`", hint
    if job.run is not None and job.run.shell and not isinstance(job.run.command, str):
        hint = "remove `shell`, or write the command as one text for that shell"
        yield "shell", "has `shell`, but its command is a list, which runs without a shell", hint


MAX_NAME_LENGTH = 200
"""Characters of a job name; ids are part of Redis keys and of every line that shows a job."""

MAX_TEXT_LENGTH = 2_000
"""Characters of a description or a message; commands show them, and Redis keeps them."""

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
    """A job's name is valid in a job id."""
    for job in graph:
        if not workflow.is_whole("jobs", job.name, "name"):
            continue
        name, reason = job.name, ""
        if len(name) > MAX_NAME_LENGTH:
            reason = f"is {len(name)} characters long; {MAX_NAME_LENGTH} are allowed"
        elif "--" in name:
            reason = "contains --, which separates the items of a group in job ids"
        elif not _NAME.fullmatch(name):
            reason = "is refused"
        if reason:
            where = workflow.places.find("jobs", job.name)
            hint = "a name becomes part of a job id: letters, digits, _ and single - only"
            yield Problem(BAD_JOB_NAME, f"the job name {name!r} {reason}", where, hint)


def check_lengths(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """Names and descriptions are short enough for lines and tables."""
    texts: list[tuple[Path, str, int]] = [
        (("name",), workflow.name, MAX_NAME_LENGTH),
        (("description",), workflow.description, MAX_TEXT_LENGTH),
    ]
    for job in graph:
        texts.append((("jobs", job.name, "description"), job.description, MAX_TEXT_LENGTH))
        if job.approval is not None:
            place = ("jobs", job.name, "approval", "message")
            texts.append((place, job.approval.message, MAX_TEXT_LENGTH))
    for each in workflow.inputs:
        texts.append((("inputs", each.name, "description"), each.description, MAX_TEXT_LENGTH))
    for path, text, limit in texts:
        if len(text) > limit:
            of = f"the {path[-1]} of {path[1]}" if len(path) > 1 else f"the {path[-1]}"
            message = f"{of} has {len(text):,} characters; {limit:,} are allowed"
            hint = "shorten it, and put the rest into a comment or a file"
            yield Problem(TEXT_TOO_LONG, message, workflow.places.find(*path), hint)


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
            hint = f"use it as ${{{{ inputs.{declared.name} }}}}, or remove it"
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
            hint = f"write `workflow: {name}` at a job, or remove it"
            where = workflow.places.find("workflows", name)
            yield Problem(UNUSED_WORKFLOW, message, where, hint, severity="warning")


def _named(workflow: Workflow) -> Iterator[str]:
    """Yield the workflows that jobs name, including the jobs of nested workflows."""
    yield from (job.workflow for job in workflow.jobs)
    for nested in workflow.workflows.values():
        yield from _named(nested)
