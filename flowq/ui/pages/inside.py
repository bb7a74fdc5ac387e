"""What is inside of nested workflows, and what the workflow of a run declares for a job."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flowq.client import Run
from flowq.errors import NewerFormat
from flowq.pictures.folding import without_items
from flowq.pictures.stored import read_workflow
from flowq.render.groups import Declared, find_declared, with_span
from flowq.spec import JobSpec
from flowq.status import RunStatus

_SEGMENT = re.compile(r"[^\[(.]+(?:\[.*?\](?=\.|$))?(?:\((?:list|start)\))?")

MAX_INSIDE = 50


def split_name(name: str) -> list[str]:
    """Return the names in that of a job: `deploy[3]` and `build` for `deploy[3].build`."""
    return _SEGMENT.findall(name)


def is_group_of(status: RunStatus, name: str) -> bool:
    """Whether the page of a group can show what has this name: no job has it."""
    return name not in status.jobs and find_many(status, name) is not None


def find_many(status: RunStatus, name: str) -> Declared | None:
    """Return the jobs of a group, also of a job inside of one: `page`, `page[3].link`, `page.link`.

    Workflows have the times of what is inside of them. None for what is no group.
    """
    found = find_declared(status, name)
    if found is None or not found.is_group:
        found = _gather(status, name)
    if found is None:
        return None
    spans = with_span(status)
    items = tuple(spans.get(job.name, job) for job in found.items)
    return Declared(name, True, items, found.inside, found.helpers, found.list_job, found.forgiven)


def _gather(status: RunStatus, name: str) -> Declared | None:
    """Return the jobs inside of all items of a group that have one declaration."""
    wanted, plain = split_name(name), without_items(name)
    jobs = [
        job
        for job in status.jobs.values()
        if not job.helps
        and job.name != name
        and without_items(job.name) == plain
        and all(map(_fits, split_name(job.name), wanted))
    ]
    forgiven = frozenset(job.name for job in jobs if status.is_tolerated(job))
    return Declared(name, True, tuple(jobs), forgiven=forgiven) if jobs else None


def _fits(name: str, wanted: str) -> bool:
    return wanted in (name, without_items(name))


def list_inside(status: RunStatus, name: str) -> Iterator[tuple[str, str, str]]:
    """Yield what the workflow of a job has inside: its whole name, its state, and how many.

    At most one more than `MAX_INSIDE`.
    """
    depth = len(split_name(name))
    around = f"{name}."
    found: dict[str, None] = {}
    for job in status.jobs.values():
        if job.name.startswith(around) and not job.name.endswith("(start)"):
            found.setdefault(around + without_items(split_name(job.name)[depth]))
            if len(found) > MAX_INSIDE:
                break
    for each in found:
        if each in status.jobs:
            yield each, status.jobs[each].state, ""
        elif (group := find_many(status, each)) is not None:
            yield each, group.state, f"{len(group.items):,} items"


def find_spec(run: Run, name: str) -> JobSpec | None:
    """Return what the workflow that the run keeps declares for a job; None if that is not known."""
    try:
        workflow = read_workflow(run.source())
    except NewerFormat:
        return None
    spec = None
    for each in without_items(name).split("."):
        if spec is not None:
            workflow = workflow.workflows.get(spec.workflow) if workflow else None
        spec = next((job for job in workflow.jobs if job.name == each), None) if workflow else None
        if spec is None:
            return None
    return spec


def say_command(spec: JobSpec | None) -> str:
    """Return the command, function or workflow that a job executes, as declared."""
    if spec is None:
        return ""
    if spec.run is not None:
        command = spec.run.command
        return command if isinstance(command, str) else " ".join(command)
    return spec.call or (f"workflow {spec.workflow}" if spec.workflow else "")
