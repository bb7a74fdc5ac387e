"""The HTTP API for reading: what the commands print with `--json`, by the same functions.

`openapi.py` describes each route, and a test compares them.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from datetime import UTC, datetime
from importlib.util import find_spec
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowq import client, job_output
from flowq.client import Run, RunFilter, missing_job
from flowq.documents import (
    MAX_EXPLAINED,
    choose_page,
    explain_document,
    names_to_explain,
    read_job,
    read_run,
)
from flowq.errors import JobNotFound, NotFound, UsageError
from flowq.labels import check_labels
from flowq.metrics import CONTENT_TYPE, render_metrics
from flowq.pictures.picture import to_document
from flowq.pictures.svg import render_svg
from flowq.render.job_output import drop_note, left_out_note
from flowq.render.json import make_document, run_document, runs_document, schedules_document
from flowq.render.lines import spelled
from flowq.render.wip import wip_document, workers_document
from flowq.runtime.counts import find_id
from flowq.runtime.explain import PLAIN
from flowq.runtime.printed import Printed
from flowq.status import ENDED
from flowq.ui.offered import list_offered, offered_document
from flowq.ui.openapi import make_openapi
from flowq.ui.replies import as_json
from flowq.ui.site import reads_a_whole_run, site_of

MAX_LIMIT = 1_000
SVG_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""For a picture that is opened by itself: it has its style in it, and no script."""


def list_runs(request: Request) -> Response:
    """Reply to `GET /api/runs`."""
    query = request.query_params
    pairs = [label.partition("=") for label in query.getlist("label")]
    if not all(sign for _, sign, _ in pairs):
        raise UsageError("a label is written name=value")
    state = query.get("state", "")
    if state and state not in client.RUN_STATES:
        raise UsageError(f"there is no state {state!r} of runs")
    labels = check_labels({name: value for name, _, value in pairs})
    wanted = RunFilter(
        state,
        query.get("workflow", ""),
        _read_instant(query.get("since", "")),
        tuple(labels.items()),
        query.get("text", ""),
    )
    limit, after = _read_number(request, "limit", 50, MAX_LIMIT), query.get("after", "")
    page = client.read_run_page(site_of(request).connection, limit, wanted, after=after)
    document = runs_document(page.runs)
    return as_json({**document, "after": page.after} if page.after else document)


@reads_a_whole_run
def show_run(request: Request) -> Response:
    """Reply to `GET /api/runs/RUN`."""
    return as_json(run_document(read_run(_find_run(request), has_nested=_has(request, "nested"))))


@reads_a_whole_run
def show_job(request: Request) -> Response:
    """Reply to `GET /api/runs/RUN/jobs/JOB`: with a state, of a group the items in it."""
    run, name, query = _find_run(request), request.path_params["job"], request.query_params
    state, after = query.get("state", ""), query.get("after", "")
    limit = _read_number(request, "limit", 100, MAX_LIMIT)
    if not state:
        return as_json(read_job(run, name, has_nested=_has(request, "nested")))
    return as_json(
        read_job(run, name, lambda status: choose_page(run, status, name, state, after, limit))
    )


async def show_log(request: Request) -> Response:
    """Reply to `GET /api/runs/RUN/jobs/JOB/log`: what an attempt has printed from a byte on."""
    site = site_of(request)
    request.state.job_id = await site.light.run(_find_id, request)
    if not request.state.job_id:
        request.state.job_id = await site.heavy.run(_search_id, request)
    return await site.light.run(_show_log, request)


def _find_id(request: Request) -> str:
    run = _find_run(request)
    return find_id(run.run_id, request.path_params["job"], run.connection)


def _search_id(request: Request) -> str:
    """Return the id of a job by reading the whole run. Errors: NotFound."""
    run, name = _find_run(request), request.path_params["job"]
    status = run.status()
    if name not in status.jobs:
        raise missing_job(run.run_id, name, status.names())
    return status.jobs[name].job_id


def _show_log(request: Request) -> Response:
    run, name = _find_run(request), request.path_params["job"]
    job_id: str = request.state.job_id
    start = _read_number(request, "from", 0, 1 << 50, least=0)
    printed = job_output.read(run, [job_id]).get(job_id, {})
    newest = max(printed, default=1)
    number = _read_number(request, "attempt", newest, 1 << 30)
    each = printed.get(number, Printed())
    state = client.explain(job_id, run.connection).state
    is_over = number < newest or state in ENDED
    text, end = _read_text(each, start if start <= each.size else 0, is_over=is_over)
    return as_json(
        make_document(
            "log",
            run=run.run_id,
            job=name,
            attempt=number,
            text=text,
            next=end,
            size=each.size,
            is_complete=is_over,
        )
    )


def _read_text(printed: Printed, start: int, *, is_over: bool) -> tuple[str, int]:
    """Return the text behind a byte, and where the next one begins."""
    if printed.dropped:
        return (f"{drop_note(printed)}\n" if is_over else ""), printed.size
    before, left_out, after = printed.read_from(start)
    cut = 0 if is_over else _find_incomplete(after or before)
    if cut:
        before, after = (before, after[:-cut]) if after else (before[:-cut], after)
    gap = f"\n{left_out_note(left_out)}\n" if left_out else ""
    said = [part.decode("utf-8", "backslashreplace") for part in (before, after)]
    return gap.join(said), printed.size - cut


