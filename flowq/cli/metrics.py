"""`flowq metrics`: print the metrics of a server once."""

from __future__ import annotations

import click

from flowq.cli import options, terminal
from flowq.cli.place import opened_if_used


@click.command()
@options.redis_url
@options.verbose
def command(redis_url: str | None, verbose: bool) -> None:
    """Print the metrics of a server once, in the text format of Prometheus.

    Of jobs, runs, queues and workers: how many there are, how many have ended, how long jobs ran
    and waited, and how many were lost. Needs the extra `metrics`.

    \b
      flowq metrics --redis-url redis://localhost/0
      flowq metrics > /var/lib/node_exporter/flowq.prom
    """
    from flowq.metrics import render_metrics  # noqa: PLC0415 - an extra, and its own errors

    with terminal.result_stream(False) as out, opened_if_used(redis_url) as place:
        terminal.write(render_metrics(place.connection if place else None), out)
