"""The combinations of a matrix, and their names."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from flowq.expressions import find_references
from flowq.spec import Matrix

Leg = dict[str, Any]

MAX_COMBINATIONS = 10_000
"""Jobs of one matrix; a longer list is a `for_each`."""


MANY_COMBINATIONS = f"at most {MAX_COMBINATIONS:,}; a long list is a `for_each`"

MAX_COMPARISONS = 2_000_000
"""Combinations times the keys of `include` and `exclude`: each of these may fit each of those."""


def explain_excess(
    axes: Mapping[str, Any], entries: Sequence[Mapping[str, Any]] = ()
) -> tuple[str, str] | None:
    """Return what is too large about a matrix, with a hint, before its combinations are made.

    Shape: `entries` are those of `include` and `exclude`; axes that are not known do not count.
    """
    count = math.prod(len(values) for values in axes.values() if isinstance(values, list | tuple))
    if count > MAX_COMBINATIONS:
        return f"has {count:,} combinations", MANY_COMBINATIONS
    if len(entries) > MAX_COMBINATIONS:
        return f"has {len(entries):,} entries in `include` and `exclude`", MANY_COMBINATIONS
    comparisons = count * sum(map(len, entries)) if axes else 0
    if comparisons > MAX_COMPARISONS:
        told = f"has {count:,} combinations and {len(entries):,} entries in `include` and `exclude`"
        return f"{told}, which are {comparisons:,} comparisons", f"at most {MAX_COMPARISONS:,}"
    return None


def is_open(matrix: Matrix) -> bool:
    """Whether the combinations are known in the run only, from the results of other jobs."""
    return bool(find_references([matrix.axes, matrix.include, matrix.exclude]).jobs)


def expand_matrix(matrix: Matrix) -> dict[str, Leg]:
    """Return the combinations of a filled-in matrix by key, the first axis changing slowest.

    Shape: an entry of `include` extends every combination whose axes it does not contradict; if
    there is none, it is a combination of its own. A key is `linux,3.11`.
    """
    combinations = product(*matrix.axes.values()) if matrix.axes else ()
    legs = [dict(zip(matrix.axes, values, strict=True)) for values in combinations]
    legs = [leg for leg in legs if not any(_fits(leg, out) for out in matrix.exclude)]
    originals = [dict(leg) for leg in legs]
    for entry in matrix.include:
        said = {name: value for name, value in entry.items() if name in matrix.axes}
        matching = [at for at, leg in enumerate(originals) if _fits(leg, said)]
        for at in matching:
            legs[at].update(entry)
        if not matching:
            legs.append(dict(entry))
    leg_by_key: dict[str, Leg] = {}
    for leg in legs:
        leg_by_key.setdefault(name_leg(leg), leg)
    return leg_by_key


def name_leg(leg: Mapping[str, Any]) -> str:
    """Return the key of a combination: `linux,3.11`."""
    return ",".join(map(_text, leg.values()))


def _fits(leg: Leg, part: Mapping[str, Any]) -> bool:
    return all(name in leg and leg[name] == value for name, value in part.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
