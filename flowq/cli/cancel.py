"""`flowq cancel`: the end of a run."""

from __future__ import annotations

import click

from flowq import client
from flowq.cli import options, streams
from flowq.cli.place import opened


@click.command()
@options.run_id
@options.redis_url
@options.verbose
def command(run_id: str, redis_url: str | None, verbose: bool) -> None:
    """End a run: what has not started never will, and what runs is stopped.

    \b
      flowq cancel k3v9x0q2m5ab
    """
    with opened(redis_url) as place:
        run = client.get_run(run_id, place.connection)
        run.cancel()
        running = run.status().count_by_state().get("started", 0)
        rest = f"; {running} of its jobs still run, and are being stopped" if running else ""
        streams.write(f"run {run_id} is canceled{rest}\n")
