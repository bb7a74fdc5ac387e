"""Nested workflows in the form in which a run stores them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from flowq.commands.places import with_places
from flowq.expressions.places import find_workflow_texts
from flowq.graph import build_graph
from flowq.spec import Defaults, Path, Places, Workflow


def make_portable(workflow: Workflow, done: dict[int, Workflow] | None = None) -> Workflow:
    """Return an equivalent workflow that has only the positions of its expressions.

    The tree of the whole text would be sent to the server with each item of a group, and only
    expressions can fail there. Commands get their places now, so that a run does not need the
    grammar of shells. `done` has the workflows that were returned already, by identity.
    """
    done = {} if done is None else done
    if id(workflow) not in done:
        inside = {name: make_portable(each, done) for name, each in workflow.workflows.items()}
        where_by_path = {path: workflow.places.find(*path) for path in _paths(workflow)}
        places = Places({path: where for path, where in where_by_path.items() if where})
        said = workflow.defaults
        # The jobs have the other defaults, and older versions know only these.
        defaults = Defaults(said.queue, said.timeout_s, said.retries, settings=said.settings)
        jobs = tuple(
            job if job.run is None else replace(job, run=with_places(job.run))
            for job in build_graph(workflow)
        )
        done[id(workflow)] = replace(
            workflow, jobs=jobs, defaults=defaults, places=places, workflows=inside
        )
    return done[id(workflow)]


def _paths(workflow: Workflow) -> Iterator[Path]:
    """Yield the paths of expressions, as precisely as the planner needs them."""
    for uses in build_graph(workflow).uses_by_name.values():
        for path, _ in uses:
            yield from (path[:3], path[:4])
    for path, _ in find_workflow_texts(workflow):
        yield from (path[:1], path[:2], path)
