"""The list of runs, the first page."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowq import client
from flowq.ui.site import site_of


def list_runs(request: Request) -> Response:
    """Show the newest runs."""
    site = site_of(request)
    return site.render(request, "runs.html", runs=client.list_runs(site.connection))


ROUTES: list[BaseRoute] = [Route("/", list_runs)]
