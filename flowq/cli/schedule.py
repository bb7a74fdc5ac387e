"""`flowq schedule`: submit runs of a workflow by its schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import click

from flowq.cli import compiling, options, terminal
from flowq.cli.place import Place, opened, warn_about
from flowq.client import find_unattended


@click.command()
@options.target
@options.inputs
@options.inputs_file
@options.redis_url
@options.no_import
@options.verbose
def command(
    target: str,
    given: Mapping[str, str],
    inputs_file: str | None,
    redis_url: str | None,
    imports: bool,
    verbose: bool,
) -> None:
    """Submit a run whenever the workflow's `schedule` is due, until Ctrl-C.

    Workers, as started by `flowq worker`, submit and execute the runs; this command only watches
    the clock. Run one instance per workflow.

    \b
      flowq schedule workflows/books.yaml --redis-url redis://localhost/0
    """
    from flowq.scheduling import find_due, make_scheduler  # noqa: PLC0415 - loads RQ's cron

    plan = compiling.make_plan(target, given, inputs_file, imports)
    with opened(redis_url, creating=True) as place:
        place.retry.wait_at_most(math.inf)
        warn_about(place)
        workflow = compiling.load(target)
        scheduler = make_scheduler(workflow, plan.inputs, place.connection)
        at = find_due(scheduler)
        terminal.note(f"flowq: the next run of {plan.workflow} is due at {at:%Y-%m-%d %H:%M %Z}")
        queues = {workflow.defaults.queue, *(enqueue.queue for enqueue in plan.enqueues)}
        _warn_about_workers(queues, place)
        scheduler.start()  # type: ignore[no-untyped-call]  # RQ's


def _warn_about_workers(queues: Iterable[str], place: Place) -> None:
    unattended = find_unattended(sorted(queues), place.connection)
    if unattended:
        start = place.hint("worker", *unattended)
        terminal.note(f"flowq: no worker listens yet; start one: {start}")
