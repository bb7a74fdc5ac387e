"""The rules of keys that exclude each other, or mean nothing beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flowq.errors import Problem
from flowq.graph import Graph
from flowq.problems import KEY_OUT_OF_PLACE, NOT_ONE_ACTION
from flowq.spec import JobSpec, Workflow


def check_work(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A job says exactly one of `call`, `run` and `workflow`."""
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
                NOT_ONE_ACTION, message, where, "make a job of each, and order them with `needs`"
            )
        elif not said and workflow.is_known(job.name, *_work_of(job)):
            where = workflow.places.find("jobs", job.name)
            hint = "say which function it calls, or which command it runs"
            yield Problem(NOT_ONE_ACTION, f"job {job.name} does nothing", where, hint)


def _work_of(job: JobSpec) -> Mapping[str, bool]:
    return {"call": bool(job.call), "run": job.run is not None, "workflow": bool(job.workflow)}


def _is_misread(workflow: Workflow, job: JobSpec, key: str) -> bool:
    """Whether a key is written, with a value that could not be read."""
    path = ("jobs", job.name, key)
    return path in workflow.unread and path in workflow.places.where_by_path


def check_meaning(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A key stands beside the key that it belongs to, and not where it means nothing."""
    for job in workflow.jobs:
        for key, message, hint in _meaningless(workflow, job):
            where = workflow.places.find("jobs", job.name, key)
            yield Problem(KEY_OUT_OF_PLACE, f"job {job.name} {message}", where, hint)


def _meaningless(workflow: Workflow, job: JobSpec) -> Iterator[tuple[str, str, str]]:
    def has(key: str, value: object) -> bool:
        return bool(value) or _is_misread(workflow, job, key)

    if has("for_each", job.for_each) and has("matrix", job.matrix):
        hint = "give the list to one axis of the matrix, or the matrix to a workflow of its own"
        yield "matrix", "has `for_each` and `matrix`", hint
    if has("run", job.run) and has("with", job.with_):
        hint = "a command has no arguments by name: pass them under `env:`, and write $NAME"
        yield "with", "has `run` and `with`", hint
    if job.run is not None and job.run.shell and not isinstance(job.run.command, str):
        hint = "take `shell` away, or write the command as one text for that shell"
        yield "shell", "has `shell`, and a command as a list, which runs without one", hint
    if has("workflow", job.workflow):
        for key in (key for key, value in _of_single_jobs(job).items() if has(key, value)):
            hint = "say it at the jobs of that workflow"
            yield key, f"runs a workflow, for which `{key}` means nothing", hint


def _of_single_jobs(job: JobSpec) -> Mapping[str, object]:
    return {
        "queue": job.queue is not None,
        "at_front": job.at_front,
        "env": bool(job.env),
        "cwd": job.cwd is not None,
        "on_crash": job.on_crash is not None,
        "secret_results": job.secret_results is not None,
    }
