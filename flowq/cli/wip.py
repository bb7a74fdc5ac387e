"""`flowq wip`: list the jobs that are being executed."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from flowq import client
from flowq.cli import display, options
from flowq.cli.place import opened_if_used
from flowq.render.details import wip_table


@click.command()
@options.queues
@options.redis_url
@options.verbose
def command(queues: tuple[str, ...], redis_url: str | None, verbose: bool) -> None:
    """List the jobs that are being executed right now, on all queues or on some.

    A job is listed from its start to its end (WIP: work in progress).

    \b
      flowq wip
      flowq wip default mails
    """
    with opened_if_used(redis_url) as place:
        entries = client.list_executing(place.connection, queues) if place else []
        display.tell(wip_table(entries, datetime.now(UTC)), sys.stdout)
