"""What the routes of the page share: the server, what is allowed, and the templates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from flowq.ui.looks import FILTERS
from flowq.ui.reading import Reader
from flowq.ui.turns import MAX_HEAVY, MAX_LIGHT, Turns, in_turn

if TYPE_CHECKING:
    from redis import Redis

    from flowq.client import Run


@dataclass(frozen=True)
class Site:
    """The page of one server. Workflows in the folder `workflows` may be submitted by name."""

    connection: Redis = field(repr=False)
    is_read_only: bool = False
    workflows: Path | None = None
    server: str = "the Redis server"
    """What errors call the server: its URL, without its password."""
    start_workers: Callable[[Run], object] | None = None
    """Starts workers for a run that has none; None where workers serve all runs."""

    reader: Reader = field(default_factory=Reader, repr=False, compare=False)
    heavy: Turns = field(default_factory=lambda: Turns(MAX_HEAVY), repr=False, compare=False)
    light: Turns = field(default_factory=lambda: Turns(MAX_LIGHT), repr=False, compare=False)

    @cached_property
    def templates(self) -> Environment:
        """The environment of the templates: everything is escaped, and unknown names are errors."""
        found = Environment(
            loader=PackageLoader("flowq.ui"), autoescape=True, undefined=StrictUndefined
        )
        found.filters |= FILTERS
        return found

    def render(
        self, request: Request, name: str, status_code: int = 200, **values: Any
    ) -> HTMLResponse:
        """Return a template as a response. In templates, links begin with `{{ root }}`."""
        text = self.templates.get_template(name).render(
            root=request.scope.get("root_path", ""),
            now=datetime.now(UTC),
            is_read_only=self.is_read_only,
            can_submit=self.workflows is not None and not self.is_read_only,
            path=request.scope["path"],
            csrf=getattr(request.state, "csrf", ""),
            **values,
        )
        return HTMLResponse(text.encode("utf-8", "backslashreplace"), status_code)


def site_of(request: Request) -> Site:
    """Return the site that a request is for."""
    site = request.app.state.site
    assert isinstance(site, Site)
    return site


reads_a_whole_run = in_turn(lambda request: site_of(request).heavy)
"""Let few requests at a time read all events of a run, which may take seconds."""

takes_a_thread = in_turn(lambda request: site_of(request).light)
"""Let more requests at a time ask the server for less."""
