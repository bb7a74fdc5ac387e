"""`flowq reject`: reject a job that waits for approval."""

from __future__ import annotations

import click

from flowq.cli import options
from flowq.cli.following import RunOptions, answer, with_run_options
from flowq.client import Run


@click.command()
@options.run_id
@options.job
@click.option(
    "--reason", metavar="TEXT", default="", help="The reason, stored and shown with the run."
)
@with_run_options
def command(
    run_id: str,
    job: str,
    reason: str,
    redis_url: str | None,
    run_options: RunOptions,
) -> int:
    """Reject a JOB that waits for approval: one job, one item of a group, or all items of a group.

    The job is canceled, and later jobs are skipped. `flowq retry` requests the approval again.

    \b
      flowq reject k3v9x0q2m5ab publish --reason "the tests are red"
    """

    def tell(run: Run) -> str:
        is_news = run.reject(job, reason)
        return f"job {job} of run {run.run_id} {'is' if is_news else 'was already'} rejected"

    return answer(run_id, redis_url, run_options, tell)
