"""`flowq release`: release a held run."""

from __future__ import annotations

from functools import partial

import click

from flowq import client
from flowq.cli import options, terminal
from flowq.cli.following import RunOptions, answer_run, is_alone, with_run_options
from flowq.cli.place import Place, opened
from flowq.client import FoundJob, Run
from flowq.errors import RunNotFound
from flowq.runtime.job import release_job


@click.command()
@options.run_id
@click.argument("job", required=False, metavar="")
@with_run_options
def command(
    run_id: str,
    job: str | None,
    redis_url: str | None,
    run_options: RunOptions,
) -> int:
    """Release a RUN that `run --hold` submitted, or resume one that no command executes.

    On the private server of the current folder, the command then follows the run like `flowq run`;
    Ctrl-C cancels it.
    Given the id of a future job outside any run, it releases that job. Until 1.0, `flowq release
    RUN JOB` is the same as `flowq approve RUN JOB`.

    \b
      flowq release k3v9x0q2m5ab
      flowq release 3b2503a7-4f78-409f-bd48-98ce7def0f65
    """
    with terminal.result_stream(False) as out, opened(redis_url, is_changing=True) as place:
        try:
            run = place.find_run(run_id)
        except RunNotFound:
            found = None if job else client.find_job(run_id, place.connection)
            if found is None:
                raise
            if not found.run_id:
                _release_job(found, place)
                return 0
            run, job = client.get_run(found.run_id, place.connection), found.name
        if job is not None:
            tell = partial(_approve, name=job, place=place)
        else:
            tell = partial(_release, place=place, run_options=run_options)
        return answer_run(run, place, run_options, out, tell)


def _release_job(job: FoundJob, place: Place) -> None:
    """Release a future job outside any run; workers of its queue execute it and its blockers."""
    is_news = release_job(job.job_id, place.connection)
    terminal.note(f"flowq: job {job.job_id} {'is' if is_news else 'was already'} released")
    if client.find_unattended([job.queue], place.connection):
        start = place.hint("worker", job.queue)
        terminal.note(f"flowq: no worker listens on the queue {job.queue}; start one with: {start}")


def _release(run: Run, place: Place, run_options: RunOptions) -> str:
    if run.release():
        return f"run {run.run_id} is released"
    told = f"run {run.run_id} was already released"
    return f"{told}; executing it here" if is_alone(run, place, run_options) else told


def _approve(run: Run, name: str, place: Place) -> str:
    instead = place.hint("approve", run.run_id, name)
    terminal.note(f"flowq: `release` of a job ends with 1.0; write: {instead}")
    is_news = run.approve(name)
    return f"job {name} of run {run.run_id} {'is' if is_news else 'was already'} approved"
