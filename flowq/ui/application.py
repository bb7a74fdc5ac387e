"""The routes of the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from flowq.errors import (
    FlowqError,
    NotFound,
    RunNotFound,
    ServerUnavailable,
    UsageError,
    WorkflowInvalid,
    WrongState,
)
from flowq.render.json import make_document
from flowq.server.connection import explain
from flowq.ui import acts, endpoints, live
from flowq.ui.address import Address
from flowq.ui.guard import Authorize, Guard
from flowq.ui.offered import find_errors
from flowq.ui.pages import ROUTES
from flowq.ui.replies import as_json, find_path, refusal_document
from flowq.ui.site import Site, site_of, takes_a_thread

_STATUS_BY_ERROR: tuple[tuple[type[FlowqError], int], ...] = (
    (NotFound, 404),
    (WrongState, 409),
    (UsageError, 400),
    (WorkflowInvalid, 400),
    (ServerUnavailable, 503),
)


RETRY_S = 5
"""When a browser asks again, if the server of the runs is away."""


def make_app(site: Site, authorize: Authorize, address: Address | None = None) -> Guard:
    """Return the page. `authorize` names who sends a request, or returns None to refuse it.

    Without an `address`, the application around the page checks the hosts of requests.
    """
    routes: list[BaseRoute] = [
        Mount("/static", _Static(packages=[("flowq.ui", "static")])),
        *endpoints.ROUTES,
        *live.ROUTES,
        *([] if site.is_read_only else acts.ROUTES),
        *ROUTES,
    ]
    application = Starlette(
        routes=[_in_threads(route) for route in routes],
        exception_handlers={
            FlowqError: _tell_error,
            RedisError: _tell_outage,
            HTTPException: _tell_http,
            Exception: _tell_fault,
        },
    )
    # A redirect would name the scheme and the host that this process sees, not those of a proxy.
    application.router.redirect_slashes = False
    application.state.site = site
    # Around everything: its headers are on the replies to faults, too.
    return Guard(application, authorize, address or Address())


def _in_threads(route: BaseRoute) -> BaseRoute:
    """Give a route the threads of its site. Those of Starlette are left to files, which are quick.

    So files are there, and requests are authorized, however many requests wait for a server."""
    if not isinstance(route, Route):
        return route
    return Route(route.path, takes_a_thread(route.endpoint), methods=list(route.methods or ()))


class _Static(StaticFiles):
    """Files that browsers keep, and ask about."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["Cache-Control"] = "private, no-cache"
        return response


def _tell_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FlowqError)
    if isinstance(error, WorkflowInvalid):
        error = WorkflowInvalid(find_errors(error.problems, site_of(request).workflows))
    code = next((code for kind, code in _STATUS_BY_ERROR if isinstance(error, kind)), 500)
    headers = {}
    if code == _AWAY:
        headers = {"Retry-After": str(RETRY_S), "Refresh": str(RETRY_S)}
    is_run_gone = isinstance(error, RunNotFound)
    document = refusal_document(error)
    return _tell(request, code, document, str(error), headers, is_run_gone=is_run_gone)


_AWAY = 503


def _tell_outage(request: Request, error: Exception) -> Response:
    reason = explain(error)
    return _tell_error(request, ServerUnavailable(site_of(request).server, reason))


def _tell_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _tell(request, error.status_code, None, error.detail, error.headers)


def _tell_fault(request: Request, error: Exception) -> Response:
    """Reply to what should not have happened; the log of the process has the traceback."""
    return _tell(request, 500, None, f"an error in flowq: {type(error).__name__}", None)


def _tell(
    request: Request,
    code: int,
    document: Mapping[str, Any] | None,
    message: str,
    headers: Mapping[str, str] | None,
    *,
    is_run_gone: bool = False,
) -> Response:
    response: Response
    if find_path(request.scope).startswith("/api/"):
        error = {"type": "HTTPError", "message": message, "exit_code": 1}
        response = as_json(document or make_document("error", error=error), code)
    else:
        told = {"message": message, "code": code, "is_run_gone": is_run_gone}
        response = site_of(request).render(request, "error.html", code, **told)
    response.headers.update(dict(headers or {}))
    return response
