"""Settings that are written as expressions: `queue`, `timeout`, `max_parallel`, and so on.

A setting is evaluated once, before its job is enqueued: over inputs when the workflow is planned,
over a combination of a matrix with it, over an item when the item is added. No worker ever meets
one. So a setting can refer to inputs, `matrix`, `item` and `index`, and to nothing else. The value
is read by the same shape as a value in a file, and so has the same bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from flowq.declare.keys import JOB, PARTS, RETRIES_MAX, TEXT_PARTS
from flowq.declare.problems import Problems
from flowq.declare.shapes import Unsettled
from flowq.declare.values import Unreadable, to_node
from flowq.errors import Problem, Where, WorkflowInvalid
from flowq.expressions import evaluate, find_references, write
from flowq.plan import Enqueue, Join, Start
from flowq.problems import BAD_SETTING
from flowq.spec import (
    ALL_TOLERATED,
    Defaults,
    JobSpec,
    Retry,
    Workflow,
)

OF_ONE_JOB = frozenset({"item", "index", "matrix"})
"""Names whose values differ between the jobs of a group."""

_NOWHERE = Where("", 1, 1)

Spec = TypeVar("Spec", JobSpec, Defaults)


def settle_workflow(
    workflow: Workflow, inputs: Mapping[str, Any]
) -> tuple[Workflow, list[Problem]]:
    """Return a workflow in which the settings that need only inputs have their values.

    Shape: the same workflow if it has none; the problems have their positions.
    """
    if not workflow.defaults.settings and not any(job.settings for job in workflow.jobs):
        return workflow, []
    problems: list[Problem] = []

    def settled(spec: Spec, owner: str, *path: str) -> Spec:
        found, wrong = settle(spec, owner, inputs)
        problems.extend(
            each
            for word, problem in wrong
            for each in workflow.places.place(problem, *path, *word.split("."))
        )
        return found

    defaults = settled(workflow.defaults, "`defaults`", "defaults")
    jobs = tuple(settled(job, f"job {job.name}", "jobs", job.name) for job in workflow.jobs)
    return replace(workflow, defaults=defaults, jobs=jobs), problems


def settle(
    spec: Spec,
    owner: str,
    inputs: Mapping[str, Any],
    scope: Mapping[str, Any] | None = None,
) -> tuple[Spec, list[tuple[str, Problem]]]:
    """Return a job, or defaults, with the values of those settings that are known now.

    Shape: the others remain in `settings`; the problems have the words of their settings.
    """
    known = {"inputs", *(scope or {})}
    settings, problems = dict(spec.settings), []
    for word, template in spec.settings.items():
        if not find_references(template).roots <= known:
            continue
        del settings[word]
        try:
            value = find_value(word, template, owner, inputs, scope)
        except WorkflowInvalid as invalid:
            problems += [(word, problem) for problem in invalid.problems]
            continue
        spec = _with_value(spec, word, value)
    return replace(spec, settings=settings), problems


def _with_value(spec: Spec, word: str, value: Any) -> Spec:
    if word == RETRIES_MAX:
        return replace(spec, retries=replace(spec.retries or Retry(0), max=value))
    if word in PARTS:
        return replace(spec, **_with_part(spec, word, value))
    return replace(spec, **{JOB.keys[word].attribute: value})


def _with_part(spec: Any, word: str, value: Any) -> dict[str, Any]:
    key, part = word.split(".")
    return {key: replace(getattr(spec, key), **{part: value})}


def find_value(
    word: str,
    template: str,
    owner: str,
    inputs: Mapping[str, Any],
    scope: Mapping[str, Any] | None = None,
) -> Any:
    """Return the value of a setting, as its field in `JobSpec` has it.

    Errors: WorkflowInvalid, for an expression without a value, and for a value that the key does
    not accept.
    """
    value = evaluate(template, inputs=inputs, scope=scope)
    if word in TEXT_PARTS and isinstance(value, int | float):
        value = write(value, template)
    problem = explain(word, template, owner, value)
    if problem is not None:
        raise WorkflowInvalid([problem])
    return _read(word, value, Problems(""))


def explain(word: str, template: str, owner: str, value: Any) -> Problem | None:
    """Return what is wrong with the value of a setting, or None."""
    message, hint = "", ""
    try:
        problems = Problems("")
        _read(word, value, problems, f"{word} of {owner}")
        for each in problems.found[:1]:
            message, hint = each.message, each.hint
    except Unreadable as error:
        message, hint = f"{word} of {owner} {error}", error.hint
    is_of_one = not OF_ONE_JOB.isdisjoint(find_references(template).roots)
    if not message and word == "continue_on_error" and is_of_one and type(value) is not bool:
        message = f"{word} of {owner} must be true or false for each job, not {value!r:.40}"
        hint = "a count or a share is about the whole group: it refers to inputs only"
    return Problem(BAD_SETTING, f"{message} (from {template})", hint=hint) if message else None


def _read(word: str, value: Any, problems: Problems, label: str = "") -> Any:
    shape = PARTS[word][0] if word in PARTS else JOB.keys[word].shape
    found = shape.read(label or word, to_node(value, _NOWHERE), problems)
    assert not isinstance(found, Unsettled)  # a text of a program is no template
    return found


# Items -------------------------------------------------------------------------------------------


def settle_item(bound: Enqueue, scope: Mapping[str, Any]) -> Enqueue:
    """Return a job of an item with the values of its settings.

    Errors: WorkflowInvalid. Its message names the job, because the adding job fails with it.
    """
    for word, template in bound.settings.items():
        owner = f"job {bound.name}"
        value = find_value(word, template, owner, bound.inputs, scope)
        bound = replace(bound, **dict(_fields(bound, word, value)))
    return replace(bound, settings={})


def _fields(bound: Enqueue, word: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a setting changes in a job; some belong to the start or the join of a workflow."""
    does = bound.does
    if word == "queue":
        yield "queue", value
    elif word == "continue_on_error" and not isinstance(does, Start):
        yield "is_tolerated", value == ALL_TOLERATED
    elif word == "timeout" and isinstance(does, Start):
        yield "does", replace(does, nested=replace(does.nested, timeout_s=value))
    elif word == "timeout" and not isinstance(does, Join):
        yield "timeout_s", value
    elif word == RETRIES_MAX and isinstance(does, Join):
        yield "does", replace(does, retries=replace(does.retries or Retry(0), max=value))
    elif word == RETRIES_MAX and not isinstance(does, Start):
        yield "retries", replace(bound.retries or Retry(0), max=value)
    elif word.startswith("concurrency.") or (word.startswith("rate.") and bound.rate is not None):
        yield from _with_part(bound, word, value).items()
