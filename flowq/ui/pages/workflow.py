"""A workflow over time: its last runs, and which of its jobs are flaky or slow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowq import client
from flowq.client import JobOverTime, RunOverTime
from flowq.errors import NotFound
from flowq.render.lines import count, format_duration
from flowq.status import RUN_ENDED
from flowq.ui.looks import glyph, ordered
from flowq.ui.site import site_of

RUNS = 50
MAX_JOBS = 200
SLOW = 3
"""How many jobs are called slow."""

BAR, GAP, HEIGHT, LEAST = 12, 4, 60, 3
"""Units: pixels. The strip: the width of a bar, the room beside it, the most and least height."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A run in the strip. Units: pixels."""

    x: int
    height: int
    state: str
    glyph: str


def show_workflow(request: Request) -> Response:
    """Show the last runs of a workflow. Errors: NotFound if there are none."""
    site, name = site_of(request), request.path_params["name"]
    history = client.read_workflow_history(name, site.connection, RUNS, keeps=not site.is_read_only)
    if not history.runs:
        raise NotFound(f"there are no runs of a workflow {name}")
    times = [run.took_s for run in history.runs if run.took_s is not None]
    states = Counter(run.record.state for run in history.runs)
    counted = sum(run.is_counted for run in history.runs)
    jobs = sorted(history.jobs, key=_importance)
    slow = sorted((each.median_s for each in jobs if each.median_s), reverse=True)[:SLOW]
    return site.render(
        request,
        "workflow.html",
        workflow=name,
        runs=history.runs,
        states=states,
        bars=_draw(history.runs, max(times, default=0)),
        about=_describe(states, times),
        longest=max(times, default=0),
        median_s=median(times) if times else None,
        succeeded=states["succeeded"],
        ended=sum(states[state] for state in RUN_ENDED),
        jobs=jobs[:MAX_JOBS],
        job_count=len(jobs),
        longest_job=max((each.median_s or 0 for each in jobs), default=0),
        slow=set(slow) if len(jobs) > SLOW else set(),
        counted=counted,
    )


def _importance(job: JobOverTime) -> tuple[bool, int, float]:
    """Order jobs: flaky ones, failed ones, then the slow ones."""
    return (not job.is_flaky, -job.failed - job.retried, -(job.median_s or 0))


def _draw(runs: Sequence[RunOverTime], longest: float) -> list[Bar]:
    """Return the bars of the strip, the oldest run first."""
    step = BAR + GAP
    return [
        Bar(
            at * step,
            max(LEAST, round(HEIGHT * (run.took_s or 0) / longest)) if longest else LEAST,
            run.record.state,
            glyph(run.record.state),
        )
        for at, run in enumerate(reversed(runs))
    ]


def _describe(states: Counter[str], times: Sequence[float]) -> str:
    """Return what the strip shows as a sentence."""
    said = ", ".join(f"{number} {state}" for state, number in ordered(states))
    text = f"The last {count(states.total(), 'run')}, oldest first: {said}"
    if not times:
        return text
    return f"{text}; they took {format_duration(min(times))} to {format_duration(max(times))}"


ROUTES: list[BaseRoute] = [Route("/workflows/{name:path}", show_workflow)]
