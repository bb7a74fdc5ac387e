"""`flowq runs`: the newest runs."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from flowq import client
from flowq.cli import display, options, terminal
from flowq.cli.place import opened_if_used
from flowq.render.details import runs_table
from flowq.render.json import record_document, write_json


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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list on stdout.")
@options.verbose
def command(redis_url: str | None, limit: int, as_json: bool, verbose: bool) -> None:
    """List the newest runs, the newest first.

    \b
      flowq runs -n 5
      flowq runs --json
    """
    with terminal.result_stream(as_json) as out, opened_if_used(redis_url) as place:
        records = client.list_runs(place.connection, limit) if place else []
        if as_json:
            terminal.write(write_json(list(map(record_document, records))), out)
        else:
            display.tell(runs_table(records, datetime.now(UTC)), out)
