"""Which parts of a text with problems do not tell all that was meant.

Whoever looks for further problems must not complain of what is missing there. A part is as small as
possible: what is wrong with one value says nothing about the others.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import chain

from flowq.declare.input_words import INPUT
from flowq.declare.keys import JOB
from flowq.declare.nested import find_jobs, is_file
from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode
from flowq.declare.options import is_free
from flowq.declare.problems import Problems
from flowq.declare.shapes import Vocabulary, find_meant
from flowq.declare.yaml_jobs import NEEDED_BY_KEY
from flowq.spec import Path

_WORK = ("call", "run", "workflow")
_UNKNOWN_KEY = frozenset({"FQ103", "FQ108"})
_OF_GAPS = frozenset({"FQ105", "FQ112"})
"""Codes of a map of which a key could not be read."""


def find_unread(
    document: MapNode, kind: Vocabulary, workflows: Collection[str], problems: Problems
) -> frozenset[Path]:
    """Return the parts of one workflow's document that are known in part, or not at all.

    `workflows` are those that were read for its jobs. Shape: each value with a problem, by its
    path; keys that are not there but may be meant by one that is unknown; ("jobs", name, "name")
    for a name that cannot be one; ("workflows", name). What stands under `finally` has its path
    under `jobs`.
    """
    walk = _Walk(kind, problems)
    parts = (
        walk.visit((), document),
        _unread_workflows(document, workflows),
        [("jobs",)] if "jobs" not in document.node_by_key else [],
    )
    found = chain.from_iterable(parts)
    return frozenset(("jobs", *path[1:]) if path[:1] == ("finally",) else path for path in found)


class _Walk:
    """A walk through one document, past all that has a problem."""

    def __init__(self, kind: Vocabulary, problems: Problems) -> None:
        self.kind = kind
        self.codes_by_node: dict[int, set[str]] = {}
        for code, node in problems.noted:
            self.codes_by_node.setdefault(id(node), set()).add(code)

    def visit(self, path: Path, node: Node) -> Iterator[Path]:
        if isinstance(node, ListNode):
            for index, item in enumerate(node.items):
                yield from self.of_value((*path, index), item)
        elif isinstance(node, MapNode):
            if not _OF_GAPS.isdisjoint(self.codes_by_node.get(id(node), ())):
                yield from self.of_gaps(path, node)
            for name, inner in node.node_by_key.items():
                for code in self.codes_by_node.get(id(node.key_by_key[name]), ()):
                    yield from self.of_key(path, name, node, code)
                yield from self.of_value((*path, name), inner)

    def of_value(self, path: Path, node: Node) -> Iterator[Path]:
        is_entry = isinstance(node, MapNode) and self.vocabulary_at(path) is not None
        if id(node) in self.codes_by_node and not is_entry:
            yield path
        yield from self.visit(path, node)

    def of_key(self, path: Path, name: str, node: MapNode, code: str) -> Iterator[Path]:
        """Yield what is not known because of a problem that stands at a key."""
        if code in _UNKNOWN_KEY and node.key_by_key[name].text != name:
            return  # it was read as the key that it means
        if code == "FQ118":
            yield from ((*path, each) for each in NEEDED_BY_KEY.get(name, ()))
        elif code in _UNKNOWN_KEY:
            yield from self.of_gaps(path, node)
        elif path in _JOBS and code == "FQ106":
            yield from ((*path, name, each) for each in _WORK)
        elif code == "FQ104":  # which of the two is meant is not known
            yield (*path, name)
        elif path in (*_JOBS, ("inputs",)):
            yield (*path, name, "name") if code == "FQ109" else (*path, name)
        else:
            yield path

    def of_gaps(self, path: Path, node: MapNode) -> Iterator[Path]:
        """Yield what may be missing from a map with keys that could not be read."""
        kind = self.vocabulary_at(path)
        if kind is None:
            yield path
            return
        unknown = [key for key in node.node_by_key if key not in kind.keys and not is_free(key)]
        if not unknown:
            yield from ((*path, key) for key in kind.keys.keys() - node.node_by_key)
        yield from ((*path, key) for key in find_meant(node, kind))
        for word in unknown:
            advice = kind.foreign.get(word, "")
            yield from ((*path, key) for key in kind.keys if re.search(rf"\b{key}\b", advice))

    def vocabulary_at(self, path: Path) -> Vocabulary | None:
        if len(path) == 2 and path[0] in _ENTRIES:
            return _ENTRIES[str(path[0])]
        return None if path else self.kind


_JOBS = (("jobs",), ("finally",))
_ENTRIES: Mapping[str, Vocabulary] = {"jobs": JOB, "finally": JOB, "inputs": INPUT}


def _unread_workflows(document: MapNode, found: Collection[str]) -> Iterator[Path]:
    """Yield those that jobs name and that are somewhere, but could not be read."""
    declared = document.node_by_key.get("workflows")
    names = declared.node_by_key if isinstance(declared, MapNode) else {}
    for job in find_jobs(document):
        said = job.node_by_key.get("workflow") if isinstance(job, MapNode) else None
        name = said.text if isinstance(said, ScalarNode) else ""
        if name not in found and (is_file(name) or name in names):
            yield ("workflows", name)
