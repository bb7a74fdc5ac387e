"""The schedules that the server knows: when they are due, and who submits their runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowq import client
from flowq.ui.site import site_of

RUNS = 5
"""How many of the last runs of a schedule are shown."""

MAX_SCHEDULES = 200


def list_schedules(request: Request) -> Response:
    """Show the schedules, those that are due first."""
    site = site_of(request)
    found = client.list_schedules(site.connection, RUNS)
    return site.render(
        request,
        "schedules.html",
        schedules=found[:MAX_SCHEDULES],
        total=len(found),
        unserved=sum(not each.host and not each.is_paused for each in found),
    )


ROUTES: list[BaseRoute] = [Route("/schedules", list_schedules)]
