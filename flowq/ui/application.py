"""The routes of the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from flowq.errors import FlowqError, NotFound, ServerUnavailable, UsageError, WrongState
from flowq.render.json import error_document
from flowq.ui import acts, endpoints, live
from flowq.ui.guard import Guard
from flowq.ui.pages import ROUTES
from flowq.ui.replies import as_json
from flowq.ui.site import Site, site_of

_STATUS_BY_ERROR: tuple[tuple[type[FlowqError], int], ...] = (
    (NotFound, 404),
    (WrongState, 409),
    (UsageError, 400),
    (ServerUnavailable, 503),
)


def make_app(site: Site, authorize: Callable[[Any], str | None]) -> Starlette:
    """Return the page. `authorize` names who sends a request, or returns None to refuse it."""
    routes: list[BaseRoute] = [
        Mount("/static", StaticFiles(packages=[("flowq.ui", "static")])),
        *endpoints.ROUTES,
        *live.ROUTES,
        *([] if site.is_read_only else acts.ROUTES),
        *ROUTES,
    ]
    application = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, authorize=authorize)],
        exception_handlers={FlowqError: _tell_error, HTTPException: _tell_http},
    )
    application.state.site = site
    return application


def _tell_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FlowqError)
    code = next((code for kind, code in _STATUS_BY_ERROR if isinstance(error, kind)), 500)
    if "/api/" in request.url.path:
        return as_json(error_document(error), code)
    return site_of(request).render(request, "error.html", code, message=str(error), code=code)


def _tell_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return site_of(request).render(
        request, "error.html", error.status_code, message=error.detail, code=error.status_code
    )
