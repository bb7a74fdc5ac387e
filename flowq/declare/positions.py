"""Where everything in a document was written, looked up in its tree when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode
from flowq.declare.offsets import count_lines, find_offsets
from flowq.declare.problems import Placed, where_of
from flowq.errors import Excerpt, Where
from flowq.expressions.excerpts import find_places
from flowq.spec import Path


@dataclass(frozen=True, slots=True)
class Positions(Mapping[Path, Where]):
    """The positions of a document by path.

    What a key leads to is where it begins when that is on the key's own line, and where the key is
    otherwise. `include` and `exclude` may stand inside of the matrix that they belong to. Most are
    never asked for, so nothing is computed before.
    """

    file: str
    root: MapNode
    text: str = field(repr=False)

    def __getitem__(self, path: Path) -> Where:
        where: Where | None = self.get(path)
        if where is None:
            raise KeyError(path)
        return where

    def get(self, path: Path, default: Any = None) -> Any:
        """Return the position of a path, without the cost of an exception where there is none."""
        place, node = self._find(path)
        return default if node is None else where_of(place, self.file)

    def find_places(self, path: Path, excerpt: Excerpt) -> list[Where]:
        """Return where a part of the text at `path` stands, each time that it does."""
        _, node = self._find(path)
        if not isinstance(node, ScalarNode):
            return []
        places = find_places(node.text, excerpt)
        offsets = find_offsets(self.text, node.start, node.text) if places else None
        return [self._within(node, offsets[place]) for place in places] if offsets else []

    def _within(self, node: ScalarNode, index: int) -> Where:
        """Return the position of a character; lines are counted from the node, as in the parser."""
        lines, line_start = count_lines(self.text, node.start, index)
        column = index - line_start + 1 if lines else node.column + index - node.start
        return replace(where_of(node, self.file), line=node.line + lines, column=column)

    def _find(self, path: Path) -> tuple[Placed, Node | None]:
        if path[:1] == ("jobs",) and len(path) > 1 and self._is_final(path[1]):
            path = ("finally", *path[1:])
        place, node = _step_in(self.root, path)
        if node is None and path[2:3] in (("include",), ("exclude",)):
            return _step_in(self.root, (*path[:2], "matrix", *path[2:]))
        return place, node

    def _is_final(self, name: str | int) -> bool:
        """Whether a job stands under `finally`; elsewhere all have their path under `jobs`."""
        jobs, final = map(self.root.node_by_key.get, ("jobs", "finally"))
        if not isinstance(final, MapNode) or name not in final.node_by_key:
            return False
        return not isinstance(jobs, MapNode) or name not in jobs.node_by_key

    def __iter__(self) -> Iterator[Path]:
        return _paths((), self.root)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _step_in(root: Node, path: Path) -> tuple[Placed, Node | None]:
    place: Placed = root
    node: Node | None = root
    for part in path:
        if isinstance(node, MapNode) and part in node.node_by_key:
            key = node.key_by_key[str(part)]
            node = node.node_by_key[str(part)]
            place = node if node.line == key.line else key
        elif isinstance(node, ListNode) and isinstance(part, int) and 0 <= part < len(node.items):
            place = node = node.items[part]
        else:
            return place, None
    return place, node


def _paths(path: Path, node: Node) -> Iterator[Path]:
    yield path
    if isinstance(node, MapNode):
        for key, inner in node.node_by_key.items():
            yield from _paths((*path, key), inner)
    elif isinstance(node, ListNode):
        for index, inner in enumerate(node.items):
            yield from _paths((*path, index), inner)
