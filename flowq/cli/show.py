"""`flowq show`: all about a run, or one of its jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from flowq import client
from flowq.cli import display, logs, options, reporting, streams
from flowq.cli.place import Place, opened
from flowq.client import Run
from flowq.errors import NotFound
from flowq.nearest import did_you_mean
from flowq.render.details import JobDetails, job_details, run_details
from flowq.render.lines import Line
from flowq.render.progress import progress
from flowq.render.summary import summary


@click.command()
@options.run_id
@click.argument("job", required=False)
@options.redis_url
@options.verbose
def command(run_id: str, job: str | None, redis_url: str | None, verbose: bool) -> None:
    """Show a run: its inputs, its jobs, and why jobs failed. Or one JOB of it, with the whole
    traceback, all that it printed, and its result.

    \b
      flowq show k3v9x0q2m5ab
      flowq show k3v9x0q2m5ab thumbnail
    """
    with opened(redis_url) as place:
        run = client.get_run(run_id, place.connection)
        lines = _job(run, job) if job else _run(run, place)
        display.tell(list(lines), sys.stdout)


def _run(run: Run, place: Place) -> Iterator[Line]:
    status, record = run.status(), run.record()
    width, unicode = display.width_of(sys.stdout), streams.can_show(sys.stdout)
    yield from run_details(record)
    yield ()
    yield from progress(status, datetime.now(UTC), width, unicode=unicode)[1:]
    yield ()
    yield from summary(reporting.make_report(run, status, place), width, unicode=unicode)[1:]


def _job(run: Run, name: str) -> Iterator[Line]:
    status = run.status()
    if name not in status.jobs:
        hint = did_you_mean(name, status.jobs)
        raise NotFound(f"there is no job {name} in run {run.run_id}; {hint}")
    job = status.jobs[name]
    failure = run.failures([name]).get(name)
    details = JobDetails(
        job,
        facts=run.facts(status).get(name),
        result=run.results([name]).get(name),
        traceback=failure.traceback if failure else "",
        output=logs.read_last(job.job_id),
    )
    return job_details(details, unicode=streams.can_show(sys.stdout))
