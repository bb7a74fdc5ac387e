"""The rules of settings that are expressions: their values fit, and no result names a queue."""

from __future__ import annotations

from collections.abc import Iterator

from flowq.checks.workflows import find_misfit
from flowq.errors import Problem, WorkflowInvalid
from flowq.expressions import as_template, evaluate, find_references
from flowq.graph import Graph
from flowq.problems import BAD_SETTING, QUEUE_FROM_RESULT
from flowq.settings import explain
from flowq.spec import Input, JobSpec, Path, Workflow

_TYPE_BY_SETTING = {
    "queue": Input("queue", "str"),
    "max_parallel": Input("max_parallel", "int"),
    "retries.max": Input("retries.max", "int"),
    "concurrency.limit": Input("concurrency.limit", "int"),
    "rate.limit": Input("rate.limit", "str"),
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
        if root := _find_stranger(job, template):
            if root in find_references(template).roots:
                continue  # it has no value there, which another rule reports
            message = f"the queue of job {job.name} depends on `{root}`"
            hint = (
                "name the queue by an input, or by items or axes that are written out; or run a "
                "nested workflow whose input has `choices`"
            )
            where = workflow.places.find("jobs", job.name, "queue")
            yield Problem(QUEUE_FROM_RESULT, message, where, hint)
        nested = workflow.workflows.get(job.workflow)
        deciding = _inputs_that_decide(nested, done) if nested is not None else frozenset()
        for name in sorted(deciding & job.with_.keys()):
            if root := _find_stranger(job, job.with_[name]):
                message = (
                    f"job {job.name} passes {name} to {job.workflow}, where it names a queue, and "
                    f"it depends on `{root}`"
                )
                hint = f"list the queues there: {name}: {{type: enum, choices: [a, b]}}"
                where = workflow.places.find("jobs", job.name, "with", name)
                yield Problem(QUEUE_FROM_RESULT, message, where, hint)


_TRUSTED = frozenset({"inputs", "run", "item", "index", "matrix"})
"""Names whose values come from the workflow and who submits it; `_behind` looks behind the others.

The environment is not among them: a variable may have the value of an input of a nested workflow.
"""


def _find_stranger(job: JobSpec, value: object) -> str:
    """Return a name on which a value depends and that may come from anywhere, or ""."""
    for each in _behind(job, value):
        for root in sorted(find_references(each).roots - _TRUSTED):
            return root
    return ""


def _behind(job: JobSpec, value: object) -> Iterator[object]:
    """Yield a value, and what its `item` and `matrix` are made of."""
    yield value
    roots = find_references(value).roots
    if "item" in roots and job.for_each is not None:
        yield job.for_each.items
        if job.for_each.more is not None:
            yield as_template(job.for_each.more)
    if "matrix" in roots and job.matrix is not None:
        parts = [job.matrix.axes, *job.matrix.include]
        wanted = find_references(value).matrix
        yield [part for each in parts for name, part in each.items() if name in (wanted or each)]


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
        for each in (behind for value in values for behind in _behind(job, value)):
            deciding += find_references(each).inputs
    listed = {each.name for each in workflow.inputs if each.type == "enum"}
    done[id(workflow)] = frozenset(deciding) - listed
    return done[id(workflow)]
