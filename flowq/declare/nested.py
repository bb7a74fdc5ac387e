"""The workflows that the jobs of a YAML workflow name: in the same file or in other files.

`yaml` looks them up here. Each file is read once, and a file that includes itself is a problem.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flowq.declare.job_shapes import check_name
from flowq.declare.nodes import MapNode, Node, ScalarNode, is_empty, say
from flowq.declare.problems import Placed, Problems
from flowq.errors import Problem, WorkflowInvalid, WorkflowNotFound
from flowq.problems import (
    DOCUMENT_TOO_LARGE,
    NO_SUCH_WORKFLOW,
    WORKFLOW_IN_ITSELF,
    WRONG_SHAPE,
)
from flowq.spec import JobSpec, Workflow

MAX_DEPTH = 16
"""Levels of workflows inside workflows."""

_ENDINGS = (".yaml", ".yml")

ReadNode = Callable[[str, MapNode, "Shelf"], Workflow]
ReadFile = Callable[[str, "Files"], tuple[Workflow, list[Problem]]]


@dataclass
class Files:
    """The files that are being read, outermost first, and the files that have been read."""

    chain: tuple[str, ...]
    read_file: ReadFile
    found: dict[str, Workflow | None] = field(default_factory=dict)

    def beside(self, file: str) -> Files:
        """Return the files as seen from `file`, which is read next."""
        return Files((*self.chain, file), self.read_file, self.found)


@dataclass
class Shelf:
    """The workflows that can be named in one place; each is read once, when needed."""

    files: Files
    problems: Problems
    read_node: ReadNode
    outer: Shelf | None = None
    nodes: Mapping[str, MapNode] = field(default_factory=dict)
    found: dict[str, Workflow | None] = field(default_factory=dict)
    reading: list[str] = field(default_factory=list)

    def open(self, node: Node | None) -> Shelf:
        """Return the shelf inside a workflow: its own `workflows`, then this shelf."""
        inner = Shelf(self.files, self.problems, self.read_node, self)
        if node is None or is_empty(node):
            return inner
        if not isinstance(node, MapNode):
            message = f"workflows must be a map of names, not {say(node)}"
            self.problems.add(WRONG_SHAPE, node, message, "write NAME: {jobs: {…}}")
            return inner
        inner.nodes = dict(inner.check_entries(node))
        return inner

    def check_entries(self, node: MapNode) -> list[tuple[str, MapNode]]:
        """Return the entries that are maps, and note the others."""
        entries = []
        for name, inner in node.node_by_key.items():
            check_name(node.key_by_key[name], self.problems)
            if isinstance(inner, MapNode):
                entries.append((name, inner))
            else:
                hint = "a file is named in the job: `workflow: ./file.yaml`"
                message = f"workflow {name} must be a map, not {say(inner)}"
                self.problems.add(WRONG_SHAPE, inner, message, hint)
        return entries

    def gather(self, jobs: tuple[JobSpec, ...], document: MapNode) -> dict[str, Workflow]:
        """Return the workflows that the jobs name. Reads all declared workflows."""
        named = dict.fromkeys(job.workflow for job in jobs if job.workflow)
        names = dict.fromkeys([*self.nodes, *named])
        found = {name: self.find(name, _place(name, document)) for name in names}
        return {n: w for n, w in found.items() if n in named and w is not None}

    def find(self, name: str, place: Placed) -> Workflow | None:
        """Return the workflow of a name or file; note a missing file at `place`."""
        if is_file(name):
            return self._find_file(name, place)
        shelf: Shelf | None = self
        while shelf is not None and name not in shelf.nodes:
            shelf = shelf.outer
        return None if shelf is None else shelf.take(name, place)  # the checks report None

    def take(self, name: str, place: Placed) -> Workflow | None:
        """Return one of this shelf's own workflows; read it if it has not been read."""
        if name in self.reading:
            circle = [*self.reading[self.reading.index(name) :], name]
            self._refuse_circle(circle, place)
            return None
        if name not in self.found:
            if len(self.reading) >= MAX_DEPTH:
                self._refuse_depth(place)
                return None
            self.reading.append(name)
            self.found[name] = self.read_node(name, self.nodes[name], self)
            self.reading.pop()
        return self.found[name]

    def _refuse_circle(self, circle: list[str], place: Placed) -> None:
        message = f"these workflows contain each other: {' → '.join(circle)}"
        hint = "a workflow that contains itself would never end: remove one of these jobs"
        self.problems.add(WORKFLOW_IN_ITSELF, place, message, hint)

    def _refuse_depth(self, place: Placed) -> None:
        message = f"workflows nest deeper than {MAX_DEPTH} levels"
        self.problems.add(DOCUMENT_TOO_LARGE, place, message, "move these jobs into one workflow")

    def _find_file(self, name: str, place: Placed) -> Workflow | None:
        here = self.files.chain[-1]
        file = os.path.normpath(os.path.join(os.path.dirname(here), name))  # noqa: PTH118, PTH120 - keeps symbolic links
        names = [_identity(each) for each in self.files.chain]
        if _identity(file) in names:
            first = names.index(_identity(file))
            self._refuse_circle([*map(os.path.basename, self.files.chain[first:]), name], place)
            return None
        if len(self.files.chain) >= MAX_DEPTH:
            self._refuse_depth(place)
            return None
        if file not in self.files.found:
            self.files.found[file] = self._read_file(name, file, place)
        return self.files.found[file]

    def _read_file(self, name: str, file: str, place: Placed) -> Workflow | None:
        try:
            workflow, problems = self.files.read_file(file, self.files.beside(file))
        except WorkflowNotFound as error:
            message = f"the workflow {name} cannot be read: {error.reason}"
            self.problems.add(NO_SUCH_WORKFLOW, place, message, "it is looked for beside this file")
            return None
        except WorkflowInvalid as invalid:
            self.problems.extend(invalid.problems)
            return None
        self.problems.extend(problems)
        return workflow


def find_jobs(document: MapNode) -> Iterator[Node]:
    """Yield the values of `jobs` and `finally`, one for each job."""
    for key in ("jobs", "finally"):
        jobs = document.node_by_key.get(key)
        if isinstance(jobs, MapNode):
            yield from jobs.node_by_key.values()


def is_file(name: str) -> bool:
    """Whether the `workflow` of a job is a file, not a name under `workflows`."""
    return "/" in name or "\\" in name or name.endswith(_ENDINGS)


def _identity(file: str) -> str:
    return os.path.realpath(Path(file))


def _place(name: str, document: MapNode) -> Placed:
    """Return where a workflow is named: the first job that names it, or its declaration."""
    for job in find_jobs(document):
        said = job.node_by_key.get("workflow") if isinstance(job, MapNode) else None
        if isinstance(said, ScalarNode) and said.text == name:
            return said
    declared = document.node_by_key.get("workflows")
    return declared if isinstance(declared, MapNode) else document
