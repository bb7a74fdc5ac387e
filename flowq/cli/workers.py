"""`flowq workers`: list the workers of a server."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

import click

from flowq import client
from flowq.cli import display, options, terminal
from flowq.cli.place import opened_if_used
from flowq.render.json import write_json
from flowq.render.wip import workers_document, workers_table


@click.command()
@click.option(
    "--here",
    is_flag=True,
    help="List only the workers on this host, and exit with 1 if none of them is alive.",
)
@options.redis_url
@options.as_json
@options.verbose
def command(here: bool, redis_url: str | None, as_json: bool, verbose: bool) -> int:
    """List the workers of a server: flowq's and RQ's.

    JOBS is how many jobs a worker holds, of how many it executes at a time; SEEN the time since
    its last heartbeat. On the private server each run has workers of its own, and RUN says which.
    "resting": no job of that run can start yet; a small process waits for the next one.
    "lost": the worker sends no heartbeats any more; other workers take over its jobs.

    With --here, the command serves as the health check of a container. With FLOWQ_PATIENCE=1 it
    exits with 4 at once if the server is unavailable. Workers wait for the server, so this is no
    reason to restart the container.

    \b
      flowq workers
      flowq workers --here
      flowq workers --json | jq '.workers[] | select(.status == "lost")'
    """
    with terminal.result_stream(as_json) as out, opened_if_used(redis_url) as place:
        workers = client.list_workers(place.connection) if place else []
        if here:
            workers = [each for each in workers if each.host == socket.gethostname()]
        if as_json:
            terminal.write(write_json(workers_document(workers)), out)
        else:
            display.tell(workers_table(workers, datetime.now(UTC), display.table_width(out)), out)
    return int(here and all(each.state == "lost" for each in workers))
