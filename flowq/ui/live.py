"""Events for open pages: one follower a run, which counts, and frames for each viewer."""

from __future__ import annotations

from starlette.routing import BaseRoute

ROUTES: list[BaseRoute] = []
