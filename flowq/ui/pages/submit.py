"""Forms that submit runs: a workflow of the folder that the page was given, or a run once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowq import client
from flowq.errors import NewerFormat, NotFound
from flowq.inputs import convert
from flowq.pictures.stored import read_workflow
from flowq.spec import Input
from flowq.ui.offered import Offered, find_added_labels, list_offered
from flowq.ui.site import site_of


def show_workflows(request: Request) -> Response:
    """List the workflows that may be submitted; with `?workflow=NAME`, show the form of one."""
    site = site_of(request)
    if site.workflows is None or site.is_read_only:
        raise HTTPException(404)
    name = request.query_params.get("workflow", "")
    offered = list_offered(site.workflows)
    named = [each for each in offered if each.name == name]
    if name and not named:
        raise NotFound(f"there is no workflow {name} to submit")
    problems = {each.file: _find_problems(each, offered) for each in offered}
    return site.render(
        request, "submit.html", offers=offered, chosen=next(iter(named), None), problems=problems
    )


def _find_problems(workflow: Offered, offered: Sequence[Offered]) -> tuple[str, ...]:
    """Return why a workflow cannot be submitted."""
    others = (each.file for each in offered if each.name == workflow.name and each is not workflow)
    return (*workflow.problems, *(f"{file} has the same name" for file in others))


def show_again(request: Request) -> Response:
    """Show the form that submits a run's workflow once more, with the inputs of the run."""
    site = site_of(request)
    if site.is_read_only:
        raise HTTPException(404)
    run = client.get_run(request.path_params["run"], site.connection)
    record = run.record()
    try:
        workflow = read_workflow(run.source())
        problem = "" if workflow else "A run of an older version of flowq keeps no workflow."
    except NewerFormat as error:
        workflow, problem = None, f"{error}."
    inputs = workflow.inputs if workflow else ()
    return site.render(
        request,
        "again.html",
        record=record,
        inputs=inputs,
        values=_fitting(inputs, record.inputs),
        labels=find_added_labels(record, workflow) if workflow else {},
        problem=problem,
    )


def _fitting(inputs: tuple[Input, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that the inputs would take."""
    found = {}
    for declared in inputs:
        try:
            found[declared.name] = convert(declared, values[declared.name])
        except (KeyError, ValueError):  # optional, and was not given
            found[declared.name] = None
    return found


ROUTES: list[BaseRoute] = [
    Route("/submit", show_workflows),
    Route("/runs/{run}/again", show_again),
]
