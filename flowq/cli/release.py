"""`flowq release`: the word that a job, or a held run, waits for."""

from __future__ import annotations

import click

from flowq import client
from flowq.cli import options, streams
from flowq.cli.attending import Wishes, see_to_the_end
from flowq.cli.interrupts import Interrupts
from flowq.cli.place import Place, opened
from flowq.client import FoundJob, Run
from flowq.errors import RunNotFound
from flowq.runtime.job import release_job


@click.command()
@options.run_id
@click.argument("job", required=False)
@options.redis_url
@options.concurrency
@options.quiet
@options.verbose
def command(
    run_id: str,
    job: str | None,
    redis_url: str | None,
    concurrency: int | None,
    quiet: bool,
    verbose: bool,
) -> int:
    """Approve a JOB that waits for it; or, without a JOB, let a run go that `run --hold` held.

    On the private server of the current folder it then follows the run, as `flowq run` does. The id
    of a future job, of no run, releases that.

    \b
      flowq release k3v9x0q2m5ab publish
      flowq release 3b2503a7-4f78-409f-bd48-98ce7def0f65
    """
    wishes = Wishes(concurrency, False, verbose, quiet)
    with streams.result_stream(False) as out, opened(redis_url) as place:
        try:
            run = client.get_run(run_id, place.connection)
        except RunNotFound:
            found = None if job else client.find_job(run_id, place.connection)
            if found is None:
                raise
            if not found.run_id:
                _release_job(found, place)
                return 0
            run, job = client.get_run(found.run_id, place.connection), found.name
        with Interrupts(deferring=True) as interrupts:
            since = run.status().last_event_id
            _tell(run, job, run.release(job))
            hold = run.find_hold()
            if hold is not None and hold.kind == "held":
                start = place.hint(f"release {run.run_id}")
                streams.note(f"flowq: {hold.text}; start it with: {start}")
                return 0
            if not _is_alone(run, place, wishes):
                return 0
            return see_to_the_end(run, place, wishes, out, interrupts, since)


def _release_job(job: FoundJob, place: Place) -> None:
    """Release a future job; whoever listens on its queue executes it, and its blockers."""
    is_news = release_job(job.job_id, place.connection)
    streams.note(f"flowq: job {job.job_id} {'is' if is_news else 'was already'} released")
    if client.find_unattended([job.queue], place.connection):
        start = place.hint("worker", job.queue)
        streams.note(f"flowq: no worker listens on the queue {job.queue}; start one with: {start}")


def _tell(run: Run, job: str | None, is_news: bool) -> None:
    what = f"job {job} of run {run.run_id}" if job else f"run {run.run_id}"
    streams.note(f"flowq: {what} {'is' if is_news else 'was already'} released")


def _is_alone(run: Run, place: Place, wishes: Wishes) -> bool:
    """Whether nobody executes the run unless we do."""
    if run.status().is_ended:
        return False
    return wishes.concurrency is not None or (place.is_embedded and not run.is_served())
