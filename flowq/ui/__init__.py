"""The page: runs, jobs, workers and schedules in a browser, live (`flowq ui`).

`application.py` has the routes. `guard.py` decides who may send what, `address.py` knows the hosts
under which the page is found, and `site.py` is what all routes share;
they wait for each other in `turns.py`. `pages/` has a module for
each kind of page, and `templates/` what it fills. `endpoints.py` has the same data as JSON,
`acts.py` everything that changes a run, and `live.py` sends the events that keep an open page
current, from what `live_counts.py` counts. The extra `ui` has what this needs.

    application = flowq.ui.app(connection=redis.Redis(), authorize=may_see)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowq.errors import UsageError

if TYPE_CHECKING:
    from redis import Redis
    from starlette.responses import Response
    from starlette.types import ASGIApp

__all__ = ["app"]


def app(
    *,
    connection: Redis,
    authorize: Callable[[Any], str | Response | Awaitable[str | Response | None] | None],
    is_read_only: bool = False,
    workflows: Path | None = None,
    hosts: Collection[str] | None = None,
) -> ASGIApp:
    """Return the page as an ASGI application, to be mounted in another one.

    `authorize` is called with each request (Starlette's), also for what is only read, and returns
    the name of who sends it, or None to refuse it. Where it returns a response of Starlette, such
    as a redirect to a login, pages reply with that; all else is refused. It may be a coroutine
    function; others are called in a thread. Runs of the workflows in the folder `workflows` may be
    submitted. `hosts` are the names (`HOST:PORT`) that requests may have in their Host header;
    without, the application around the page should check them. Behind a prefix, the server has to
    set `root_path`, as `Mount` does.
    Errors: UsageError if the extra `ui` is not installed, or for `hosts`.
    """
    if not find_spec("starlette"):
        raise UsageError("flowq.ui needs more packages: pip install 'rq-flowq[ui]'")
    from flowq.ui.address import Address, read_host  # noqa: PLC0415 - starlette is an extra
    from flowq.ui.application import make_app  # noqa: PLC0415
    from flowq.ui.site import Site  # noqa: PLC0415

    address = Address()
    if hosts is not None:
        named = [read_host(host, scheme) for host in hosts for scheme in ("http", "https")]
        if None in named:
            raise UsageError("hosts of the page are written HOST or HOST:PORT")
        address = Address(frozenset(filter(None, named)))
    site = Site(connection, is_read_only=is_read_only, workflows=workflows)
    return make_app(site, authorize, address)
