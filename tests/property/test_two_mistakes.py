"""Of two mistakes in a workflow, none hides the other, and none makes a third."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowq.checks import check
from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode
from flowq.declare.problems import Problems
from flowq.declare.yaml_text import read_document
from flowq.errors import WorkflowInvalid
from flowq.graph import build_graph
from tests.reading import parse_partly

ROOT = Path(__file__).parents[2]
FILES = [*sorted((ROOT / "workflows").glob("*.yaml")), Path(__file__).parent / "everything.yaml"]
PAIRS = 30
WRONG_VALUES = (
    '"${{ inputs.zzzz }}"',
    '"${{ jobs.zzzz.result }}"',
    '"${{ 1 + }}"',
    "{zz: 1}",
    "-1",
)

Path_ = tuple[str | int, ...]
Found = frozenset[tuple[str, int, str]]
"""The code, the line and the message of each error."""


@dataclass(frozen=True)
class Mistake:
    """A word that is replaced. Shape: `path` leads to its value, `line` and columns from 0."""

    path: Path_
    is_key: bool
    line: int
    start: int
    end: int
    word: str

    @property
    def input(self) -> Path_ | None:
        """The input that it is a part of."""
        at = self.path.index("inputs") + 2 if "inputs" in self.path else 0
        return self.path[:at] if at and len(self.path) >= at else None

    def touches(self, other: Mistake) -> bool:
        """Whether the one changes what is to be said of the other."""
        is_inside = other.path[: len(self.path)] == self.path
        are_keys = self.is_key and other.is_key and self.path[:2] == other.path[:2]
        is_same_input = self.input is not None and self.input == other.input
        is_same_list = self.path[:-1] == other.path[:-1] and self.word == other.word
        makes_unknown = self.path[-1] == "inputs" and "inputs." in other.word
        return is_inside or are_keys or is_same_input or is_same_list or makes_unknown


def mistakes_in(node: Node, lines: list[str], path: Path_ = ()) -> Iterator[Mistake]:
    """Yield ways to write each key and each value wrongly that leave the rest where it is."""
    if isinstance(node, ListNode):
        for index, item in enumerate(node.items):
            yield from mistakes_in(item, lines, (*path, index))
    elif isinstance(node, MapNode):
        for name, inner in node.node_by_key.items():
            if path[-1:] not in (("jobs",), ("inputs",), ("workflows",), ("matrix",)):
                key = node.key_by_key[name]
                yield from replaced(key, lines, [f"zzzz{name}"], (*path, name), is_key=True)
            yield from mistakes_in(inner, lines, (*path, name))
    else:
        yield from replaced(node, lines, WRONG_VALUES, path, is_key=False)


def replaced(
    node: ScalarNode, lines: list[str], words: Sequence[str], path: Path_, *, is_key: bool
) -> Iterator[Mistake]:
    line, column = node.line - 1, node.column - 1
    for written in (node.text, f'"{node.text}"', f"'{node.text}'"):
        if node.text and lines[line].startswith(written, column):
            for word in words:
                yield Mistake(path, is_key, line, column, column + len(written), word)


def apply(lines: list[str], *mistakes: Mistake) -> str:
    changed = [*lines]
    for one in sorted(mistakes, key=lambda each: (each.line, each.start), reverse=True):
        line = changed[one.line]
        changed[one.line] = f"{line[: one.start]}{one.word}{line[one.end :]}"
    return "\n".join(changed)


def problems_of(text: str, file: Path) -> Found:
    try:
        workflow, problems = parse_partly(text, str(file))
    except WorkflowInvalid:
        return frozenset()
    problems += [p for p in check(workflow, build_graph(workflow)) if p.severity == "error"]
    return frozenset((p.code, p.where.line, p.message) for p in problems if p.where)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_two_mistakes_are_two_problems(file: Path) -> None:
    text = file.read_text("utf-8")
    document, lines = read_document(text, Problems("x")), text.split("\n")
    assert document is not None
    mistakes = [*mistakes_in(document, lines)]
    chosen = random.Random(file.stem)
    tried = 0
    while tried < PAIRS:
        one, two = chosen.sample(mistakes, 2)
        if one.touches(two) or two.touches(one):
            continue
        first, second = (problems_of(apply(lines, each), file) for each in (one, two))
        if len(first) == len(second) == 1:
            tried += 1
            both = apply(lines, one, two)
            found = problems_of(both, file)
            assert first | second <= found, both
            more = found - first - second  # two edges that are gone may have been the only ones
            assert {code for code, _, _ in more} <= {"FQ206"}, both
