"""Which secrets a job may meet: those that it names, and those in the results that it reads.

A result reaches other jobs unchanged, so their output has to be masked too. The answer is an upper
bound from the names in the declarations; no result is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowq.expressions import find_references
from flowq.graph import Graph, build_graph
from flowq.spec import Workflow

NONE: frozenset[str] = frozenset()
Names = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Secrets:
    """Names of secrets by job.

    Shape: `read` has the secrets that may be in the results and inputs which the job reads; `met`
    all that the job, or a job of its nested workflow, may meet. Both are empty if the workflow has
    no secrets.
    """

    read: Names = field(default_factory=dict)
    met: Names = field(default_factory=dict)

    def read_by(self, name: str) -> tuple[str, ...]:
        """Return the secrets that may be in what a job reads."""
        return tuple(sorted(self.read.get(name, NONE)))

    def all_of(self, *names: str) -> tuple[str, ...]:
        """Return the secrets that the results of these jobs may contain."""
        return tuple(sorted(NONE.union(*(self.met.get(name, NONE) for name in names))))


def find_secrets(graph: Graph, env: Mapping[str, Any], inherited: Iterable[str] = ()) -> Secrets:
    """Return the secrets of a workflow's jobs.

    `env` has the variables of all jobs, `inherited` the secrets that the inputs may contain.
    Errors: CycleError.
    """
    shared, given = find_references(env).secrets, frozenset(inherited)
    named = {job.name: shared.union(*_name(graph, job.name)) for job in graph}
    inside = {job.name: _find_inside(graph.workflow, job.workflow) for job in graph}
    if not given and not any(named.values()) and not any(inside.values()):
        return Secrets()
    read: dict[str, frozenset[str]] = {}
    met: dict[str, frozenset[str]] = {}
    for name in graph.topological_order:
        uses = (uses for _, uses in graph.uses_by_name.get(name, ()))
        others = {other for each in uses for other, _ in each.jobs}
        read[name] = given.union(*(met.get(other, NONE) for other in others))
        met[name] = read[name] | named[name] | inside[name]
    return Secrets(read, met)


def _name(graph: Graph, name: str) -> Iterable[frozenset[str]]:
    return (uses.secrets for _, uses in graph.uses_by_name.get(name, ()))


def _find_inside(workflow: Workflow, name: str) -> frozenset[str]:
    """Return the secrets that a nested workflow names, also in workflows inside it."""
    if name not in workflow.workflows:
        return NONE
    graph = build_graph(workflow.workflows[name])
    named = (each for job in graph for each in _name(graph, job.name))
    inside = (_find_inside(graph.workflow, each) for each in graph.workflow.workflows)
    return find_references(graph.workflow.env).secrets.union(*named, *inside)
