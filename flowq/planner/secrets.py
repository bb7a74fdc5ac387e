"""Which secrets a job may meet: those that it names, and those in the results that it reads.

A result reaches other jobs unchanged, so what they show has to be masked too. The answer is an
upper bound from the names in the declarations: no result is looked at.
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

    Shape: `read` are those that the results and inputs may have in them that the job reads, `met`
    all that it, or a job inside of it, may come across; both are empty where there are none at all.
    """

    read: Names = field(default_factory=dict)
    met: Names = field(default_factory=dict)

    def read_by(self, name: str) -> tuple[str, ...]:
        """Return those that may stand in what a job reads, to be known before it reads."""
        return tuple(sorted(self.read.get(name, NONE)))

    def all_of(self, *names: str) -> tuple[str, ...]:
        """Return those that the results of these jobs may have in them."""
        return tuple(sorted(NONE.union(*(self.met.get(name, NONE) for name in names))))


def find_secrets(graph: Graph, env: Mapping[str, Any], inherited: Iterable[str] = ()) -> Secrets:
    """Return the secrets of a workflow's jobs.

    `env` is what all jobs get, `inherited` are those that the inputs may have in them. Errors:
    CycleError.
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
    """Return the secrets that a nested workflow names, or one inside of it."""
    if name not in workflow.workflows:
        return NONE
    graph = build_graph(workflow.workflows[name])
    named = (each for job in graph for each in _name(graph, job.name))
    inside = (_find_inside(graph.workflow, each) for each in graph.workflow.workflows)
    return find_references(graph.workflow.env).secrets.union(*named, *inside)
