"""`flowq runs`: the newest runs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from flowq import client
from flowq.cli import display, options
from flowq.cli.place import opened_if_used
from flowq.render.details import runs_table


@click.command()
@options.redis_url
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="How many of them.",
)
@options.verbose
def command(redis_url: str | None, limit: int, verbose: bool) -> None:
    """List the newest runs, the newest first.

    \b
      flowq runs -n 5
    """
    with opened_if_used(redis_url) as place:
        records = client.list_runs(place.connection, limit) if place else []
        display.tell(runs_table(records, datetime.now(UTC)), sys.stdout)
