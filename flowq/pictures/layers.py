"""Our own layout, where graphlay is missing or gives up: columns of boxes, and lines between them.

The steps are those of Sugiyama: a level for each box, points in the levels that a line passes, an
order of each level with few crossings, then heights that make lines straight. What is inside a box
is laid out first and gives the box its size. A line leaves a box on its right side and bends only
between two columns, so it never runs through a box.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from flowq.pictures.outline import (
    BETWEEN_BOXES,
    BETWEEN_LEVELS,
    HEADER,
    PADDING,
    Layout,
    Outline,
    Point,
    Rectangle,
)

_SWEEPS = 8
_PASSING = 10
"""Units: pixels. The height that is kept free for a line that passes a level."""


def lay_out(outline: Outline) -> Layout:
    """Return where everything goes, whatever the outline is."""
    inside: dict[int | None, list[int]] = {}
    for box, parent in enumerate(outline.parents):
        inside.setdefault(parent, []).append(box)
    edges_inside: dict[int | None, list[int]] = {}
    for number, (source, _) in enumerate(outline.edges):
        edges_inside.setdefault(outline.parents[source], []).append(number)
    boxes: dict[int, Rectangle] = {}
    lines: dict[int, list[Point]] = {}
    total = (0.0, 0.0)
    size_by_box: dict[int | None, tuple[float, float]] = dict(enumerate(outline.sizes))
    for parent in sorted(inside, key=lambda each: -1 if each is None else each, reverse=True):
        members, numbers = inside[parent], edges_inside.get(parent, [])
        position = {box: at for at, box in enumerate(members)}
        edges = [outline.edges[each] for each in numbers]
        placed, drawn = _Flat(
            [size_by_box[box] for box in members],
            [(position[source], position[target]) for source, target in edges],
        ).place()
        boxes |= zip(members, placed, strict=True)
        lines |= zip(numbers, drawn, strict=True)
        width = max(each.x + each.width for each in placed)
        height = max(
            *(each.y + each.height for each in placed),
            *(y for line in drawn for _, y in line),
            0,
        )
        least = size_by_box.get(parent, (0, 0))
        size_by_box[parent] = (
            max(width + 2 * PADDING, least[0]),
            max(height + 2 * PADDING + HEADER, least[1]),
        )
        if parent is None:
            total = (width, height)
    return _absolute(outline, boxes, lines, total)


def _absolute(
    outline: Outline,
    boxes: dict[int, Rectangle],
    lines: dict[int, list[Point]],
    total: tuple[float, float],
) -> Layout:
    """Move what is inside a box to where that box is."""
    for box, parent in enumerate(outline.parents):
        if parent is not None:
            own, around = boxes[box], boxes[parent]
            x, y = around.x + PADDING, around.y + PADDING + HEADER
            boxes[box] = Rectangle(own.x + x, own.y + y, own.width, own.height)
    for number, (source, _) in enumerate(outline.edges):
        parent = outline.parents[source]
        if parent is not None:
            x, y = boxes[parent].x + PADDING, boxes[parent].y + PADDING + HEADER
            lines[number] = [(point[0] + x, point[1] + y) for point in lines[number]]
    return Layout(
        tuple(boxes[box] for box in range(len(outline.sizes))),
        tuple(tuple(lines[number]) for number in range(len(outline.edges))),
        *total,
    )


_Ends = dict[tuple[int, int], float]


@dataclass(slots=True)
class _Flat:
    """Boxes with nothing inside, and the edges between them."""

    sizes: Sequence[tuple[float, float]]
    edges: Sequence[tuple[int, int]]
    levels: list[int] = field(default_factory=list)
    columns: list[list[int]] = field(default_factory=list)
    paths: list[list[int]] = field(default_factory=list)
    heights: list[float] = field(default_factory=list)
    neighbours: tuple[list[list[int]], list[list[int]]] = ([], [])
    centres: list[float] = field(default_factory=list)

    def place(self) -> tuple[list[Rectangle], list[list[Point]]]:
        """Return a rectangle for each box and a line for each edge."""
        self._find_levels()
        self._add_points()
        self._order()
        self._straighten()
        return self._draw()

    def _find_levels(self) -> None:
        """Put each box right of its blockers, and first ones next to what they block."""
        count = len(self.sizes)
        after: list[list[int]] = [[] for _ in range(count)]
        waits = [0] * count
        for source, target in self.edges:
            after[source].append(target)
            waits[target] += 1
        is_first = [not each for each in waits]
        self.levels = [0] * count
        ready = [box for box in range(count) if is_first[box]]
        for box in ready:
            for target in after[box]:
                self.levels[target] = max(self.levels[target], self.levels[box] + 1)
                waits[target] -= 1
                if not waits[target]:
                    ready.append(target)
        for box in range(count):
            if is_first[box] and after[box]:
                self.levels[box] = min(self.levels[target] for target in after[box]) - 1

    def _add_points(self) -> None:
        """Give each edge a point in every level between its ends.

        Edges from one box to the same level and further share their points, so that they run as one
        line until they part.
        """
        self.columns = [[] for _ in range(max(self.levels, default=0) + 1)]
        for box, level in enumerate(self.levels):
            self.columns[level].append(box)
        self.heights = [height for _, height in self.sizes]
        points: dict[tuple[int, int], int] = {}
        links: dict[tuple[int, int], None] = {}
        for source, target in self.edges:
            path = [source]
            for level in range(self.levels[source] + 1, self.levels[target]):
                if (source, level) not in points:
                    points[source, level] = len(self.heights)
                    self.columns[level].append(len(self.heights))
                    self.heights.append(_PASSING)
                path.append(points[source, level])
            path.append(target)
            self.paths.append(path)
            links |= dict.fromkeys(pairwise(path))
        self.neighbours = (
            [[] for _ in self.heights],
            [[] for _ in self.heights],
        )
        for left, right in links:
            self.neighbours[0][right].append(left)
            self.neighbours[1][left].append(right)

    def _order(self) -> None:
        """Sort each column by where its neighbours are, from left to right and back."""
        best, fewest = [list(column) for column in self.columns], self._count_crossings()
        for sweep in range(_SWEEPS):
            is_forward = sweep % 2 == 0
            side = self.neighbours[0 if is_forward else 1]
            for column in self.columns if is_forward else reversed(self.columns):
                place = {
                    each: at for others in self.columns for at, each in enumerate(others)
                }  # of the columns as they are sorted by now
                middle = {
                    each: sum(place[other] for other in side[each]) / len(side[each])
                    if side[each]
                    else place[each]
                    for each in column
                }
                column.sort(key=middle.__getitem__)
            if (crossings := self._count_crossings()) < fewest:
                best, fewest = [list(column) for column in self.columns], crossings
        self.columns = best

    def _count_crossings(self) -> int:
        total = 0
        for left, right in pairwise(self.columns):
            place = {each: at for at, each in enumerate(right)}
            ends = [
                place[other]
                for each in left
                for other in sorted(self.neighbours[1][each], key=place.__getitem__)
            ]
            total += _count_inversions(ends)
        return total

    def _straighten(self) -> None:
        """Give everything a height near that of its neighbours, in the order of its column."""
        self.centres = [0.0] * len(self.heights)
        for column in self.columns:
            self._set_centres(column, [0.0] * len(column))
        for sweep in range(_SWEEPS):
            is_forward = sweep % 2 == 0
            side = self.neighbours[0 if is_forward else 1]
            for column in self.columns if is_forward else reversed(self.columns):
                wanted = [
                    sum(self.centres[other] for other in side[each]) / len(side[each])
                    if side[each]
                    else self.centres[each]
                    for each in column
                ]
                self._set_centres(column, wanted)
        top = min(self.centres[each] - self.heights[each] / 2 for each in range(len(self.heights)))
        self.centres = [centre - top for centre in self.centres]

    def _set_centres(self, column: Sequence[int], wanted: Sequence[float]) -> None:
        """Set the heights that are nearest to the wanted ones and keep everything apart."""
        offsets = [0.0]
        for upper, lower in pairwise(column):
            apart = (self.heights[upper] + self.heights[lower]) / 2 + BETWEEN_BOXES
            offsets.append(offsets[-1] + apart)
        moved = [want - offset for want, offset in zip(wanted, offsets, strict=False)]
        for each, base, offset in zip(column, _ascending(moved), offsets, strict=False):
            self.centres[each] = base + offset

    def _draw(self) -> tuple[list[Rectangle], list[list[Point]]]:
        lefts, widths, x = [], [], 0.0
        for column in self.columns:
            boxes = [each for each in column if each < len(self.sizes)]
            widths.append(max((self.sizes[box][0] for box in boxes), default=0))
            lefts.append(x)
            x += widths[-1] + BETWEEN_LEVELS
        rectangles = [
            Rectangle(lefts[level], self.centres[box] - height / 2, width, height)
            for box, (level, (width, height)) in enumerate(
                zip(self.levels, self.sizes, strict=True)
            )
        ]
        lines = []
        starts, ends = self._spread_ends()
        for path in self.paths:
            source, target = rectangles[path[0]], rectangles[path[-1]]
            level = self.levels[path[0]]
            at = starts[path[0], path[1]]
            line = [(source.x + source.width, at), (lefts[level] + widths[level], at)]
            for step, passing in enumerate(path[1:-1], 1):
                at, left = self.centres[passing], lefts[level + step]
                line += [(left, at), (left + widths[level + step], at)]
            line.append((target.x, ends[path[-1], path[-2]]))
            lines.append(_without_repeats(line))
        return rectangles, lines

    def _spread_ends(self) -> tuple[_Ends, _Ends]:
        """Return the heights at which lines leave a box and reach one, by box and next point."""
        starts: _Ends = {}
        ends: _Ends = {}
        for side, found in ((1, starts), (0, ends)):
            for box, (_, height) in enumerate(self.sizes):
                others = sorted(self.neighbours[side][box], key=self.centres.__getitem__)
                apart = min(_PASSING, (height - 12) / max(len(others) - 1, 1))
                for at, other in enumerate(others):
                    found[box, other] = self.centres[box] + (at - (len(others) - 1) / 2) * apart
        return starts, ends


def _count_inversions(ends: Sequence[int]) -> int:
    """Return how many pairs stand in the wrong order, in a tree of counts (Fenwick)."""
    counts = [0] * (max(ends, default=0) + 2)
    total = 0
    for seen, end in enumerate(ends):
        at, smaller = end + 1, 0
        while at:
            smaller += counts[at]
            at &= at - 1
        total += seen - smaller
        at = end + 1
        while at < len(counts):
            counts[at] += 1
            at += at & -at
    return total


def _ascending(wanted: Iterable[float]) -> list[float]:
    """Return the ascending numbers that are nearest to the wanted ones: pools of equal ones."""
    pools: list[tuple[float, int]] = []
    for want in wanted:
        total, count = want, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            earlier, number = pools.pop()
            total, count = total + earlier, count + number
        pools.append((total, count))
    return [total / count for total, count in pools for _ in range(count)]


def _without_repeats(line: Sequence[Point]) -> list[Point]:
    return [line[0], *(after for before, after in pairwise(line) if before != after)]
