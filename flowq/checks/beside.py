"""The rules of keys that exclude each other, or mean nothing beside each other."""

from __future__ import annotations

from collections.abc import Iterator

from flowq.errors import Problem
from flowq.graph import Graph
from flowq.spec import JobSpec, Workflow


def check_work(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A job says exactly one of `call`, `run` and `workflow`."""
    for job in workflow.whole_jobs:
        said = [*_work_of(job)]
        if len(said) > 1:
            message = f"job {job.name} has {' and '.join(f'`{key}`' for key in said)}"
            where = workflow.places.find("jobs", job.name, said[1])
            yield Problem(
                "FQ117", message, where, "make a job of each, and order them with `needs`"
            )
        elif not said:
            where = workflow.places.find("jobs", job.name)
            hint = "say which function it calls, or which command it runs"
            yield Problem("FQ117", f"job {job.name} does nothing", where, hint)


def _work_of(job: JobSpec) -> Iterator[str]:
    if job.call:
        yield "call"
    if job.run is not None:
        yield "run"
    if job.workflow:
        yield "workflow"


def check_meaning(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A key stands beside the key that it belongs to, and not where it means nothing."""
    for job in workflow.whole_jobs:
        for key, message, hint in _meaningless(job):
            where = workflow.places.find("jobs", job.name, key)
            yield Problem("FQ118", f"job {job.name} {message}", where, hint)


def _meaningless(job: JobSpec) -> Iterator[tuple[str, str, str]]:
    if job.for_each is not None and job.matrix is not None:
        hint = "give the list to one axis of the matrix, or the matrix to a workflow of its own"
        yield "matrix", "has `for_each` and `matrix`", hint
    if job.run is not None and job.with_:
        hint = "a command has no arguments by name: pass them under `env:`, and write $NAME"
        yield "with", "has `run` and `with`", hint
    if job.run is not None and job.run.shell and not isinstance(job.run.command, str):
        hint = "take `shell` away, or write the command as one text for that shell"
        yield "shell", "has `shell`, and a command as a list, which runs without one", hint
    if job.workflow:
        for key in _of_single_jobs(job):
            hint = "say it at the jobs of that workflow"
            yield key, f"runs a workflow, for which `{key}` means nothing", hint


def _of_single_jobs(job: JobSpec) -> Iterator[str]:
    said = {
        "retries": job.retries is not None,
        "timeout": job.timeout_s is not None,
        "queue": job.queue is not None,
        "at_front": job.at_front,
        "env": bool(job.env),
        "cwd": job.cwd is not None,
        "on_crash": job.on_crash is not None,
    }
    return (key for key, is_said in said.items() if is_said)
