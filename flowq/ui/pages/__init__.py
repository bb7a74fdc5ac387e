"""The pages. Each is complete as plain HTML; the script only keeps it current."""

from __future__ import annotations

from starlette.routing import BaseRoute

from flowq.ui.pages import runs

ROUTES: list[BaseRoute] = [*runs.ROUTES]
