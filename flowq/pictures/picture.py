"""What a picture shows: the jobs and edges of a graph, with states where there is a run.

Every picture is made from this value, so that a graph and a run look alike in all formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from flowq.graph import Edge, Graph
from flowq.render.groups import collapse
from flowq.status import JobStatus, RunStatus


@dataclass(frozen=True, slots=True)
class Node:
    """One job; running jobs may add blockers to one that is open.

    Shape: `state` is empty where there is no run; `level` counts from 0.
    """

    name: str
    level: int
    state: str = ""
    is_future: bool = False
    is_open: bool = False
    description: str = ""
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One edge, from the blocker to the future job; to one under `finally` if it `is_last`."""

    blocker: str
    future: str
    on_failure: Literal["ignore"] | None = None
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A picture's content. Shape: nodes in topological order, lines ordered by their future job."""

    title: str
    nodes: tuple[Node, ...]
    lines: tuple[Line, ...]
    state: str = ""

    def blockers_by_name(self) -> dict[str, list[str]]:
        """Return the blockers of every job, ordered as the lines are; empty lists included."""
        blockers: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for line in self.lines:
            blockers[line.future].append(line.blocker)
        return blockers


def view_graph(graph: Graph, status: RunStatus | None = None) -> View:
    """Return the picture of a graph, or of a run when its status is given.

    Jobs of the run that the workflow does not declare (added while it ran) are appended, without
    lines, at level 0. Errors: CycleError for a graph that has not been checked.
    """
    status_by_name = collapse(status) if status else {}
    nodes = [_node(graph, name, status_by_name.pop(name, None)) for name in graph.topological_order]
    late = [Node(job.name, 0, job.state) for job in status_by_name.values()]
    lines = tuple(_line(graph, edge) for edge in graph.edges)
    state = status.state if status else ""
    return View(graph.workflow.name, (*nodes, *late), lines, state)


def _node(graph: Graph, name: str, job: JobStatus | None) -> Node:
    return Node(
        name,
        graph.level_by_name[name],
        job.state if job else "",
        graph.is_future(name),
        graph.job_by_name[name].deferred,
        graph.job_by_name[name].description,
        graph.job_by_name[name].is_final,
    )


def _line(graph: Graph, edge: Edge) -> Line:
    blocker, future = graph.job_by_name[edge.blocker], graph.job_by_name[edge.future]
    is_last = future.is_final and not blocker.is_final
    return Line(edge.blocker, edge.future, edge.on_failure, is_last)


def graph_document(view: View) -> dict[str, Any]:
    """Return the jobs of a picture in topological order, and its edges."""
    return {
        "workflow": view.title,
        "status": view.state or None,
        "jobs": [
            {
                "name": node.name,
                "level": node.level,
                "future": node.is_future,
                "open": node.is_open,
            }
            | ({"finally": True} if node.is_final else {})
            | ({"status": node.state} if node.state else {})
            for node in view.nodes
        ],
        "edges": [
            {"blocker": line.blocker, "future": line.future, "on_failure": line.on_failure}
            for line in view.lines
        ],
    }
