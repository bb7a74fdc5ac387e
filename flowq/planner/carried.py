"""A nested workflow as the jobs of a run carry it: without what a run never asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from flowq.commands.places import with_places
from flowq.expressions.places import find_workflow_texts
from flowq.graph import build_graph
from flowq.spec import Defaults, Path, Places, Workflow


def make_portable(workflow: Workflow, done: dict[int, Workflow] | None = None) -> Workflow:
    """Return a workflow that means the same, with the positions of its expressions, and no others.

    Its commands have their places, so that nobody needs the grammar of shells later on.
    The tree of the whole text would go to the server with each item of a group, and expressions are
    all that can fail there. `done` has what was returned for the workflows inside, by identity.
    """
    done = {} if done is None else done
    if id(workflow) not in done:
        inside = {name: make_portable(each, done) for name, each in workflow.workflows.items()}
        where_by_path = {path: workflow.places.find(*path) for path in _paths(workflow)}
        places = Places({path: where for path, where in where_by_path.items() if where})
        said = workflow.defaults
        # The jobs have the others, and readers of older versions know these alone.
        defaults = Defaults(said.queue, said.timeout_s, said.retries)
        jobs = tuple(
            job if job.run is None else replace(job, run=with_places(job.run))
            for job in build_graph(workflow)
        )
        done[id(workflow)] = replace(
            workflow, jobs=jobs, defaults=defaults, places=places, workflows=inside
        )
    return done[id(workflow)]


def _paths(workflow: Workflow) -> Iterator[Path]:
    """Yield where an expression stands, as precisely as the planner asks for it."""
    for uses in build_graph(workflow).uses_by_name.values():
        for path, _ in uses:
            yield from (path[:3], path[:4])
    for path, _ in find_workflow_texts(workflow):
        yield from (path[:1], path[:2])
