"""Where everything in a document was written, looked up in its tree when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flowq.declare.nodes import ListNode, MapNode, Node
from flowq.declare.problems import Placed
from flowq.errors import Where
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

    def __getitem__(self, path: Path) -> Where:
        where: Where | None = self.get(path)
        if where is None:
            raise KeyError(path)
        return where

    def get(self, path: Path, default: Any = None) -> Any:
        """Return the position of a path, without the cost of an exception where there is none."""
        place, node = _step_in(self.root, path)
        if node is None and path[2:3] in (("include",), ("exclude",)):
            place, node = _step_in(self.root, (*path[:2], "matrix", *path[2:]))
        return default if node is None else Where(self.file, place.line, place.column)

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
