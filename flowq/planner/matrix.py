"""The combinations of a matrix, and their names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from typing import Any

from flowq.spec import Matrix

Leg = dict[str, Any]


def expand_matrix(matrix: Matrix) -> dict[str, Leg]:
    """Return the combinations of a filled-in matrix by key, the first axis changing slowest.

    Shape: an entry of `include` that contradicts no axis of a combination is added to it, and to
    all such; one that fits none is a combination of its own. A key is `linux,3.11`.
    """
    legs = [
        dict(zip(matrix.axes, values, strict=True)) for values in product(*matrix.axes.values())
    ]
    if not matrix.axes:
        legs = []
    legs = [leg for leg in legs if not any(_fits(leg, out) for out in matrix.exclude)]
    originals = [dict(leg) for leg in legs]
    for entry in matrix.include:
        _include(legs, originals, dict(entry), matrix.axes)
    leg_by_key: dict[str, Leg] = {}
    for leg in legs:
        leg_by_key.setdefault(",".join(map(_text, leg.values())), leg)
    return leg_by_key


def _include(legs: list[Leg], originals: list[Leg], entry: Leg, axes: Mapping[str, Any]) -> None:
    said = {name: value for name, value in entry.items() if name in axes}
    matching = [at for at, leg in enumerate(originals) if _fits(leg, said)]
    for at in matching:
        legs[at].update(entry)
    if not matching:
        legs.append(dict(entry))


def _fits(leg: Leg, part: Mapping[str, Any]) -> bool:
    return all(name in leg and leg[name] == value for name, value in part.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
