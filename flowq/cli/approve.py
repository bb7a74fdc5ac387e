"""`flowq approve`: let a job go that asks for an approval."""

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
@click.option("--note", metavar="TEXT", default="", help="What to keep beside the approval.")
@with_run_options
def command(
    run_id: str,
    job: str,
    given: Mapping[str, str],
    note: str,
    redis_url: str | None,
    run_options: RunOptions,
) -> int:
    """Approve a JOB that asks for it: one job, one item of a group, or all items of a group.

    What the job asks for is given by -i. On the private server of the current folder the command
    then follows the run, as `flowq run` does, if nobody else executes it.

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
