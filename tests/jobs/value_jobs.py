"""Jobs whose results are numbers of numpy, enumerations, objects: what is no JSON."""

from __future__ import annotations

import dataclasses
import enum
from decimal import Decimal
from typing import Any

import numpy as np


class Colour(enum.Enum):
    """Plain."""

    RED = "red"


class Level(enum.IntEnum):
    """By value."""

    HIGH = 7


@dataclasses.dataclass
class Point:
    """With a field."""

    x: int


VALUES = {
    "int": np.int64(7),
    "yes": np.bool_(True),
    "no": np.bool_(False),
    "array": np.array([3, 1, 2]),
    "numbers": [np.int64(3), np.int64(3), np.int64(1)],
    "set": {"c", "a", "b"},
    "price": Decimal("1.10"),
    "prices": [Decimal("1.10"), Decimal("2.20")],
    "colour": Colour.RED,
    "level": Level.HIGH,
    "point": Point(4),
    "points": [Point(1), Point(2)],
    "flag": True,
}


def get(name: str) -> Any:
    """Return that value."""
    return VALUES[name]


def tell(value: Any = None) -> list[str]:
    """Return the type and the text of what was given."""
    return [type(value).__name__, str(value)]


def count() -> int:
    """Return a number of numpy, for `stop_when` and `more`."""
    return np.int64(1)  # type: ignore[return-value]
