"""`flowq explain`: why a job has not run."""

from __future__ import annotations

import click

from flowq import client
from flowq.cli import options, streams
from flowq.cli.place import opened


@click.command()
@click.argument("run_or_job", metavar="RUN|JOB_ID")
@click.argument("job", required=False)
@options.redis_url
@options.verbose
def command(run_or_job: str, job: str | None, redis_url: str | None, verbose: bool) -> None:
    """Say why a job has not run: everything that holds it, and what to do about it.

    A job is named by its run and its name, or by its job id alone.

    \b
      flowq explain k3v9x0q2m5ab serve
      flowq explain k3v9x0q2m5ab-serve
    """
    with opened(redis_url) as place:
        if job is None:
            explanation = client.explain(run_or_job, place.connection)
        else:
            explanation = client.get_run(run_or_job, place.connection).explain(job)
        streams.write(f"{explanation}\n")
