"""`flowq approve`: approve a job that waits for approval."""

from __future__ import annotations

from collections.abc import Mapping

import click

from flowq.cli import options
from flowq.cli.following import RunOptions, answer, with_run_options
from flowq.client import Run


@click.command()
@options.run_id
@options.job
@options.values
@click.option(
    "--note", metavar="TEXT", default="", help="A note stored and shown with the approval."
)
@with_run_options
def command(
    run_id: str,
    job: str,
    given: Mapping[str, str],
    note: str,
    redis_url: str | None,
    run_options: RunOptions,
) -> int:
    """Approve a JOB that waits for approval: one job, one item of a group, or all items of a group.

    Pass the approval's inputs with -i. On the private server of the current folder, the command
    then follows the run like `flowq run`, unless another command is executing it; Ctrl-C cancels
    the run.

    \b
      flowq approve k3v9x0q2m5ab publish
      flowq approve k3v9x0q2m5ab 'deploy[2]' -i host=web1 --note "seen by Ann"
    """

    def tell(run: Run) -> str:
        has_asked = run.has_asked(job)
        what = f"job {job} of run {run.run_id}"
        if not run.approve(job, given, note=note):
            return f"{what} was already approved"
        return f"{what} is approved" if has_asked else f"{what} is approved before it has asked"

    return answer(run_id, redis_url, run_options, tell)
