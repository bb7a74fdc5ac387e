"""`flowq runs`: list runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import click

from flowq import client
from flowq.cli import display, options, terminal
from flowq.cli.place import opened_if_used
from flowq.durations import parse_duration
from flowq.render.details import runs_table
from flowq.status import RunState


def _read_instant(_ctx: click.Context, _param: click.Parameter, text: str | None) -> Any:
    """Parse a duration ago, or a date with or without a time; local time if it has no zone."""
    if text is None:
        return None
    with suppress(ValueError, OverflowError):
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromisoformat(text).astimezone()
    raise click.BadParameter(
        f"{text!r} is neither a duration, as in 2h (ago), nor a date, as in 2026-11-29"
    )


@click.command()
@options.redis_url
@options.limit(20, "Maximum number of runs.")
@click.option("--state", type=click.Choice(get_args(RunState)), help="Only runs in this state.")
@click.option("--workflow", metavar="NAME", help="Only runs of this workflow.")
@click.option(
    "--since",
    callback=_read_instant,
    metavar="WHEN",
    help="Only runs submitted since then: 2h or 3d (ago), 2026-11-29 or 2026-11-29T10:00.",
)
@options.having_labels
@options.as_json
@options.verbose
def command(
    redis_url: str | None,
    limit: int,
    state: str | None,
    workflow: str | None,
    since: datetime | None,
    labels: Mapping[str, str],
    as_json: bool,
    verbose: bool,
) -> None:
    """List the most recent runs, newest first.

    \b
      flowq runs -n 5
      flowq runs --state failed --since 2d
      flowq runs --workflow gallery --json
      flowq runs --label team=data --label day=2026-11-29
    """
    with terminal.result_stream(as_json) as out, opened_if_used(redis_url) as place:
        records = (
            client.list_runs(
                place.connection,
                limit,
                state=state,
                workflow=workflow,
                since=since,
                labels=labels,
            )
            if place
            else []
        )
        if as_json:
            from flowq.render.json import runs_document, write_json  # noqa: PLC0415 - as above

            terminal.write(write_json(runs_document(records)), out)
        else:
            display.tell(runs_table(records, datetime.now(UTC)), out)
