"""The HTTP API: what the commands print with `--json`, by the same functions."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowq import client
from flowq.documents import read_run
from flowq.render.json import run_document, runs_document
from flowq.ui.replies import as_json
from flowq.ui.site import site_of


def list_runs(request: Request) -> Response:
    """Reply to `GET /api/runs`."""
    return as_json(runs_document(client.list_runs(site_of(request).connection)))


def show_run(request: Request) -> Response:
    """Reply to `GET /api/runs/RUN`."""
    run = client.get_run(request.path_params["run"], site_of(request).connection)
    return as_json(run_document(read_run(run)))


ROUTES: list[BaseRoute] = [
    Route("/api/runs", list_runs),
    Route("/api/runs/{run}", show_run),
]
