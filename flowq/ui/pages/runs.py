"""The list of runs, the first page: a filter, some runs, and the queues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from flowq import client
from flowq.client import RunFilter
from flowq.errors import RunNotFound, UsageError
from flowq.labels import check_labels
from flowq.runtime.listening import read_queues
from flowq.ui.pages.waiting import count_asking
from flowq.ui.site import site_of
from flowq.ui.totals import count_runs

PER_PAGE = 50
MAX_TEXT = 200
"""Characters of what is searched for."""

MAX_LABELS = 10
MAX_QUEUES = 200


def list_runs(request: Request) -> Response:
    """Show a page of runs, the newest first, and the queues."""
    site, query = site_of(request), request.query_params
    given = {name: query.get(name, "").strip()[:MAX_TEXT] for name in ("state", "workflow", "text")}
    labels = [text for each in query.getlist("label") if (text := each.strip()[:MAX_TEXT])]
    wanted, problem = _read_filter(given, labels[:MAX_LABELS])
    after = query.get("after", "")
    page = client.RunPage(())
    if not problem:
        try:
            page = client.read_run_page(site.connection, PER_PAGE, wanted, after=after)
        except RunNotFound:  # the one that this page began behind is gone
            if not after:
                raise
            return RedirectResponse(_url(request, query, after=""), 303)
    queues = read_queues(site.connection)
    return site.render(
        request,
        "runs.html",
        400 if problem else 200,
        runs=page.runs,
        totals=count_runs([run.run_id for run in page.runs], site.connection),
        asking=count_asking(
            [run.run_id for run in page.runs if run.state == "waiting"], site.connection
        ),
        given=given,
        labels=labels,
        states=client.RUN_STATES,
        problem=problem,
        is_filtered=wanted != RunFilter() or bool(problem),
        after=after,
        older=_url(request, query, after=page.after) if page.after else "",
        newest=_url(request, query, after="") if after else "",
        queues=queues[:MAX_QUEUES],
        queue_count=len(queues),
        queued=sum(each.jobs for each in queues),
        unattended=[each for each in queues if each.jobs and not each.workers],
    )


def _read_filter(given: Mapping[str, str], labels: list[str]) -> tuple[RunFilter, str]:
    """Return what to look for, and what is wrong with that."""
    wanted = RunFilter(workflow=given["workflow"], text=given["text"])
    if given["state"] not in ("", *client.RUN_STATES):
        return wanted, f"There is no state {given['state']}."
    pairs = [label.partition("=") for label in labels]
    bare = next((name for name, sign, _ in pairs if not sign), "")
    if bare:
        return wanted, f"A label is written name=value, not {bare}."
    try:
        checked = check_labels({name: value for name, _, value in pairs})
    except UsageError as error:
        return wanted, str(error)
    return replace(wanted, state=given["state"], labels=tuple(checked.items())), ""


def _url(request: Request, query: QueryParams, *, after: str) -> str:
    """Return the URL of another page of the same list."""
    pairs = [(name, value) for name, value in query.multi_items() if value and name != "after"]
    pairs += [("after", after)] if after else []
    root = request.scope.get("root_path", "")
    return f"{root}/?{urlencode(pairs)}" if pairs else f"{root}/"


ROUTES: list[BaseRoute] = [Route("/", list_runs)]
