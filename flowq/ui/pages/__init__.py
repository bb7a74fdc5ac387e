"""The pages. Each is complete as plain HTML; the script only keeps it current."""

from __future__ import annotations

from starlette.routing import BaseRoute

from flowq.ui.pages import group, job, now, run, runs, schedules, submit, workers, workflow

ROUTES: list[BaseRoute] = [
    *runs.ROUTES,
    *run.ROUTES,
    *job.ROUTES,
    *group.ROUTES,
    *now.ROUTES,
    *workers.ROUTES,
    *schedules.ROUTES,
    *submit.ROUTES,
    *workflow.ROUTES,
]
