"""Where boxes and lines go: one question with two answers.

The better answer is graphlay's, where it is installed. It runs in a process with a time limit,
because it is young and its effort grows steeply with the arrows at one box. Where it is missing,
fails or takes too long, `flowq.pictures.layers` answers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from flowq.pictures import layers
from flowq.pictures.outline import (
    BETWEEN_BOXES,
    BETWEEN_LEVELS,
    HEADER,
    PADDING,
    Layout,
    Outline,
    Rectangle,
)

LIMIT_S = 10.0
"""For the whole process; `graphlay_process.py` has 2 s of CPU time."""

_MAX_COLUMNS = 10


def lay_out(outline: Outline) -> Layout:
    """Return where boxes and lines go, from left to right."""
    if outline.is_column:
        return _column(outline)
    is_deep = any(
        parent is not None and outline.parents[parent] is not None for parent in outline.parents
    )
    # graphlay 0.3 leaves no room for the name of a box around boxes with others inside.
    found = _ask_graphlay(outline) if outline.edges and not is_deep else None
    return found or layers.lay_out(outline)


def _column(outline: Outline) -> Layout:
    """Return boxes of one width below each other: a list, with a line from each to the next."""
    boxes, y = [], 0.0
    width = max((each for each, _ in outline.sizes), default=0)
    for _, height in outline.sizes:
        boxes.append(Rectangle(0, y, width, height))
        y += height + 2 * BETWEEN_BOXES
    lines = tuple(
        (
            (width / 2, boxes[source].y + boxes[source].height),
            (width / 2, boxes[target].y),
        )
        for source, target in outline.edges
    )
    return Layout(tuple(boxes), lines, width, y - 2 * BETWEEN_BOXES)


def _ask_graphlay(outline: Outline) -> Layout | None:
    request = {
        "nodes": [
            {"size": {"width": width, "height": height}, "parent": parent}
            if parent is not None
            else {"size": {"width": width, "height": height}}
            for (width, height), parent in zip(outline.sizes, outline.parents, strict=True)
        ],
        "edges": [{"source": source, "target": target} for source, target in outline.edges],
    }
    options = {
        "spacing": {
            "layer_gap": BETWEEN_LEVELS,
            "node_gap": BETWEEN_BOXES,
            "compound_padding": PADDING,
            "compound_header": HEADER,
        },
        "wrap": {"viewport_aspect": 2.0 if _is_long(outline) else 0.0},
    }
    script = Path(__file__).with_name("graphlay_process.py")
    try:
        done = subprocess.run(  # noqa: S603 - a program of ours
            [sys.executable, "-P", str(script)],
            input=json.dumps({"graph": request, "options": options}).encode(),
            capture_output=True,
            timeout=LIMIT_S,
            check=True,
        )
        layout = _read(json.loads(done.stdout))
        return layout if _has_room_around_nested(layout, outline) else None
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError):
        return None  # the other answer is always there


def _has_room_around_nested(layout: Layout, outline: Outline) -> bool:
    """Whether boxes with others inside are apart: graphlay 0.3 lets two of them touch."""
    parents = outline.parents
    around = [at for at in range(len(parents)) if at in parents]
    return not any(
        _is_near(layout.boxes[at], layout.boxes[other])
        for at in around
        for other in range(len(parents))
        if other != at and parents[other] == parents[at]
    )


def _is_near(one: Rectangle, other: Rectangle) -> bool:
    across = max(one.x - other.x - other.width, other.x - one.x - one.width)
    down = max(one.y - other.y - other.height, other.y - one.y - one.height)
    return max(across, down) < BETWEEN_BOXES / 2


def _is_long(outline: Outline) -> bool:
    """Whether one row would be too wide for a screen: several below each other are better."""
    levels = [0] * len(outline.sizes)
    for source, target in outline.edges:  # ordered by their targets, as the boxes are
        levels[target] = max(levels[target], levels[source] + 1)
    return max(levels) > _MAX_COLUMNS


def _read(answer: dict[str, Any]) -> Layout:
    left, top = answer["bounds"]["min"]["x"], answer["bounds"]["min"]["y"]
    boxes = tuple(
        Rectangle(
            node["center"]["x"] - node["size"]["width"] / 2 - left,
            node["center"]["y"] - node["size"]["height"] / 2 - top,
            node["size"]["width"],
            node["size"]["height"],
        )
        for node in answer["nodes"]
    )
    lines = tuple(
        tuple((point["x"] - left, point["y"] - top) for point in edge["points"])
        for edge in answer["edges"]
    )
    right, bottom = answer["bounds"]["max"]["x"], answer["bounds"]["max"]["y"]
    return Layout(boxes, lines, right - left, bottom - top)


QUICK_BOXES, QUICK_LINES = 40, 60
"""What graphlay places in a tenth of a second, so that a page need not wait for it."""


def lay_out_quickly(outline: Outline) -> Layout:
    """Do the same for a page: as well as there is time, and once for each outline."""
    shape = (tuple(outline.sizes), tuple(outline.parents), tuple(outline.edges), outline.is_column)
    return _lay_out_once(*shape)


@lru_cache(maxsize=64)
def _lay_out_once(
    sizes: tuple[tuple[float, float], ...],
    parents: tuple[int | None, ...],
    edges: tuple[tuple[int, int], ...],
    is_column: bool,
) -> Layout:
    outline = Outline(sizes, parents, edges, is_column)
    if is_column or (len(sizes) <= QUICK_BOXES and len(edges) <= QUICK_LINES):
        return lay_out(outline)
    return layers.lay_out(outline)
