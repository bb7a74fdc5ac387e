"""`flowq retry`: rerun the jobs of a run that did not succeed, or one job."""

from __future__ import annotations

import shlex
from functools import partial

import click

from flowq.cli import options, terminal
from flowq.cli.following import RunOptions, follow_to_the_end
from flowq.cli.place import opened
from flowq.cli.terminal import Interrupts
from flowq.client import Run
from flowq.render.lines import spelled_line
from flowq.status import RunStatus

NAMED = 5


@click.command()
@options.run_id
@options.optional_job
@options.redis_url
@options.concurrency
@options.as_json
@options.quiet
@options.verbose
def command(
    run_id: str,
    job: str | None,
    redis_url: str | None,
    concurrency: int | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Rerun the jobs of an ended run that did not succeed, and everything after them.

    With a JOB, rerun that job, even if it succeeded, and everything after it. JOB may be one item
    of a group, a whole group, or a nested workflow. All other jobs keep their results, and jobs
    under `finally` run again. The workflow is the one that was submitted; the command says if its
    file has changed since. The command then follows the run like `flowq run`; Ctrl-C cancels it.

    \b
      flowq retry k3v9x0q2m5ab
      flowq retry k3v9x0q2m5ab publish
      flowq retry k3v9x0q2m5ab 'thumb[3]'
    """
    run_options = RunOptions(concurrency, as_json, verbose, quiet)
    with terminal.result_stream(as_json) as out, opened(redis_url, is_changing=True) as place:
        run = place.find_run(run_id)
        _tell_changes(run)
        with Interrupts(deferring=True) as interrupts:
            status = run.status()
            begin = partial(_retry, run, job, status)
            since = status.last_event_id
            return follow_to_the_end(run, place, run_options, out, interrupts, since, begin)


def _tell_changes(run: Run) -> None:
    from flowq.targets import find_changes  # noqa: PLC0415 - imports the readers

    source = run.source()
    changed = find_changes(source) if source.file else None
    if changed is None:
        return
    some = ", ".join(changed[:NAMED]) + (" and others" if len(changed) > NAMED else "")
    file = shlex.quote(spelled_line(source.file))
    jobs = f" ({some})" if some else ""
    terminal.note(
        f"flowq: {file} has changed since run {run.run_id} was submitted{jobs}; a retry runs what "
        f"was submitted. To run the file as it is now: flowq run {file}"
    )


def _retry(run: Run, job: str | None, status: RunStatus) -> None:
    deleted = [each.name for each in status.jobs.values() if each.state == "deleted"]
    count = len(run.retry(job))
    if deleted and job is None:
        names = ", ".join(deleted[:NAMED]) + (" and others" if len(deleted) > NAMED else "")
        terminal.note(f"flowq: {names}: deleted, and cannot run again")
    terminal.note(f"flowq: {count} job{'s' if count > 1 else ''} of run {run.run_id} run again")
