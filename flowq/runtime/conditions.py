"""`if`: whether a job runs, judged as soon as all is known that it asks about.

An `if` over inputs is judged when the run is planned (`flowq.planner.compile`), that of an item
when the item is made (`flowq.runtime.expanding`), and any other by an execution of the job itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flowq.expressions import find_references

MAX_CONDITION = 200
"""How much is told of an `if` that is false. Units: characters."""


def find_false(
    condition: object,
    source: str,
    statuses: Mapping[str, bool],
    holds: Callable[[], bool],
    *,
    has_policy: bool = False,
) -> str | None:
    """Return the text of a condition that is false; None for one that holds.

    `condition` is the template of a job's `if`, `source` its text. Without a status function it
    means `success() and (…)`, but where `on_blocker_failure` was said (`has_policy`): then the job
    has been asked about those before it already. Errors: those of `holds`, which is asked for its
    value.
    """
    asks = has_policy or find_references(condition).statuses
    is_narrowed = not asks and not statuses["success"]
    if not is_narrowed and holds():
        return None
    return f"success() and ({source})" if is_narrowed and source else source


def say_false(source: str) -> str:
    """Say that an `if` is false, with its text; an older version has kept none."""
    said = " ".join(source.split())
    return f"its `if` is false: {said:.{MAX_CONDITION}}" if said else "its `if` is false"
