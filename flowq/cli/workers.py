"""`flowq workers`: list the workers of a server."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from flowq import client
from flowq.cli import display, options, terminal
from flowq.cli.place import opened_if_used
from flowq.render.json import write_json
from flowq.render.wip import workers_document, workers_table


@click.command()
@options.redis_url
@options.as_json
@options.verbose
def command(redis_url: str | None, as_json: bool, verbose: bool) -> None:
    """List the workers of a server: flowq's and RQ's.

    JOBS is how many jobs a worker holds, of how many it executes at a time; SEEN the time since
    its last heartbeat. On the private server each run has workers of its own, and RUN says which.
    "resting": no job of that run can start yet; a small process waits for the next one.
    "lost": the worker sends no heartbeats any more; other workers take over its jobs.

    \b
      flowq workers
      flowq workers --json | jq '.workers[] | select(.status == "lost")'
    """
    with terminal.result_stream(as_json) as out, opened_if_used(redis_url) as place:
        workers = client.list_workers(place.connection) if place else []
        if as_json:
            terminal.write(write_json(workers_document(workers)), out)
        else:
            display.tell(workers_table(workers, datetime.now(UTC), display.table_width(out)), out)
