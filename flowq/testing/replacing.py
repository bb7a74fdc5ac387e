"""What a test puts in the place of jobs: their names, their values, and the jobs that use them.

`run_inline` is the only caller. A function or command is replaced when its job is executed; a
nested workflow is replaced before planning, by a job that calls what replaces it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from flowq.callables import find_callable
from flowq.checks import check_calls
from flowq.errors import UsageError, WorkflowInvalid
from flowq.graph import build_graph
from flowq.inputs import resolve_inputs
from flowq.nearest import did_you_mean
from flowq.render.groups import find_declared
from flowq.runtime.job import PERFORM, Job
from flowq.spec import JobSpec, Retry, Workflow
from flowq.status import RunStatus, declared_name

_LABEL = re.compile(r"\[.*?\](?=[.(]|$)")


def find_for(values: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    """Return what a mapping by names has for a job, as a tuple of one; () for nothing.

    The name of an item comes before that of its group.
    """
    for each in (name, without_labels(name)):
        if each in values:
            return (values[each],)
    return ()


def without_labels(name: str) -> str:
    """Return the names of the declarations: `pack.each` for `pack[1].each[0]`."""
    return _LABEL.sub("", name)


def refuse_unknown(argument: str, given: Iterable[str], workflow: Workflow) -> None:
    """Check that the workflow has jobs of these names. Errors: UsageError."""
    known = dict(_walk(workflow))
    for name in given:
        job = known.get(without_labels(name))
        if job is None:
            hint = did_you_mean(name, known) or f"its jobs are {', '.join(known)}"
            raise UsageError(f"{argument}: workflow {workflow.name} has no job {name}; {hint}")
        if argument == "replace" and job.workflow and name.endswith("]"):
            hint = f"replace {name[: name.rindex('[')]}, or jobs inside of it"
            raise UsageError(f"replace: {name} is one of several workflows of a group; {hint}")
        for group, item in _labels(name):
            declared = known[without_labels(group)]
            if declared.for_each is None and declared.matrix is None:
                hint = f"{group} is not a group; write {name.replace(item, group, 1)}"
                raise UsageError(f"{argument}: there is no item {item}: {hint}")
        if argument == "approvals" and job.approval is None:
            asking = [each for each, spec in known.items() if spec.approval is not None]
            hint = f"these do: {', '.join(asking)}" if asking else "no job of this workflow does"
            raise UsageError(f"approvals: job {name} does not ask for an approval; {hint}")


def refuse_missing_items(argument: str, given: Iterable[str], status: RunStatus) -> None:
    """Check that the groups of an ended run had items of these names. Errors: UsageError.

    Before the run that is not known. A group that was not reached is not judged.
    """
    for name in given:
        for group, item in _labels(name):
            found = find_declared(status, group)
            if found is None or item in status.jobs:
                continue
            if found.items or found.state == "finished":
                names = [each.name for each in found.items]
                some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
                hint = f"its items were {some}" if names else "it had none"
                raise UsageError(f"{argument}: group {group} had no item {item}; {hint}")


def _labels(name: str) -> Iterator[tuple[str, str]]:
    """Yield the groups and the items that a name goes through: `pack`, `pack[1]`; …"""
    for found in _LABEL.finditer(name):
        yield name[: found.start()], name[: found.end()]


def _walk(workflow: Workflow, prefix: str = "") -> Iterator[tuple[str, JobSpec]]:
    """Yield all jobs by name, those of nested workflows as `pack.zip`."""
    for job in workflow:
        yield prefix + job.name, job
        if job.workflow in workflow.workflows:
            yield from _walk(workflow.workflows[job.workflow], f"{prefix}{job.name}.")


def check_functions(workflow: Workflow, replaced: Mapping[str, Any]) -> None:
    """Check the functions that will be called, as `flowq run` does; not those of replaced jobs.

    Errors: WorkflowInvalid with all problems.
    """
    jobs = [(job.call, _is_replaced(name, replaced)) for name, job in _walk(workflow) if job.call]
    unused = {call for call, _ in jobs} - {call for call, is_replaced in jobs if not is_replaced}

    def find(name: str) -> Callable[..., object]:
        return accept if name in unused else find_callable(name)

    problems = list(check_calls(workflow, build_graph(workflow), find))
    if any(each.severity == "error" for each in problems):
        raise WorkflowInvalid(problems)


def _is_replaced(name: str, replaced: Mapping[str, Any]) -> bool:
    """Whether a job, or a nested workflow around it, is replaced as a whole."""
    parts = name.split(".")
    return any(".".join(parts[:count]) in replaced for count in range(1, len(parts) + 1))


def accept(**_: Any) -> None:
    """Accept all arguments: the function that a replaced nested workflow names."""


# Nested workflows --------------------------------------------------------------------------------


def replace_nested(workflow: Workflow, stand_ins: dict[str, Any], prefix: str = "") -> Workflow:
    """Return the workflow with a call in the place of each nested workflow that is replaced.

    What replaces it gets the inputs of that workflow, with their defaults: `stand_ins` is changed.
    """
    jobs, workflows = list[JobSpec](), dict(workflow.workflows)
    for job in workflow:
        name, nested = prefix + job.name, workflow.workflows.get(job.workflow)
        if nested is None:
            jobs.append(job)
        elif name in stand_ins:
            stand_ins[name] = _with_inputs(nested, _callable_of(stand_ins[name]), job.name)
            call, retries = f"{__name__}:{accept.__name__}", job.retries or Retry(0)
            jobs.append(replace(job, workflow="", call=call, retries=retries))
        else:  # another job may run the same workflow, with other replacements
            own = f"{job.workflow} of {job.name}"
            workflows[own] = replace_nested(nested, stand_ins, f"{name}.")
            jobs.append(replace(job, workflow=own))
    return replace(workflow, jobs=tuple(jobs), workflows=workflows)


def _with_inputs(
    workflow: Workflow, stand_in: Callable[..., Any], passed_by: str
) -> Callable[..., Any]:
    return lambda **given: stand_in(**resolve_inputs(workflow, given, passed_by))


# Functions and commands --------------------------------------------------------------------------


class ReplacedJob(Job):
    """A job whose function or command may be replaced.

    `stand_ins` and `raised` are those of the run, by the names of the jobs; a subclass sets them.
    """

    stand_ins: Mapping[str, Any]
    raised: dict[str, BaseException]

    def restore(self, raw_data: Mapping[Any, Any]) -> None:
        """Read the fields from Redis, and find what replaces the job."""
        super().restore(raw_data)
        if found := find_for(self.stand_ins, declared_name(self.name)):
            self.stand_in = _callable_of(*found)

    @property
    def func(self) -> Any:
        """The function of a plain call, or what replaces it."""
        is_replaced = self.stand_in is not None and self.func_name != PERFORM
        return self.stand_in if is_replaced else super().func

    def note_failure(self, error: BaseException | None) -> None:
        """Keep the exception itself, which a worker only stores as text."""
        if error is not None:
            self.raised[declared_name(self.name)] = error
        super().note_failure(error)


def _callable_of(value: Any) -> Callable[..., Any]:
    is_class = isinstance(value, type) and issubclass(value, BaseException)
    is_error = is_class or isinstance(value, BaseException)
    if callable(value) and not is_error:
        found: Callable[..., Any] = value
        return found

    def answer(*_: Any, **__: Any) -> Any:
        if is_error:
            raise value
        return value

    return answer
