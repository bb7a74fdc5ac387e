"""What changes a run: approve, reject, release, cancel, retry, and submit. Each is a POST.

The guard has read the body, a JSON object (`request.state.body`), and knows who acts. A second call
that finds everything done changes nothing, and says so: `"changed": false`. The routes do not exist
with `--read-only`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowq import client
from flowq.client import Run
from flowq.compiling import compile_plan
from flowq.errors import NotFound, UsageError, WrongState
from flowq.pictures.stored import read_workflow
from flowq.render.json import make_document
from flowq.ui.offered import find_added_labels, plan_offered
from flowq.ui.replies import as_json
from flowq.ui.site import Site, site_of

MAX_TEXT = 4_000
"""The most characters of a note or a reason."""

NAMED = 5
Value = TypeVar("Value")


class _Body:
    """The fields of a body, each read once and with its type. Errors: UsageError."""

    def __init__(self, request: Request) -> None:
        self._left: dict[str, Any] = dict(request.state.body)

    def take(self, name: str, kind: type[Value], default: Value) -> Value:
        """Return a field; null counts as absent."""
        value = self._left.pop(name, None)
        if value is None:
            return default
        if not isinstance(value, kind):
            words = {bool: "true or false", str: "a text", dict: "an object"}
            raise UsageError(f"{name} must be {words[kind]}")
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise UsageError(f"{name} has more than {MAX_TEXT:,} characters")
        return value

    def end(self) -> None:
        """Refuse other fields."""
        if self._left:
            raise UsageError(f"{', '.join(sorted(self._left))[:200]}: there is no such field here")


def approve(request: Request) -> Response:
    """Reply to `POST /api/runs/RUN/jobs/JOB/approve`."""
    body, run, job = _Body(request), _find_run(request), request.path_params["job"]
    inputs, note = body.take("inputs", dict, {}), body.take("note", str, "")
    body.end()
    is_news = run.approve(job, inputs, note=note, by=request.state.who)
    told = f"{job} {'is' if is_news else 'was already'} approved"
    return _reply(request, run, "approve", told, is_news, job)


def reject(request: Request) -> Response:
    """Reply to `POST /api/runs/RUN/jobs/JOB/reject`."""
    body, run, job = _Body(request), _find_run(request), request.path_params["job"]
    reason = body.take("reason", str, "")
    body.end()
    is_news = run.reject(job, reason, by=request.state.who)
    told = f"{job} {'is' if is_news else 'was already'} rejected"
    return _reply(request, run, "reject", told, is_news, job)


def release(request: Request) -> Response:
    """Reply to `POST /api/runs/RUN/release`; also starts workers for a run that has lost them."""
    _Body(request).end()
    run = _find_run(request)
    is_news = run.release(by=request.state.who)
    is_started = not is_news and site_of(request).start_workers is not None
    told = f"the run {'is' if is_news else 'was already'} released"
    told += "; it has workers" * is_started
    return _reply(request, run, "release", told, is_news)


def cancel(request: Request) -> Response:
    """Reply to `POST /api/runs/RUN/cancel`."""
    body, run = _Body(request), _find_run(request)
    is_now = body.take("now", bool, False)
    body.end()
    if run.record().state == "canceled":
        return _reply(request, run, "cancel", "the run was already canceled", False)
    # On the private server, workers are started for the jobs that run in a canceled run.
    may_wait = site_of(request).start_workers is not None
    queues = run.cancel(now=is_now, may_wait=may_wait, by=request.state.who)
    told = "the run is canceled"
    if queues:
        told += f"; its last jobs too, as no worker listens on {', '.join(queues)}"
    return _reply(request, run, "cancel", told, True)


def retry(request: Request) -> Response:
    """Reply to `POST /api/runs/RUN/retry` and `POST /api/runs/RUN/jobs/JOB/retry`."""
    _Body(request).end()
    run, job = _find_run(request), request.path_params.get("job")
    again = run.retry(job, by=request.state.who)
    named = ", ".join(again[:NAMED]) + (f" and {len(again) - NAMED} more" * (len(again) > NAMED))
    return _reply(request, run, "retry", f"run again: {named}", True, job)


def submit(request: Request) -> Response:
    """Reply to `POST /api/runs`: submit a workflow of the folder, by its name."""
    site, body = site_of(request), _Body(request)
    name, inputs = body.take("workflow", str, ""), body.take("inputs", dict, {})
    labels, is_held = body.take("labels", dict, {}), body.take("hold", bool, False)
    body.end()
    if site.workflows is None:
        raise NotFound("no workflows may be submitted here: start flowq ui with --workflows FOLDER")
    plan = plan_offered(site.workflows, name, inputs, labels)
    is_apart = site.start_workers is not None
    run = client.submit(
        plan, site.connection, is_held=is_held, is_apart=is_apart, by=request.state.who
    )
    return _reply(request, run, "submit", f"run {run.run_id} is submitted", True, code=201)


def again(request: Request) -> Response:
    """Reply to `POST /api/runs/RUN/again`: submit the workflow that a run keeps once more."""
    site, body, run = site_of(request), _Body(request), _find_run(request)
    inputs, is_held = body.take("inputs", dict, {}), body.take("hold", bool, False)
    has_labels = request.state.body.get("labels") is not None
    given = body.take("labels", dict, {})
    body.end()
    source, record = run.source(), run.record()
    workflow = read_workflow(source)
    if workflow is None:
        raise WrongState(f"run {run.run_id} keeps no workflow: an older version submitted it")
    labels = given if has_labels else find_added_labels(record, workflow)
    plan = compile_plan(workflow, inputs, imports=False, labels=labels)
    plan = replace(plan, source=source, folders=record.folders)  # the workflow itself has no files
    is_apart = site.start_workers is not None
    new = client.submit(
        plan, site.connection, is_held=is_held, is_apart=is_apart, by=request.state.who
    )
    message = f"run {new.run_id} is submitted, as run {run.run_id} was"
    return _reply(request, new, "submit", message, True, code=201)


def _find_run(request: Request) -> Run:
    return client.get_run(request.path_params["run"], site_of(request).connection)


def _reply(
    request: Request,
    run: Run,
    act: str,
    message: str,
    is_changed: bool,
    job: str | None = None,
    code: int = 200,
) -> Response:
    """See to the workers that the run now needs, and say what was done."""
    unattended = _see_to_workers(site_of(request), run)
    if unattended:
        message += f"; no worker listens on {', '.join(unattended)}"
    document = make_document(
        "act",
        run=run.run_id,
        act=act,
        **({"job": job} if job is not None else {}),
        changed=is_changed,
        message=message,
        status=run.record().state,
        by=request.state.who,
        unattended_queues=unattended,
    )
    return as_json(document, code)


def _see_to_workers(site: Site, run: Run) -> list[str]:
    """Start workers where the page does that; elsewhere return the queues that have none."""
    status = run.status()
    hold = None if status.is_ended else run.find_hold()
    if status.is_ended or (hold is not None and hold.kind == "held"):
        return []
    if site.start_workers is None:
        return run.unattended_queues(status)
    site.start_workers(run)
    return []


def _post(path: str, reply: Callable[[Request], Response]) -> Route:
    return Route(path, reply, methods=["POST"])


_RUN, _JOB = "/api/runs/{run}", "/api/runs/{run}/jobs/{job:path}"

ROUTES: list[BaseRoute] = [
    _post("/api/runs", submit),
    _post(f"{_RUN}/cancel", cancel),
    _post(f"{_RUN}/release", release),
    _post(f"{_RUN}/retry", retry),
    _post(f"{_RUN}/again", again),
    _post(f"{_JOB}/approve", approve),
    _post(f"{_JOB}/reject", reject),
    _post(f"{_JOB}/retry", retry),
]
"""By method and path, as `openapi.py` describes them."""
