"""The workers of the server: flowq's and RQ's."""

from __future__ import annotations

from collections import Counter

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowq import client
from flowq.ui.site import site_of

MAX_WORKERS = 500
"""How many workers are listed; all are counted."""

_LATER = ("busy", "idle", "resting")


def list_workers(request: Request) -> Response:
    """Show the workers: what needs attention first, then those that execute something."""
    site = site_of(request)
    workers = client.list_workers(site.connection)
    rank = {state: at for at, state in enumerate(_LATER, start=1)}
    workers.sort(key=lambda each: (each.state != "lost", rank.get(each.state, 0)))
    return site.render(
        request,
        "workers.html",
        workers=workers[:MAX_WORKERS],
        counts=Counter(each.state for each in workers),
    )


ROUTES: list[BaseRoute] = [Route("/workers", list_workers)]
