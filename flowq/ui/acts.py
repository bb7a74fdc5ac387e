"""What changes a run: approve, reject, release, cancel, retry, and submit. Each is a POST."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowq import client
from flowq.render.json import make_document
from flowq.ui.replies import as_json
from flowq.ui.site import site_of


def cancel(request: Request) -> Response:
    """Reply to `POST /api/runs/RUN/cancel`."""
    run = client.get_run(request.path_params["run"], site_of(request).connection)
    run.cancel(may_wait=False)
    return as_json(make_document("act", run=run.run_id, act="cancel"))


ROUTES: list[BaseRoute] = [Route("/api/runs/{run}/cancel", cancel, methods=["POST"])]