def _find_incomplete(text: bytes) -> int:
    """Return how many bytes at the end are the beginning of a character."""
    decoder = getincrementaldecoder("utf-8")("backslashreplace")
    decoder.decode(text)
    return len(decoder.getstate()[0])


class _Requests:
    """Writes hints for programs: requests of this API, where there are such."""

    def hint(self, words: str, *names: str) -> str:
        """Return a request, or a command."""
        if len(names) > 2 or (words == "explain" and len(names) < 2):  # of a job of no run
            return PLAIN.hint(words, *names)
        path = "/jobs/".join(quote(name, safe="[]") for name in names)
        if words == "explain":
            return f"GET /api/runs/{path}/explain"
        if words in ("approve", "retry", "cancel", "release"):
            return f"POST /api/runs/{path}/{words}"
        return PLAIN.hint(words, *names)

    def rq_hint(self, words: str, *names: str) -> str:
        """Return a command of RQ."""
        return PLAIN.rq_hint(words, *names)


_REQUESTS = _Requests()


@reads_a_whole_run
def explain_run(request: Request) -> Response:
    """Reply to `GET /api/runs/RUN/explain`."""
    run = _find_run(request)
    status = run.status()
    names = names_to_explain(status)[:MAX_EXPLAINED]
    return as_json(explain_document(run.explain(name, _REQUESTS, status=status) for name in names))


@reads_a_whole_run
def explain_job(request: Request) -> Response:
    """Reply to `GET /api/runs/RUN/jobs/JOB/explain`."""
    run, name = _find_run(request), request.path_params["job"]
    status = run.status()
    try:
        return as_json(explain_document([run.explain(name, _REQUESTS, status=status)]))
    except JobNotFound:
        raise missing_job(run.run_id, name, status.names()) from None


@reads_a_whole_run
def show_graph(request: Request) -> Response:
    """Reply to `GET /api/runs/RUN/graph.json`."""
    return as_json(make_document("graph", **to_document(_find_run(request).picture())))


@reads_a_whole_run
def draw_graph(request: Request) -> Response:
    """Reply to `GET /api/runs/RUN/graph.svg`."""
    text = spelled(render_svg(_find_run(request).picture()))
    headers = {"Content-Security-Policy": SVG_POLICY}
    content = text.encode("utf-8", "backslashreplace")
    return Response(content, media_type="image/svg+xml", headers=headers)


def show_now(request: Request) -> Response:
    """Reply to `GET /api/now`."""
    queues = request.query_params.getlist("queue")
    limit = _read_number(request, "limit", 100, MAX_LIMIT)
    return as_json(wip_document(client.read_wip(site_of(request).connection, queues, limit=limit)))


def list_workers(request: Request) -> Response:
    """Reply to `GET /api/workers`."""
    return as_json(workers_document(client.list_workers(site_of(request).connection)))


def list_schedules(request: Request) -> Response:
    """Reply to `GET /api/schedules`."""
    return as_json(schedules_document(client.list_schedules(site_of(request).connection)))


def list_workflows(request: Request) -> Response:
    """Reply to `GET /api/workflows`: those that may be submitted."""
    folder = site_of(request).workflows
    return as_json(offered_document(list_offered(folder) if folder else []))


def show_metrics(request: Request) -> Response:
    """Reply to `GET /metrics`: the text format of Prometheus."""
    if not find_spec("prometheus_client"):
        raise NotFound("metrics need another package: pip install 'rq-flowq[metrics]'")
    text = render_metrics(site_of(request).connection)
    return Response(text.encode(), headers={"Content-Type": CONTENT_TYPE})


def describe(request: Request) -> Response:
    """Reply to `GET /api/openapi.json`."""
    root = request.scope.get("root_path", "")
    return as_json(make_openapi(root, is_read_only=site_of(request).is_read_only))


def _find_run(request: Request) -> Run:
    return client.get_run(request.path_params["run"], site_of(request).connection)


def _has(request: Request, name: str) -> bool:
    return request.query_params.get(name, "") in ("1", "true")


def _read_number(request: Request, name: str, default: int, most: int, *, least: int = 1) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and least <= int(text) <= most):
        raise UsageError(f"{name} must be a number from {least} to {most:,}")
    return int(text)


def _read_instant(text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError("since must be an instant, as in 2026-11-29T10:00:00Z") from None


_RUN, _JOB = "/api/runs/{run}", "/api/runs/{run}/jobs/{job:path}"

ROUTES: list[BaseRoute] = [
    Route("/api/runs", list_runs),
    Route(f"{_RUN}/graph.svg", draw_graph),
    Route(f"{_RUN}/graph.json", show_graph),
    Route(f"{_RUN}/explain", explain_run),
    Route(f"{_JOB}/log", show_log),
    Route(f"{_JOB}/explain", explain_job),
    Route(_JOB, show_job),
    Route(_RUN, show_run),
    Route("/api/now", show_now),
    Route("/api/workers", list_workers),
    Route("/api/schedules", list_schedules),
    Route("/api/workflows", list_workflows),
    Route("/api/openapi.json", describe),
    Route("/metrics", show_metrics),
]
