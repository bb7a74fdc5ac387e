"""`flowq status`: show the progress of a run."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import IO

import click

from flowq.cli import display, options, terminal
from flowq.cli.place import find_abandoned, opened
from flowq.client import Run, missing_job
from flowq.render.details import say_labels
from flowq.render.groups import as_one, counted_as_one, find_declared
from flowq.render.lines import Line, printable
from flowq.render.progress import progress, rows
from flowq.render.summary import Report, results
from flowq.render.tally import Tally
from flowq.status import RunStatus


@click.command()
@options.run_id
@options.optional_job
@options.redis_url
@options.as_json
@options.all_results
@options.nested
@options.verbose
def command(
    run_id: str,
    job: str | None,
    redis_url: str | None,
    as_json: bool,
    all_results: bool,
    nested: bool,
    verbose: bool,
) -> None:
    """Show the progress of a run, job by job, or that of one JOB or group.

    The exit code is 0 in every state; scripts should read "status" in the output of --json.

    \b
      flowq status last
      flowq status k3v9x0q2m5ab thumbnail
      flowq status k3v9x0q2m5ab --json
    """
    with terminal.result_stream(as_json) as out, opened(redis_url) as place:
        run, job = place.find_job(run_id, job)
        if as_json:
            from flowq.documents import run_json  # noqa: PLC0415 - the lines need none of it

            part = partial(find_part, name=job) if job is not None else None
            text = run_json(run, part, has_all_results=all_results, has_nested=nested)
            terminal.write(text, out)
            for name, why in run.kept_outputs().errors.items() if job is None else ():
                terminal.note(f"flowq: output {name} has no value: {why}")
            return
        counted = run.counted()
        tally = Tally.of_counted(counted) if counted else None
        if job is not None:
            _write_job(run, job, out, tally)
            return
        status = counted.status if counted and tally else run.status()
        kept = run.kept_outputs()
        width, unicode = display.width_of(out), terminal.can_show(out)
        now = datetime.now(UTC)
        heading, *lines = progress(status, now, width, unicode=unicode, tally=tally)
        labels = say_labels(run.record().labels)
        labeled: list[Line] = [((f"labels: {printable(labels)}", "dim"),)] if labels else []
        display.tell([heading, *labeled, *lines], out)
        ended = Report(status, outputs=kept.views, unknown=kept.errors)
        display.tell(list(results(ended, width, unicode=unicode)), out)
        if told := find_abandoned(run, status, place):
            terminal.write(f"\n{told}\n", out)
        if status.is_ended and status.state != "succeeded":
            terminal.write(f"\nwhy: {place.hint('show', run.run_id)}\n", sys.stdout)
        is_stuck = any(job.is_stuck for job in status.jobs.values())
        if is_stuck or (counted and counted.is_stuck):
            terminal.write(f"\nwhat to do: {place.hint('explain', run.run_id)}\n", sys.stdout)


def find_part(status: RunStatus, name: str) -> RunStatus:
    """Return the status reduced to one job or one group. Errors: NotFound."""
    if name in status.jobs and name not in status.groups:
        jobs = {name: status.jobs[name]}
    else:
        found = find_declared(status, name)
        if found is None:
            raise missing_job(status.run_id, name, status.names())
        own = {job.name for job in found.jobs}
        jobs = {name: job for name, job in status.jobs.items() if name in own}
    groups = status.groups & {name, *(job.declared_as for job in jobs.values())}
    return replace(status, jobs=jobs, groups=groups)


def _write_job(run: Run, name: str, out: IO[str], tally: Tally | None) -> None:
    width, unicode = display.width_of(out), terminal.can_show(out)
    part = tally.parts.get(name) if tally else None
    job = None
    if part is not None:
        job = counted_as_one(part) if part.is_group else part.job if part.is_one_job else None
    if job is None:
        status = run.status()
        found, job = find_declared(status, name), status.jobs.get(name)
        if found is not None and (found.is_group or found.inside):
            job = as_one(found, status.since)
        if job is None:
            raise missing_job(status.run_id, name, status.jobs)
    display.tell(list(rows([job], datetime.now(UTC), width, unicode=unicode)), out)
