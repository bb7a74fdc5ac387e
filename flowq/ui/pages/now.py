"""What is being executed at this moment (WIP), and by which worker."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowq import client
from flowq.ui.site import site_of

MAX_JOBS = 500
"""How many executions are listed; all are counted."""


def show_now(request: Request) -> Response:
    """Show the jobs that are being executed, lost ones first."""
    site = site_of(request)
    wip = client.read_wip(site.connection, limit=MAX_JOBS)
    return site.render(request, "now.html", wip=wip, total=sum(wip.counts.values()))


ROUTES: list[BaseRoute] = [Route("/now", show_now)]
