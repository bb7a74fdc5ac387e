"""`flowq show`: show everything about a run, or one of its jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import get_args

import click

from flowq import client, job_output
from flowq.cli import display, following, options, terminal
from flowq.cli.following import POLL_S
from flowq.cli.place import Place, find_abandoned, opened
from flowq.client import Run, missing_job
from flowq.errors import UsageError
from flowq.history import Attempt
from flowq.render.details import (
    JobDetails,
    counted_details,
    group_details,
    job_details,
    run_details,
)
from flowq.render.groups import Declared, choose_items, find_declared, with_span
from flowq.render.job_output import output_lines
from flowq.render.lines import Line, printable
from flowq.render.progress import progress, rows
from flowq.render.summary import summary, without_runtime
from flowq.render.tally import Tally
from flowq.runtime.counts import read_page
from flowq.status import ENDED, JobState, JobStatus, RunStatus

PAGE = 100
"""How many items of a group are listed with `--state`."""


@click.command()
@options.run_id
@options.optional_job
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Print the output of JOB as it is written, until the job ends.",
)
@click.option(
    "--state",
    type=click.Choice(get_args(JobState)),
    help="Of a group: list the items in this state.",
)
@options.limit(None, "With --state: maximum number of items; default: 100.")
@click.option("--after", metavar="ITEM", default="", help="With --state: list those after ITEM.")
@options.redis_url
@options.as_json
@options.all_results
@options.nested
@options.verbose
def command(
    run_id: str,
    job: str | None,
    follow: bool,
    state: str | None,
    limit: int | None,
    after: str,
    redis_url: str | None,
    as_json: bool,
    all_results: bool,
    nested: bool,
    verbose: bool,
) -> int:
    """Show a run: its inputs, its jobs, and why jobs failed. With a JOB, show its traceback (-v
    includes frames of flowq and RQ), its output and its result.

    With --follow, the exit code is 0 if the job finished or was skipped, else 1.

    \b
      flowq show last
      flowq show k3v9x0q2m5ab thumbnail
      flowq show last thumbnails --state failed -n 20
      flowq show k3v-thumbnail --follow
      flowq show last thumbnail --json
    """
    if follow and not job and "-" not in run_id:
        raise UsageError("--follow is for one job: flowq show RUN JOB --follow")
    if follow and as_json:
        raise UsageError("--follow prints lines; remove --json")
    if state is None and (limit or after):
        raise UsageError("--limit and --after need --state")
    with terminal.result_stream(as_json) as out, opened(redis_url) as place:
        run, job = place.find_job(run_id, job)
        if state and (follow or not job):
            raise UsageError(f"--state is for a group: flowq show RUN GROUP --state {state}")
        page = _Page(run, job, state, after, limit) if job and state else None
        if as_json:
            from flowq.documents import job_json, run_json  # noqa: PLC0415 - lines need neither

            if job:
                find = page.read if page else None
                text = job_json(run, job, find, has_all_results=all_results, has_nested=nested)
            else:
                text = run_json(run, has_all_results=all_results, has_nested=nested)
            terminal.write(text, out)
            return 0
        if page:
            display.tell(list(page.draw(place)), sys.stdout)
            return 0
        if job and follow:
            return _follow(run, job, place)
        lines = _named(run, job, is_verbose=verbose) if job else _run(run, place)
        display.tell(list(lines), sys.stdout)
    return 0


def _run(run: Run, place: Place) -> Iterator[Line]:
    status, record = run.status(), run.record()
    width, unicode = display.width_of(sys.stdout), terminal.can_show(sys.stdout)
    yield from run_details(record, datetime.now(UTC), run.code_changes())
    yield ()
    yield from progress(status, datetime.now(UTC), width, unicode=unicode)[1:]
    if told := find_abandoned(run, status, place):
        yield from ((), ((told, "yellow"),))
    yield ()
    yield from summary(following.make_report(run, status, place), width, unicode=unicode)[1:]


def _follow(run: Run, name: str, place: Place) -> int:
    job, tail = _find_job(run, run.status(), name), job_output.Tail(run)
    for status, _ in run.observe(POLL_S, place.revive):
        job = _find_job(run, status, name)
        for _, line in tail.new_lines([job]):
            terminal.write(f"{printable(line)}\n")
        if job.state in ENDED:
            break
    if job.attempts and not tail.has_seen(job):
        terminal.note(f"flowq: {job_output.explain_nothing(run, job)}")
    return 0 if job.state in ("finished", "skipped") else 1


def _find_job(run: Run, status: RunStatus, name: str) -> JobStatus:
    group = None if name in status.jobs else find_declared(status, name)
    if group is not None and group.is_group:
        item = group.items[0].name if group.items else f"{name}[0]"
        raise UsageError(f"{name} is a group; name one of its items, such as {item}")
    if name not in status.jobs:
        raise missing_job(run.run_id, name, status.names())
    return status.jobs[name]


def _named(run: Run, name: str, *, is_verbose: bool) -> Iterator[Line]:
    status, attempts = run.history()
    group = None if name in status.jobs else find_declared(status, name)
    if group is not None and group.is_group:
        return _group(run, group, status)
    job = with_span(status).get(name) or _find_job(run, status, name)
    return _job(run, job, status, attempts.get(name, ()), is_verbose=is_verbose)


def _group(run: Run, group: Declared, status: RunStatus) -> Iterator[Line]:
    views = run.views([job.name for job in group.items], status)
    results = [views[job.name].result if job.name in views else None for job in group.items]
    width, unicode = display.width_of(sys.stdout), terminal.can_show(sys.stdout)
    yield from group_details(group, results, unicode=unicode)
    if group.items:
        spans = with_span(status)
        items = [spans.get(job.name, job) for job in group.items]
        yield ()
        yield from rows(items, datetime.now(UTC), width, unicode=unicode)


_Shown = tuple[Iterator[Line], list[JobStatus], bool]


class _Page:
    """Some of the items of a group that are in one state."""

    def __init__(self, run: Run, name: str, state: str, after: str, limit: int | None) -> None:
        self.run, self.name, self.state, self.after, self.limit = run, name, state, after, limit

    def read(self, status: RunStatus) -> list[JobStatus]:
        """Return the items. Errors: NotFound; UsageError for what is no group."""
        from flowq.documents import choose_page  # noqa: PLC0415 - lines need none of it

        limit = self.limit or PAGE
        return choose_page(self.run, status, self.name, self.state, self.after, limit)

    def _find_group(self, status: RunStatus) -> Declared:
        group = find_declared(status, self.name)
        if group is None or not group.is_group:
            _find_job(self.run, status, self.name)
            raise UsageError(f"{self.name} is not a group; --state lists the items of one")
        return group

    def _choose(self, group: Declared) -> tuple[list[JobStatus], bool]:
        names = {job.name: job for job in group.items}
        if self.after and self.after not in names:
            raise missing_job(self.run.run_id, self.after, names)
        return choose_items(group, self.state, self.after, self.limit or PAGE)

    def _read_folded(self, unicode: bool) -> _Shown:
        status = self.run.status()
        group = self._find_group(status)
        items, has_more = self._choose(group)
        spans = with_span(status)
        shown = [spans.get(job.name, job) for job in items]
        return group_details(group, unicode=unicode), shown, has_more

    def _read_counted(self, unicode: bool) -> _Shown | None:
        """Read only these items, if the run is large and its items are counted."""
        counted = self.run.counted()
        tally = Tally.of_counted(counted) if counted else None
        part = tally.parts.get(self.name) if tally else None
        if counted is None or part is None or not part.is_group:
            return None
        connection, limit = self.run.connection, self.limit or PAGE
        items = read_page(
            counted, self.name, self.state, connection, after=self.after, limit=limit + 1
        )
        if items is None:
            return None
        return counted_details(part, unicode=unicode), items[:limit], len(items) > limit

    def draw(self, place: Place) -> Iterator[Line]:
        """Yield the lines that show the group, its items, and how to see the next ones."""
        width, unicode = display.width_of(sys.stdout), terminal.can_show(sys.stdout)
        details, items, has_more = self._read_counted(unicode) or self._read_folded(unicode)
        yield from details
        yield ()
        yield from rows(items, datetime.now(UTC), width, unicode=unicode)
        if not items:
            yield ((f"no {'other ' if self.after else ''}item is {self.state}", "dim"),)
        if has_more:
            words = ["--state", self.state, "--after", items[-1].name]
            words += ["-n", str(self.limit)] if self.limit else []
            yield ()
            yield ((f"more: {place.hint('show', self.run.run_id, self.name, *words)}", ""),)


def _job(
    run: Run,
    job: JobStatus,
    status: RunStatus,
    attempts: Sequence[Attempt],
    *,
    is_verbose: bool,
) -> Iterator[Line]:
    name = job.name
    failure = run.failures([name], status).get(name)
    view = run.views([name], status).get(name, client.JobView())
    details = JobDetails(
        job,
        record=run.job_records(status).get(name),
        result=view.result,
        arguments=view.arguments,
        traceback=_traceback(failure, is_verbose),
        output=output_lines(job_output.read(run, [job.job_id]).get(job.job_id, {})),
        attempts=attempts,
        host_by_worker=run.find_hosts([job.worker, *(each.worker for each in attempts)]),
    )
    return job_details(details, unicode=terminal.can_show(sys.stdout))


def _traceback(failure: client.Failure | None, is_verbose: bool) -> Sequence[str]:
    if failure is None:
        return ()
    text = failure.traceback
    return text.rstrip().splitlines() if is_verbose else without_runtime(text)
