"""Fill in the expressions of a part of a workflow, with problems at their positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowq.errors import Problem, WorkflowInvalid
from flowq.expressions import fill
from flowq.expressions.places import texts_of
from flowq.spec import Path, Workflow


def fill_in(
    workflow: Workflow,
    path: Path,
    value: Any,
    *,
    inputs: Mapping[str, Any],
    scope: Mapping[str, Any],
) -> Any:
    """Return the value at `path` with its expressions filled in, as `fill` does.

    Errors: WorkflowInvalid with the problems of all its texts, at their positions.
    """
    try:
        return fill(value, inputs=inputs, scope=scope)
    except WorkflowInvalid as invalid:
        found = list(_problems(workflow, path, value, inputs, scope))
        # If each text alone has a value, all of them together exceed the limit.
        found = found or [
            each for p in invalid.problems for each in workflow.places.place(p, *path)
        ]
        raise WorkflowInvalid(found) from None


def _problems(
    workflow: Workflow,
    path: Path,
    value: Any,
    inputs: Mapping[str, Any],
    scope: Mapping[str, Any],
) -> Iterator[Problem]:
    for place, text in texts_of(value, path):
        try:
            fill(text, inputs=inputs, scope=scope)
        except WorkflowInvalid as invalid:
            for problem in invalid.problems:
                yield from workflow.places.place(problem, *place)
