"""A job: why it is as it is, every attempt, what it printed, what it got and what it returned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from flowq import client, job_output
from flowq.client import Explanation, Run, missing_job
from flowq.errors import NotFound, describe_exit
from flowq.history import Attempt, read_attempts
from flowq.pictures.folding import without_items
from flowq.pictures.picture import Picture
from flowq.pictures.report import say_place, without_beginning
from flowq.render.events import progress_text
from flowq.render.groups import with_span
from flowq.render.job_output import attempt_lines, drop_note, left_out_note
from flowq.render.summary import without_runtime
from flowq.runtime.counts import find_id, read_item_events
from flowq.runtime.lookups import read_timeout_s
from flowq.runtime.printed import Printed
from flowq.runtime.results import get_failures, read_views
from flowq.runtime.runs import read_job_records
from flowq.spec import JobSpec
from flowq.status import BAD, ENDED, RUN_ENDED, JobStatus, RunStatus, fold
from flowq.ui.pages.inside import find_spec, list_inside, say_command
from flowq.ui.pages.parts import COMMANDS, find_target, when_counted
from flowq.ui.pages.waiting import Asking, ask
from flowq.ui.reading import Seen
from flowq.ui.site import site_of
from flowq.ui.values import show_view, show_views

MAX_TRACEBACK = 40_000
MAX_LOG = 100_000
"""Characters of the output of one attempt; a worker keeps at most 64 kB."""

MAX_LINE = 4_000
MAX_NEIGHBOURS = 50


def show_job(request: Request) -> Response:
    """Show a job."""
    site, name = site_of(request), request.path_params["job"]
    run = client.get_run(request.path_params["run"], site.connection)
    seen = site.reader.read_run(run)
    root, search = request.scope.get("root_path", ""), request.query_params.get("search", "")
    target = find_target(seen, root, name)
    if "/groups/" in target:
        return RedirectResponse(target, 303)
    job, attempts = _find_job(seen, name)
    record = read_job_records([job.job_id], run.connection).get(job.job_id)
    view = read_views([job.job_id], run.connection).get(job.job_id, client.JobView())
    hosts = run.find_hosts([job.worker, *(each.worker for each in attempts)])
    logs = list(_read_logs(run, job, search))
    before, after = _find_neighbours(seen, name, root)
    timed, spec = with_span(seen.status).get(name, job), find_spec(run, name)
    inside = [
        (each, find_target(seen, root, each), state, words)
        for each, state, words in list_inside(seen.status, name)
    ]
    cause = job.reason.partition(" ")[0]
    cause = cause if cause in seen.status.jobs else ""
    needs_explanation = job.state not in ENDED or (job.state not in BAD and job.reason)
    return site.render(
        request,
        "job.html",
        seen=seen,
        record=seen.record,
        job_name=name,
        job=job,
        job_record=record,
        timed=timed,
        took_s=_find_duration(seen, timed),
        inside=inside,
        cause=cause,
        description=spec.description if spec else "",
        command=_find_command(spec, record),
        timeout_s=read_timeout_s(job.job_id, run.connection),
        look="tolerated" if seen.failed_status.is_tolerated(job) else job.state,
        attempts=[] if inside else [_tell_attempt(each, hosts) for each in attempts],
        on=say_place(job.worker, hosts) if job.worker else "",
        progress=progress_text(job.progress) if job.progress else "",
        approval=_find_approval(job, name, record),
        explained=_explain(run, job) if needs_explanation else None,
        arguments=show_views(view.arguments),
        result=show_view(view.result) if job.state == "finished" else None,
        polls=[(at, show_view(found)) for at, found in record.polls.last]
        if record and record.polls
        else [],
        trace=_read_traceback(run, job, is_full="full" in request.query_params),
        logs=logs,
        printed=any(each.size for each in logs),
        no_log=_explain_no_log(run, job, has_inside=bool(inside)),
        search=search,
        before=before,
        after=after,
        group=_find_group(seen, name, root),
        is_ended=seen.status.state in RUN_ENDED,
        can_retry=seen.status.state in RUN_ENDED and not job.helps,
    )


def _find_approval(job: JobStatus, name: str, record: client.JobRecord | None) -> Asking | None:
    """Return what a job asks, or was asked."""
    is_decided = record is not None and record.needs_approval and record.decision is not None
    return ask(job, name, record) if job.is_asking or is_decided else None


def _find_job(seen: Seen, name: str) -> tuple[JobStatus, Sequence[Attempt]]:
    """Return a job with its attempts. Errors: NotFound."""
    if seen.counted is None:
        job = seen.status.jobs.get(name)
        if job is None:
            raise missing_job(seen.run.run_id, name, seen.status.names())
        return job, seen.attempts.get(name, ())
    known = seen.status.jobs.get(name)
    job_id = known.job_id if known else find_id(seen.run.run_id, name, seen.run.connection)
    if not job_id:
        raise missing_job(seen.run.run_id, name, seen.status.names())
    events = read_item_events(seen.run.run_id, name, job_id, seen.run.connection)
    job = fold(RunStatus(seen.run.run_id, ""), events).jobs.get(name) or known
    if job is None:
        raise missing_job(seen.run.run_id, name, seen.status.names())
    return job, read_attempts(events).get(name, ())


def _find_command(spec: JobSpec | None, record: client.JobRecord | None) -> str:
    """Return what a job executes, with its values where its record has that.

    The record has the job's description instead, if the workflow declares one.
    """
    known = say_command(spec) if spec and (spec.description or spec.workflow) else ""
    return known or (record.description if record else "")


def _find_duration(seen: Seen, timed: JobStatus) -> float | None:
    """Return how long a job took, or has taken."""
    if timed.started_at is None:
        return None
    return ((timed.ended_at or seen.now) - timed.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class _ToldAttempt:
    attempt: Attempt
    state: str
    on: str
    why: str


def _tell_attempt(attempt: Attempt, hosts: dict[str, tuple[str, int]]) -> _ToldAttempt:
    why = attempt.error or (attempt.reason if attempt.state != "finished" else "")
    if attempt.exit_code is not None and f"exit code {attempt.exit_code}" not in why:
        why = ": ".join(filter(None, (describe_exit(attempt.exit_code), why)))
    on = say_place(attempt.worker, hosts) if attempt.worker else ""
    return _ToldAttempt(attempt, attempt.state.replace("_", " "), on, why)


def _explain(run: Run, job: JobStatus) -> Explanation | None:
    try:
        return client.explain(job.job_id, run.connection, run.run_id, COMMANDS)
    except NotFound:
        return None


# What it printed -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Log:
    """The output of an attempt. With a search: the lines that have the text, of `lines` lines.

    `left_out` bytes of `size` are not kept, and cannot be searched.
    """

    number: int
    text: str
    lines: int
    found: int
    size: int
    left_out: int = 0


def _read_logs(run: Run, job: JobStatus, search: str) -> Iterator[_Log]:
    """Yield the output of each attempt, newest first; also of one that has printed nothing yet."""
    printed = dict(job_output.read(run, [job.job_id]).get(job.job_id, {}))
    if job.state == "started":
        printed.setdefault(job.attempts, Printed())
    for number, each in sorted(printed.items(), reverse=True):
        lines = attempt_lines(each)
        gaps = {left_out_note(each.left_out) if each.left_out else "", drop_note(each)} - {""}
        hits = [search.lower() in line.lower() and line not in gaps for line in lines]
        found = [line for line, is_hit in zip(lines, hits, strict=True) if is_hit or line in gaps]
        found = found if search else lines
        text = "\n".join(_cut(line) for line in found)
        if text and (each.tail or each.head).endswith(b"\n"):
            text += "\n"  # what follows is a line of its own
        shown = without_beginning(text, MAX_LOG)
        yield _Log(number, shown, len(lines), sum(hits), each.size, each.left_out)


def _cut(line: str) -> str:
    left = len(line) - MAX_LINE
    return f"{line[:MAX_LINE]} … {left:,} characters left out" if left > 0 else line


def _explain_no_log(run: Run, job: JobStatus, *, has_inside: bool) -> str:
    if has_inside:
        return "What is inside of it has output of its own."
    if not job.attempts:
        return "It has not begun."
    return f"{job_output.explain_nothing(run, job)}."


@dataclass(frozen=True, slots=True)
class _Traceback:
    text: str
    left_out: bool


def _read_traceback(run: Run, job: JobStatus, *, is_full: bool) -> _Traceback | None:
    if job.state not in BAD and not job.is_rejected:
        return None
    failure = get_failures([job.job_id], run.connection).get(job.job_id)
    if failure is None or not failure.traceback:
        return None
    whole = failure.traceback
    own = "\n".join(without_runtime(whole, advice=""))
    text = whole if is_full else own
    return _Traceback(without_beginning(text, MAX_TRACEBACK), own != whole.rstrip())


# Its place in the run --------------------------------------------------------------------------

_Neighbour = tuple[str, str, str, str]
"""Name, URL, state, and what the edge says."""


def _find_neighbours(seen: Seen, name: str, root: str) -> tuple[list[_Neighbour], list[_Neighbour]]:
    """Return what a job comes after, and what comes after it, as declared."""
    own = without_items(name)
    outer, _, last = own.rpartition(".")
    picture: Picture | None = seen.picture
    for each in outer.split(".") if outer else ():
        boxes = picture.boxes if picture else ()
        picture = next((box.inside for box in boxes if box.name == each), None)
    if picture is None:
        return [], []
    around = name.rpartition(".")[0]
    states = {box.name: box.look for box in picture.boxes}

    def tell(other: str, word: str) -> _Neighbour:
        whole = f"{around}.{other}" if around else other
        target = find_target(seen, root, whole)
        if around and whole in seen.status.jobs:
            return other, target, seen.status.jobs[whole].state, word
        return other, target, states.get(other, ""), word

    arrows = picture.arrows
    before = [tell(each.blocker, each.word) for each in arrows if each.future == last]
    after = [tell(each.future, each.word) for each in arrows if each.blocker == last]
    return before, after


def _find_group(seen: Seen, name: str, root: str) -> tuple[str, str] | None:
    """Return the name and the URL of the group that an item belongs to."""
    group = name.partition("[")[0]
    target = find_target(seen, root, group) if group != name else ""
    return (group, target) if "/groups/" in target else None


ROUTES: list[BaseRoute] = [Route("/runs/{run}/jobs/{job:path}", when_counted(show_job))]
