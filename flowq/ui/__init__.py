"""The page: runs, jobs, workers and schedules in a browser, live (`flowq ui`).

`application.py` has the routes. `guard.py` decides who may send what, `site.py` is what all routes
share. `pages/` has a module for each kind of page, and `templates/` what it fills. `endpoints.py`
has the same data as JSON, `acts.py` everything that changes a run, and `live.py` the events that
keep an open page current. The extra `ui` has what this needs.

    application = flowq.ui.app(connection=redis.Redis(), authorize=may_see)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis
    from starlette.applications import Starlette

__all__ = ["app"]


def app(
    *,
    connection: Redis,
    authorize: Callable[[Any], str | None],
    is_read_only: bool = False,
    workflows: Path | None = None,
) -> Starlette:
    """Return the page as an ASGI application, to be mounted in another one.

    `authorize` is called with each request (Starlette's) and returns the name of who sends it, or
    None to refuse it. Behind a prefix, the server has to set `root_path`, as `Mount` does.
    Errors: UsageError if the extra `ui` is not installed.
    """
    from flowq.ui.application import make_app  # noqa: PLC0415 - starlette is an extra
    from flowq.ui.site import Site  # noqa: PLC0415

    site = Site(connection, is_read_only=is_read_only, workflows=workflows)
    return make_app(site, authorize)
