"""`flowq wip`: list the jobs that are being executed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO

import click

from flowq import client
from flowq.cli import display, options, terminal
from flowq.cli.place import Place, opened_if_used
from flowq.cli.terminal import Interrupted, Interrupts
from flowq.client import InProgress
from flowq.render.json import write_json
from flowq.render.lines import Line
from flowq.render.wip import wip_document, wip_headline, wip_table
from flowq.runtime.connections import Outage, retry_while_unavailable

EVERY_S = 1.0
"""How often `--watch` looks."""


@click.command()
@options.queues
@click.option("-w", "--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@options.limit(100, "Maximum number of jobs; all are counted.")
@options.redis_url
@options.as_json
@options.verbose
def command(
    queues: tuple[str, ...],
    watch: bool,
    limit: int,
    redis_url: str | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """List the jobs that are being executed right now, on all queues or on some.

    A job is listed from its start to its end (WIP: work in progress). FOR is how long it has been
    running, LEFT the time until its timeout, SEEN the time since its worker's last heartbeat for
    it. "handed over": a worker's process holds the job, behind others, and has not begun it.
    "lost": its worker sends no heartbeats any more; another worker will take over the job.

    With --watch, the output to a file or a pipe is a table, or with --json a line, whenever jobs
    have begun or ended.

    \b
      flowq wip
      flowq wip default mails --watch
      flowq wip --json | jq '.counts'
    """
    with terminal.result_stream(as_json) as out, opened_if_used(redis_url) as place:
        if watch and place is not None:
            _watch(lambda: client.read_wip(place.connection, queues, limit=limit), out, as_json)
        else:
            _write(_read(place, queues, limit), out, as_json=as_json)


def _read(place: Place | None, queues: tuple[str, ...], limit: int) -> InProgress:
    if place is None:
        return client.InProgress.nothing()
    return client.read_wip(place.connection, queues, limit=limit)


def _write(wip: InProgress, out: IO[str], *, as_json: bool) -> None:
    if as_json:
        terminal.write(write_json(wip_document(wip)), out)
    else:
        display.tell(wip_table(wip, display.table_width(out)), out)


def _watch(read: Callable[[], InProgress], out: IO[str], as_json: bool) -> None:
    outage, before = Outage(_note, _note), None
    is_live = display.is_capable(out) and not as_json
    with display.changing_table(out) as show:
        while True:
            wip = retry_while_unavailable(read, outage=outage)
            now = {(each.execution_id, each.state) for each in wip.executions}, wip.counts
            if as_json and now != before:
                terminal.write(write_json(wip_document(wip), indent=None), out)
            elif is_live or now != before:
                with Interrupts(deferring=True) as interrupts:  # or half a table would stay
                    show(_board(wip, display.table_width(out)))
                if interrupts.first is not None:
                    raise Interrupted(interrupts.first)
            before = now
            time.sleep(EVERY_S)


def _board(wip: InProgress, width: int | None) -> list[Line]:
    return [((wip_headline(wip), "dim"),), *wip_table(wip, width), ()]


def _note(text: str) -> None:
    terminal.note(f"flowq: {text}")
