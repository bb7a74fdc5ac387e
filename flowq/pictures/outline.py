"""What a layout is asked, and what it answers: plain values, and the room between things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

PADDING = 14
HEADER = 34
"""Units: pixels. The room around what is inside a box, and above it for the box's own name."""

BETWEEN_LEVELS = 64
BETWEEN_BOXES = 18


@dataclass(frozen=True, slots=True)
class Outline:
    """What has to be placed.

    Units: pixels. Shape: `sizes` by box; `parents` has the box that each one is inside of, or
    None, always one before it; `edges` between boxes that are inside of the same one. The size of
    a box with others inside is the least that it needs. A column has one box below the other.
    """

    sizes: Sequence[tuple[float, float]]
    parents: Sequence[int | None]
    edges: Sequence[tuple[int, int]]
    is_column: bool = False


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Units: pixels. `x` and `y` are those of the upper left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is. Shape: in the order of the outline; lines begin and end at boxes."""

    boxes: tuple[Rectangle, ...]
    lines: tuple[tuple[Point, ...], ...]
    width: float
    height: float
