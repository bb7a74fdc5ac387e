"""The rules of settings that are expressions: their values fit, and no result names a queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flowq.checks.workflows import find_misfit
from flowq.errors import Problem, WorkflowInvalid
from flowq.expressions import evaluate, find_references
from flowq.graph import Graph
from flowq.problems import BAD_SETTING, QUEUE_FROM_RESULT
from flowq.settings import explain
from flowq.spec import Input, JobSpec, Path, Workflow

_TYPE_BY_SETTING = {
    "queue": Input("queue", "str"),
    "max_parallel": Input("max_parallel", "int"),
    "retries.max": Input("retries.max", "int"),
}


def check_settings(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """The value of a setting fits its key, as far as it is known before a run."""
    defaults = JobSpec("", settings=workflow.defaults.settings)
    owners: list[tuple[Path, str, JobSpec]] = [(("defaults",), "`defaults`", defaults)]
    owners += ((("jobs", job.name), f"job {job.name}", job) for job in workflow.jobs)
    for path, owner, job in owners:
        for word, template in job.settings.items():
            problem = _explain(workflow, job, owner, word, template)
            if problem is not None:
                yield from workflow.places.place(problem, *path, *word.split("."))


def _explain(
    workflow: Workflow, job: JobSpec, owner: str, word: str, template: str
) -> Problem | None:
    if not find_references(template).roots:
        try:
            return explain(word, template, owner, evaluate(template))
        except WorkflowInvalid:  # an expression without a value is a problem of its own
            return None
    declared = _TYPE_BY_SETTING.get(word)
    misfit = find_misfit(declared, template, workflow, job) if declared else None
    if misfit is None:
        return None
    reason, hint = misfit
    return Problem(BAD_SETTING, f"{word} of {owner} {reason}", hint=hint)


def check_queues(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """No result of a job decides on which queue another job runs.

    A queue decides whose workers, with whose secrets, run a job. It is chosen by who writes the
    workflow, and by who submits the run; what jobs return may come from anywhere. An input of a
    nested workflow with `choices` may get any value, because the choices are written in the file.
    """
    done: dict[int, frozenset[str]] = {}
    for job in graph:
        template = job.settings.get("queue", "")
        is_direct = bool(find_references(template).jobs)  # which has no value there
        if not is_direct and _is_made_by_jobs(job, [template]):
            message = f"the queue of job {job.name} depends on what other jobs return"
            hint = (
                "name the queue by an input, or by items or axes that are written out; or run a "
                "nested workflow whose input has `choices`"
            )
            where = workflow.places.find("jobs", job.name, "queue")
            yield Problem(QUEUE_FROM_RESULT, message, where, hint)
        nested = workflow.workflows.get(job.workflow)
        deciding = _inputs_that_decide(nested, done) if nested is not None else frozenset()
        for name in sorted(deciding & job.with_.keys()):
            if _is_made_by_jobs(job, [job.with_[name]]):
                message = (
                    f"job {job.name} passes {name} to {job.workflow}, where it names a queue, and "
                    "it depends on what other jobs return"
                )
                hint = f"list the queues there: {name}: {{type: enum, choices: [a, b]}}"
                where = workflow.places.find("jobs", job.name, "with", name)
                yield Problem(QUEUE_FROM_RESULT, message, where, hint)


def _is_made_by_jobs(job: JobSpec, values: Iterable[object]) -> bool:
    return any({"jobs", "approval"} & find_references(each).roots for each in _behind(job, values))


def _behind(job: JobSpec, values: Iterable[object]) -> Iterator[object]:
    """Yield values, and what their `item` and `matrix` are made of."""
    for value in values:
        yield value
        roots = find_references(value).roots
        if "item" in roots and job.for_each is not None:
            yield job.for_each.items
            if job.for_each.more is not None:  # made of the results of items
                yield "${{ jobs.more.result }}"
        if "matrix" in roots and job.matrix is not None:
            wanted = find_references(value).matrix or job.matrix.axes.keys()
            yield [job.matrix.axes.get(name) for name in wanted]
            yield [each.get(name) for each in job.matrix.include for name in wanted]


def _inputs_that_decide(workflow: Workflow, done: dict[int, frozenset[str]]) -> frozenset[str]:
    """Return the inputs, without those that have `choices`, whose values can name a queue.

    `done` has the answers for workflows by identity.
    """
    if id(workflow) in done:
        return done[id(workflow)]
    done[id(workflow)] = frozenset()
    deciding = [*find_references(workflow.defaults.settings.get("queue", "")).inputs]
    for job in workflow.jobs:
        values: list[object] = [job.settings.get("queue", "")]
        nested = workflow.workflows.get(job.workflow)
        if nested is not None:
            values += (job.with_.get(name) for name in _inputs_that_decide(nested, done))
        for each in _behind(job, values):
            deciding += find_references(each).inputs
    listed = {each.name for each in workflow.inputs if each.type == "enum"}
    done[id(workflow)] = frozenset(deciding) - listed
    return done[id(workflow)]
