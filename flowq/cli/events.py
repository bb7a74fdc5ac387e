"""`flowq events`: print what happens in a run, or in all runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

import click

from flowq.cli import display, options, terminal
from flowq.cli.place import Place, opened, opened_if_used
from flowq.event import Event
from flowq.render.events import event_line
from flowq.render.json import event_document, write_json
from flowq.runtime import event_log


@click.command()
@options.optional_run_id
@click.option(
    "-f", "--follow", is_flag=True, help="Wait for further events until the run has ended."
)
@click.option(
    "--after",
    metavar="ID",
    default=event_log.BEGINNING,
    help="Only events after the one with this id; `now`: only new events.",
)
@click.option(
    "--json-lines", is_flag=True, help="Print one JSON object per line to stdout: each event."
)
@options.redis_url
@options.verbose
def command(
    run_id: str | None,
    follow: bool,
    after: str,
    json_lines: bool,
    redis_url: str | None,
    verbose: bool,
) -> None:
    """Print the events of a run, or of all runs, each on one line, the oldest first.

    With --json-lines each event has an "id". Pass it to --after, now or later, to read on from
    there: no event is missed, and none is printed twice. Without a RUN, --follow continues until
    Ctrl-C, and prints events with a delay of at least 0.1 s. Of the progress events of a job, only
    the newest is kept.

    \b
      flowq events last --follow
      flowq events --follow --after now
      flowq events k3v9x0q2m5ab --after 1764424800000-0 --json-lines
      flowq events last --json-lines | jq -r 'select(.event == "failed") | .name'
    """
    with terminal.result_stream(json_lines) as out:
        if run_id is not None:
            with opened(redis_url) as place:
                run_id = place.find_run(run_id).run_id
                _write(place, run_id, out, after, follow, json_lines)
            return
        with opened_if_used(redis_url) as maybe:
            if maybe is not None:
                _write(maybe, None, out, after, follow, json_lines)


def _write(
    place: Place, run_id: str | None, out: IO[str], after: str, follow: bool, json_lines: bool
) -> None:
    write = _write_json if json_lines else _line_writer(has_run=run_id is None)
    with place.without_waiting():  # the reader waits itself
        for event in event_log.read(
            run_id,
            place.connection,
            after=after,
            is_following=follow,
            while_away=place.revive,
            outage=place.retry.outage,
        ):
            write(event, out)


def _write_json(event: Event, out: IO[str]) -> None:
    terminal.write(write_json(event_document(event), indent=None), out)


def _line_writer(*, has_run: bool) -> Callable[[Event, IO[str]], None]:
    return lambda event, out: display.tell([event_line(event, has_run=has_run)], out)
